"""Rows with the same tokens are computed once, and each has its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_kernels import TokenRows
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.twins import first_alike
from penstock_server.domain.job import JobState
from tests.support.bulk_jobs import Bench, running_bench, settle

LIMITS = BulkLimits(window_rows=6, disk_free_bytes_min=0, windows_in_flight_max=1)
TEXTS = ["a b", "c", "a b", "d", "c", "a b", "A  B", "e", "a b"]


def token_rows(rows: list[list[tuple[int, int]]]) -> TokenRows:
    flat = [token for row in rows for token in row]
    starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    none = np.zeros(len(rows), np.bool_)
    ids = np.array([token for token, _ in flat], np.int32)
    kinds = np.array([kind for _, kind in flat], np.uint8)
    return TokenRows(ids, kinds, starts, none, ~none)


_tokens = st.tuples(st.integers(0, 3), st.integers(0, 1))


@given(st.lists(st.lists(_tokens, max_size=4), max_size=12))
def test_the_first_row_that_is_alike_is_found(rows: list[list[tuple[int, int]]]) -> None:
    found = first_alike(token_rows(rows)).tolist()
    assert found == [rows.index(row) for row in rows]


def test_long_rows_are_told_apart_by_their_last_token() -> None:
    row = [(7, 0)] * 40_000
    rows = [row, [*row[:-1], (8, 0)], row]
    assert first_alike(token_rows(rows)).tolist() == [0, 1, 0]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


async def test_rows_that_are_alike_in_a_window_are_computed_once(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    done = await bench.finish(job.id)
    assert (done.state, done.progress.succeeded) == (JobState.SUCCEEDED, 9)
    # Three of the first six, and two of the other three, which differ in case and spaces only.
    assert bench.lane.computed_rows == 3 + 2
    rows = await bench.read(job.id)
    assert [row.answer for row in rows] == bench.expected(TEXTS)


async def test_rows_that_are_alike_fail_together(bench: Bench) -> None:
    job = await bench.submit(["a b", "a b", "c"])
    bench.lane.fail(1)
    done = await bench.finish(job.id)
    assert (done.progress.succeeded, done.progress.failed) == (1, 2)
    rows = await bench.read(job.id)
    assert [row.failure is not None for row in rows] == [True, True, False]


async def test_a_window_that_was_cut_goes_on_with_those_that_are_left(bench: Bench) -> None:
    job = await bench.submit(TEXTS[:6])
    bench.lane.compute(1)
    await bench.runner.pause(job.id)
    await settle()
    paused = await bench.runner.get(job.id)
    assert paused.progress.succeeded == 3
    await bench.runner.resume(job.id)
    await settle()
    await bench.finish(job.id)
    assert bench.lane.computed_rows == 3
    assert [row.answer for row in await bench.read(job.id)] == bench.expected(TEXTS[:6])
