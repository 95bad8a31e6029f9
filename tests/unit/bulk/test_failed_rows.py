"""Rows that fail: how many a job may have, and the job that tries them again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import UnknownJob, WrongState
from penstock_server.domain.job import InputColumns, JobState, RowSelection
from tests.support.bulk_jobs import Bench, running_bench, settle

LIMITS = BulkLimits(window_rows=4, disk_free_bytes_min=0)
TEXTS = [f"{chr(97 + row % 26)} b" for row in range(10)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


async def test_a_job_fails_once_more_rows_have_failed_than_it_allows(bench: Bench) -> None:
    job = await bench.submit(TEXTS, failed_rows_max=2)
    bench.lane.compute(1)
    bench.lane.fail(2)
    await settle()
    assert (await bench.runner.get(job.id)).state is JobState.RUNNING
    bench.lane.fail(1)
    await settle()
    ended = await bench.runner.get(job.id)
    assert (ended.state, ended.progress.succeeded, ended.progress.failed) == (JobState.FAILED, 1, 3)
    assert ended.error is not None
    assert ended.error.reason == "TOO_MANY_FAILED_ROWS"
    assert "3 rows have failed" in ended.error.message
    assert bench.lane.waiting_rows == 0
    # What was done is kept, with the reasons.
    rows = await bench.read(job.id)
    assert sum(row.failure is not None for row in rows) == 3
    assert sum(row.answer is not None for row in rows) == 1


async def test_rows_that_are_bad_in_the_input_count(bench: Bench) -> None:
    job = await bench.submit(["a", "", None, "b"], failed_rows_max=1)
    await settle()
    ended = await bench.runner.get(job.id)
    assert (ended.state, ended.progress.failed) == (JobState.FAILED, 2)


async def test_none_may_fail_and_none_does(bench: Bench) -> None:
    job = await bench.submit(TEXTS, failed_rows_max=0)
    assert (await bench.finish(job.id)).state is JobState.SUCCEEDED


async def test_the_bound_holds_after_a_crash(bench: Bench) -> None:
    job = await bench.submit(TEXTS, failed_rows_max=3)
    bench.lane.fail(4)
    await bench.crash()
    await bench.start()
    # The crash cost the failures that were not written; the others count again.
    while not (ended := await bench.runner.get(job.id)).state.has_ended:
        bench.lane.fail(1)
        await settle()
    assert (ended.state, ended.progress.failed) == (JobState.FAILED, 4)


async def test_failed_rows_are_tried_again_by_a_job_of_their_own(bench: Bench) -> None:
    job = await bench.submit([*TEXTS, ""])
    bench.lane.fail(3)
    done = await bench.finish(job.id)
    assert (done.progress.succeeded, done.progress.failed) == (7, 4)
    failed = [row.key for row in await bench.read(job.id, selection=RowSelection.FAILED)]
    again = await bench.runner.retry(job.id, "request")
    assert (await bench.runner.retry(job.id, "request")).id == again.id
    await settle()
    ended = await bench.finish(again.id)
    # The empty text is there, and fails again.
    assert (ended.state, ended.progress.total, ended.progress.succeeded) == (JobState.SUCCEEDED, 4, 3)
    rows = await bench.read(again.id)
    assert [row.key for row in rows] == failed
    answers = dict(zip([f"k{row}" for row in range(10)], bench.expected(TEXTS), strict=True))
    assert [row.answer for row in rows] == [answers.get(str(key)) for key in failed]
    # Another time: only what failed in it.
    third = await bench.runner.retry(again.id)
    await settle()
    assert (await bench.runner.get(third.id)).progress.total == 1


async def test_rows_without_keys_are_known_by_their_numbers(bench: Bench) -> None:
    job = await bench.submit(TEXTS, columns=InputColumns("text"))
    bench.lane.compute(1)
    bench.lane.fail(2)
    await bench.finish(job.id)
    failed = [row.row for row in await bench.read(job.id, selection=RowSelection.FAILED)]
    again = await bench.runner.retry(job.id)
    await settle()
    await bench.finish(again.id)
    assert [row.key for row in await bench.read(again.id)] == failed


async def test_only_a_job_that_has_ended_with_failures_is_tried_again(bench: Bench) -> None:
    with pytest.raises(UnknownJob):
        await bench.runner.retry("job-none")
    job = await bench.submit(TEXTS)
    with pytest.raises(WrongState, match="wait until it has ended"):
        await bench.runner.retry(job.id)
    await bench.finish(job.id)
    with pytest.raises(WrongState, match="has no failed rows"):
        await bench.runner.retry(job.id)


async def test_a_job_that_is_deleted_before_its_rows_were_read_fails_the_other(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.fail(3)
    done = await bench.finish(job.id)
    # As it stands in the journal before the input of the second one is read.
    spec = replace(done.spec, retry_of=job.id)
    again, _ = bench.store.create(spec)
    await bench.runner.delete(job.id)
    await bench.crash()
    await bench.start()
    ended = await bench.runner.get(again.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert "has been deleted" in ended.error.message


async def test_a_second_try_survives_a_restart(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.fail(6)
    await bench.finish(job.id)
    again = await bench.runner.retry(job.id)
    await settle()
    bench.lane.compute(2)
    await bench.crash()
    await bench.start()
    await bench.runner.delete(job.id)
    ended = await bench.finish(again.id)
    assert (ended.state, ended.progress.succeeded) == (JobState.SUCCEEDED, 6)


async def test_a_job_tells_how_long_its_oldest_row_is_under_way(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.clock.time_ns += 3_000_000_000
    assert (await bench.runner.get(job.id)).progress.oldest_pending_s == 3.0
    await bench.finish(job.id)
    assert (await bench.runner.get(job.id)).progress.oldest_pending_s is None
