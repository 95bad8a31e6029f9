"""An engine in a child process, which rows may kill."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator

import numpy as np
import pytest

from penstock_server.domain.errors import EngineFailed, ModelBroken
from penstock_server.domain.model import ModelManifest
from penstock_server.engines.batches import empty_batch
from penstock_server.engines.factory import build_engine
from penstock_server.ray.apart import ApartEngine
from penstock_server.ray.model import ModelOrder
from tests.support.server import MODELS


@pytest.fixture(scope="module")
def manifest() -> ModelManifest:
    return ModelOrder(models=str(MODELS), model="minilm").manifest()


@pytest.fixture
def engine(manifest: ModelManifest) -> Generator[ApartEngine]:
    engine = ApartEngine(manifest)
    yield engine
    engine.close()


def test_outputs_are_those_of_an_engine_in_this_process(engine: ApartEngine, manifest: ModelManifest) -> None:
    batch = empty_batch(engine, manifest, 3, 8)
    assert np.allclose(engine.run(batch), build_engine(manifest, threads=1).run(batch), atol=1e-6)
    with pytest.raises(EngineFailed, match="could not compute a batch of 1 rows of up to 600 tokens"):
        engine.run(empty_batch(engine, manifest, 1, 600))
    # That was an answer; the child lives on.
    assert engine.run(batch).shape == (3, manifest.width)


def test_a_batch_that_kills_the_child_fails_and_the_next_one_is_computed(
    engine: ApartEngine, manifest: ModelManifest
) -> None:
    batch = empty_batch(engine, manifest, 2, 8)
    killed = engine.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(EngineFailed, match="The engine died on this row"):
        engine.run(batch)
    assert engine.run(batch).shape == (2, manifest.width)
    assert engine.pid not in (None, killed)


def test_a_child_that_cannot_build_its_engine_is_a_broken_model(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ModelBroken, match="dies when it is built"):
        ApartEngine(manifest)
