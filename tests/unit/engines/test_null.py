"""The engine that computes next to nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock_server.domain.errors import EngineFailed
from penstock_server.engines.factory import build_engine
from tests.support.reference_model_tiny import make_batch, tiny_manifest


def test_outputs_follow_from_ids_alone(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path), threads=1, kind="null")
    outputs = engine.run(make_batch([[10, 20], [7]], padded_length=5))
    np.testing.assert_array_equal(outputs, [[2, 30, 60, 90], [1, 7, 14, 21]])
    assert outputs.dtype == np.float32
    assert engine.name == "null/cpu"


def test_padding_and_batch_mates_change_nothing(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path), threads=1, kind="null")
    alone = engine.run(make_batch([[60_000, 60_000]]))
    together = engine.run(make_batch([[1] * 8, [60_000, 60_000]]))
    np.testing.assert_array_equal(alone[0], together[1])


def test_closed_engine_fails(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path), threads=1, kind="null")
    engine.close()
    with pytest.raises(EngineFailed):
        engine.run(make_batch([[1]]))
