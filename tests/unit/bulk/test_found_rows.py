"""Rows whose outputs were kept are not computed again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.job import JobState
from penstock_server.runtime.result_cache import ResultCache
from tests.support.bulk_jobs import Bench, running_bench, settle

LIMITS = BulkLimits(window_rows=4, disk_free_bytes_min=0, windows_in_flight_max=1)
TEXTS = ["a b", "c", "a b", "d", "", "c", "e"]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        await bench.stop()
        bench.cache = ResultCache(1 << 20)
        await bench.start()
        yield bench


async def test_a_job_computes_what_no_window_before_it_had(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    done = await bench.finish(job.id)
    assert (done.progress.succeeded, done.progress.failed) == (6, 1)
    # "c" of the second window was in the first.
    assert bench.lane.computed_rows == 3 + 1
    assert [row.answer for row in await bench.read(job.id) if row.failure is None] == bench.expected(
        [text for text in TEXTS if text]
    )


async def test_a_job_of_known_rows_computes_nothing(bench: Bench) -> None:
    first = await bench.submit(TEXTS)
    await bench.finish(first.id)
    computed = bench.lane.computed_rows
    second = await bench.submit(TEXTS)
    await settle()
    done = await bench.runner.get(second.id)
    assert (done.state, done.progress.succeeded, done.progress.failed) == (JobState.SUCCEEDED, 6, 1)
    assert done.progress.tokens == 0
    assert bench.lane.computed_rows == computed
    mine, others = await bench.read(second.id), await bench.read(first.id)
    assert [row.answer for row in mine] == [row.answer for row in others]


async def test_a_window_that_was_cut_looks_for_what_is_left(bench: Bench) -> None:
    job = await bench.submit(["a", "b", "c", "d"])
    bench.lane.compute(1)
    await bench.runner.pause(job.id)
    await settle()
    other = await bench.submit(["b", "c"])
    await bench.finish(other.id)
    computed = bench.lane.computed_rows
    await bench.runner.resume(job.id)
    await settle()
    done = await bench.finish(job.id)
    assert done.progress.succeeded == 4
    assert bench.lane.computed_rows == computed + 1
    assert [row.answer for row in await bench.read(job.id)] == bench.expected(["a", "b", "c", "d"])
