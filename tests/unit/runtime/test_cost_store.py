from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from penstock_server.domain.lane import LaneKind
from penstock_server.runtime.cost_store import CostKey, CostStore, cost_key
from penstock_server.scheduling.cost import CostTable
from tests.support.reference_model_tiny import tiny_manifest

KEY = CostKey("minilm@1", "0123", "live", 2, "a processor", "onnxruntime 1.2.3")


def taught() -> CostTable:
    table = CostTable(LaneKind.LIVE, 256)
    for _ in range(20):
        table.observe(4, 32, 12_000_000)
    return table


def test_table_comes_back_as_it_was(tmp_path: Path) -> None:
    store, table = CostStore(tmp_path / "costs"), taught()
    assert store.save(KEY, table.state())
    state = CostStore(tmp_path / "costs").load(KEY)
    assert state == table.state()
    assert [path.name for path in (tmp_path / "costs").iterdir()] == [KEY.file_name]


def test_no_file_is_no_table(tmp_path: Path) -> None:
    assert CostStore(tmp_path / "costs").load(KEY) is None


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, graph="4567"),
        replace(KEY, lane="bulk"),
        replace(KEY, threads=1),
        replace(KEY, cpu="another processor"),
        replace(KEY, engine="onnxruntime 1.2.4"),
        replace(KEY, model="minilm@2"),
    ],
)
def test_each_part_of_the_key_has_a_file_of_its_own(tmp_path: Path, other: CostKey) -> None:
    store = CostStore(tmp_path)
    store.save(KEY, taught().state())
    assert store.load(other) is None
    # Copied there by hand, it is of another machine still.
    (tmp_path / other.file_name).write_bytes((tmp_path / KEY.file_name).read_bytes())
    assert store.load(other) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b"[1, 2", b'{"format": 1, "key": 7}'])
def test_broken_file_is_ignored_and_replaced(tmp_path: Path, content: bytes) -> None:
    store = CostStore(tmp_path)
    (tmp_path / KEY.file_name).write_bytes(content)
    assert store.load(KEY) is None
    assert store.save(KEY, taught().state())
    assert store.load(KEY) is not None


def test_file_that_was_cut_is_ignored(tmp_path: Path) -> None:
    store = CostStore(tmp_path)
    store.save(KEY, taught().state())
    path = tmp_path / KEY.file_name
    path.write_bytes(path.read_bytes()[:-200])
    assert store.load(KEY) is None


def test_file_of_another_format_is_ignored(tmp_path: Path) -> None:
    store = CostStore(tmp_path)
    store.save(KEY, taught().state())
    path = tmp_path / KEY.file_name
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    assert store.load(KEY) is None


def test_folder_that_cannot_be_written_loses_the_table_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "costs").write_text("a file where the folder should be")
    store = CostStore(tmp_path / "costs")
    assert not store.save(KEY, taught().state())
    assert store.load(KEY) is None


def test_key_follows_the_graph_and_the_lane(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path)
    manifest.onnx_path.write_bytes(b"x" * 5_000_000)
    live = cost_key(manifest, LaneKind.LIVE, 2)
    assert live == cost_key(manifest, LaneKind.LIVE, 2)
    assert live.cpu
    assert live.engine.startswith("onnxruntime ")
    assert cost_key(manifest, LaneKind.BULK, 1) != live
    for changed in (b"y" + b"x" * 4_999_999, b"x" * 4_999_999 + b"y", b"x" * 5_000_001):
        manifest.onnx_path.write_bytes(changed)
        assert cost_key(manifest, LaneKind.LIVE, 2) != live


def test_graph_of_a_few_bytes_has_a_key_too(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path)
    manifest.onnx_path.write_bytes(b"x")
    assert cost_key(manifest, LaneKind.LIVE, 2).graph
