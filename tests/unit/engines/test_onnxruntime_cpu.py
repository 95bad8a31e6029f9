"""The ONNX Runtime engine, on tiny graphs whose answers are known."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penstock_server.domain.errors import EngineFailed, ModelBroken, NotBuilt
from penstock_server.domain.tasks import Task
from penstock_server.engines.factory import build_engine
from penstock_server.engines.onnxruntime_cpu import OnnxEngine
from tests.support.reference_model_tiny import POISON_ID, make_batch, table, tiny_manifest

ROWS = [[1, 2, 3, 4], [5], [6, 7]]
CLASSIFY = 'task = "classify"\nlabels = ["a", "b", "c", "d"]'


def test_mean_pooling_counts_tokens_only(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path), threads=1)
    outputs = engine.run(make_batch(ROWS, padded_length=9))
    expected = [table(4)[row].mean(axis=0) for row in ROWS]
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    assert outputs.dtype == np.float32
    assert outputs.flags.c_contiguous
    assert engine.name == "onnxruntime/cpu"


def test_cls_pooling_takes_the_first_token(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path, 'task = "embed"\npooling = "cls"'), threads=1)
    np.testing.assert_array_equal(engine.run(make_batch(ROWS)), table(4)[[1, 5, 6]])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_other_threads_stay_where_they_are_put(tmp_path: Path) -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    before = set(os.listdir("/proc/self/task"))
    engine = build_engine(tiny_manifest(tmp_path), threads=2, cpus=(first, second))
    (added,) = set(os.listdir("/proc/self/task")) - before
    assert os.sched_getaffinity(int(added)) == {second}
    assert os.sched_getaffinity(0) != {first}
    assert engine.run(make_batch(ROWS)).shape == (3, 4)
    engine.close()


def test_row_without_tokens_is_zero(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path), threads=1)
    np.testing.assert_array_equal(engine.run(make_batch([[], [1]]))[0], 0)


@pytest.mark.parametrize("inputs", [("input_ids",), ("attention_mask", "input_ids")])
def test_only_the_graphs_inputs_are_fed(tmp_path: Path, inputs: tuple[str, ...]) -> None:
    engine = build_engine(tiny_manifest(tmp_path, CLASSIFY, shape="logits", inputs=inputs), threads=1)
    np.testing.assert_allclose(engine.run(make_batch([[3, 4]])), [table(4)[[3, 4]].sum(axis=0)], rtol=1e-6)


def test_int32_graphs_ask_for_int32(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path, int32=True), threads=1)
    assert engine.ids_dtype == np.int32
    batch = make_batch(ROWS, dtype=np.dtype(np.int32))
    np.testing.assert_allclose(engine.run(batch)[1], table(4)[5], rtol=1e-6)


def test_engine_is_built_from_a_pickled_manifest(tmp_path: Path) -> None:
    manifest = pickle.loads(pickle.dumps(tiny_manifest(tmp_path)))
    assert build_engine(manifest, threads=1).run(make_batch(ROWS)).shape == (3, 4)


def test_threads_may_run_at_once(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path), threads=2)
    batches = [make_batch([[i % 40 + 1] * (i % 7 + 1)]) for i in range(64)]
    with ThreadPoolExecutor(4) as pool:
        for i, outputs in enumerate(pool.map(engine.run, batches)):
            np.testing.assert_allclose(outputs[0], table(4)[i % 40 + 1], rtol=1e-5)


def test_poison_row_fails_the_batch_and_spares_the_next(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path), threads=1)
    with pytest.raises(EngineFailed, match="not finite"):
        engine.run(make_batch([[1], [POISON_ID]]))
    assert np.isfinite(engine.run(make_batch([[1], [2]]))).all()


def test_what_the_graph_refuses_is_an_engine_failure(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path), threads=1)
    with pytest.raises(EngineFailed, match="could not compute a batch of 1 rows of up to 1 tokens") as caught:
        engine.run(make_batch([[5_000]]))
    assert "Gather" not in caught.value.message


def test_closed_engine_fails_and_closes_again(tmp_path: Path) -> None:
    engine = build_engine(tiny_manifest(tmp_path), threads=1)
    engine.close()
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.run(make_batch(ROWS))


def test_file_that_is_no_graph_is_a_broken_model(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path)
    manifest.onnx_path.write_bytes(b"\x08\x08damaged")
    with pytest.raises(ModelBroken, match=r"model\.onnx cannot be loaded"):
        OnnxEngine(manifest, threads=1)


def test_graph_of_another_width_is_found_at_start(tmp_path: Path) -> None:
    manifest = replace(tiny_manifest(tmp_path), width=5)
    with pytest.raises(ModelBroken, match="expected width 5"):
        OnnxEngine(manifest, threads=1)


def test_taggers_are_refused_as_not_built(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt):
        build_engine(replace(tiny_manifest(tmp_path), task=Task.TAG), threads=1)
