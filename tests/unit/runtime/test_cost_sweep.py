from __future__ import annotations

from pathlib import Path

import pytest

from penstock_server.domain.errors import EngineFailed
from penstock_server.engines.null import NullEngine
from penstock_server.runtime.cost_sweep import START_SHAPES, grid, runner, sweep
from tests.support.reference_model_tiny import tiny_manifest

MS = 1_000_000


class Machine:
    """A clock that batches move: 1 ms a token, twice that the first time."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.ran: list[tuple[int, int]] = []

    def now_s(self) -> float:
        return self.now_ms / 1e3

    def run(self, rows: int, length: int) -> int:
        cost_ms = rows * length * (1 if (rows, length) in self.ran else 2)
        self.ran.append((rows, length))
        self.now_ms += cost_ms
        return cost_ms * MS


def test_shapes_take_turns_and_the_first_run_of_each_does_not_count() -> None:
    machine = Machine()
    runs = sweep(machine.run, [(4, 8), (1, 8), (2, 8)], 0.3, machine.now_s)
    # 56 ms a round, and 112 ms for the first: the fourth would not end in time.
    assert machine.ran == [(1, 8), (2, 8), (4, 8)] * 4 + [(1, 8)]
    assert runs == {(1, 8): [8 * MS] * 4, (2, 8): [16 * MS] * 3, (4, 8): [32 * MS] * 3}


def test_first_runs_count_where_there_is_no_time_for_others() -> None:
    machine = Machine()
    runs = sweep(machine.run, [(1, 8), (1, 16), (1, 32)], 0.06, machine.now_s)
    assert runs == {(1, 8): [16 * MS], (1, 16): [32 * MS]}
    assert machine.now_s() <= 0.06


def test_smallest_shape_runs_however_short_the_time() -> None:
    machine = Machine()
    assert sweep(machine.run, [(8, 8), (1, 8)], 0.0, machine.now_s) == {(1, 8): [16 * MS]}


def test_sweep_ends_though_there_is_time_left() -> None:
    machine = Machine()
    runs = sweep(machine.run, [(1, 1)], 1e6, machine.now_s)
    assert 10 <= len(runs[1, 1]) <= 100


def test_grid_keeps_to_the_model_and_to_the_largest_batch() -> None:
    assert grid((1, 4, 16), (8, 64, 512), tokens_max=256, batch_tokens_max=256) == [
        (1, 8), (1, 64), (4, 8), (4, 64), (16, 8),
    ]  # fmt: skip
    # A single row may be longer than the largest batch: it cannot be cut.
    assert grid((1, 2), (512,), tokens_max=512, batch_tokens_max=256) == [(1, 512)]


def test_sweep_measures_a_real_engine(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path)
    runs = sweep(runner(NullEngine(manifest), manifest), START_SHAPES, 0.05)
    assert (1, 8) in runs
    assert all(duration > 0 for durations in runs.values() for duration in durations)


def test_engine_that_fails_ends_the_sweep(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path)
    engine = NullEngine(manifest)
    engine.close()
    with pytest.raises(EngineFailed):
        sweep(runner(engine, manifest), START_SHAPES, 0.05)
