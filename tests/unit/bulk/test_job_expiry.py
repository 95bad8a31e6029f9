"""Weights and deadlines of jobs: what the scheduler is told, and how a job ends whose time runs out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from penstock_server.bulk.arrow import pq
from penstock_server.bulk.inputs import InputOrder
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import DeadlineUnmeetable, InvalidRequest, StorageFull, WrongState
from penstock_server.domain.job import FileFormat, Job, JobState, RowSelection
from penstock_server.runtime.job_results import ResultReader
from tests.support.bulk_jobs import SECOND_NS, Bench, DirectFiles, TurnedTime, running_bench, settle

LIMITS = BulkLimits(window_rows=4, jobs_running_max=1, disk_free_bytes_min=0)
TEXTS = [f"{chr(97 + row % 26)} b" for row in range(10)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


@pytest.fixture
def time(bench: Bench) -> TurnedTime:
    return TurnedTime(bench)


async def now(bench: Bench, job: Job) -> Job:
    job = await bench.runner.get(job.id)
    progress = job.progress
    assert progress.succeeded + progress.failed + progress.pending == progress.total
    return job


async def test_the_scheduler_is_told_weight_and_deadline(bench: Bench, time: TurnedTime) -> None:
    await bench.submit(TEXTS[:2], weight=250, expire_time_ns=time.in_s(60))
    await bench.submit(TEXTS[:2])
    (first, _), (second, _) = bench.lane.queue
    assert (first.weight, first.deadline_ns) == (2.5, time.in_s(60))
    assert (second.weight, second.deadline_ns) == (1.0, None)


@pytest.mark.parametrize(
    ("left_s", "factor"),
    # A job of 20 rows of 4 tokens takes 8 seconds by the cost tables.
    [(100, 1.0), (32, 1.0), (16, 2.0), (10, 5.0), (8.5, 10.0), (1, 10.0)],
)
async def test_a_job_weighs_more_when_its_time_is_short(
    bench: Bench, time: TurnedTime, left_s: float, factor: float
) -> None:
    await bench.submit(
        [f"{chr(97 + row)} b" for row in range(4)] * 5, weight=200, expire_time_ns=time.in_s(left_s)
    )
    (work, _) = bench.lane.queue[0]
    assert work.weight == pytest.approx(2 * factor)


async def test_a_job_ends_with_its_time_and_keeps_its_finished_rows(bench: Bench, time: TurnedTime) -> None:
    job = await bench.submit(TEXTS, expire_time_ns=time.in_s(60))
    bench.lane.compute(5)
    await time.pass_s(59)
    assert (await now(bench, job)).state is JobState.RUNNING
    await time.pass_s(1)
    ended = await now(bench, job)
    assert (ended.state, ended.progress.succeeded, ended.progress.pending) == (JobState.EXPIRED, 5, 5)
    assert ended.end_time_ns is not None
    assert bench.lane.waiting_rows == 0
    rows = await bench.read(job.id)
    answers = bench.expected(TEXTS)
    assert len(rows) == 5
    assert all(row.answer == answers[row.row] for row in rows)
    path = await bench.runner.result_file(job.id, FileFormat.PARQUET, RowSelection.ALL)
    assert pq.read_table(path).num_rows == 5
    # It has ended for good.
    with pytest.raises(WrongState):
        await bench.runner.resume(job.id)


async def test_a_job_that_is_done_in_time_has_succeeded(bench: Bench, time: TurnedTime) -> None:
    job = await bench.submit(TEXTS, expire_time_ns=time.in_s(60))
    await bench.finish(job.id)
    await time.pass_s(120)
    assert (await now(bench, job)).state is JobState.SUCCEEDED


async def test_paused_and_waiting_jobs_expire_too(bench: Bench, time: TurnedTime) -> None:
    first = await bench.submit(TEXTS, expire_time_ns=time.in_s(90))
    waiting = await bench.submit(TEXTS, expire_time_ns=time.in_s(60))
    bench.lane.compute(4)
    await settle()
    await bench.runner.pause(first.id)
    await settle()
    await bench.runner.pause(waiting.id)
    await time.pass_s(60)
    assert (await now(bench, waiting)).state is JobState.EXPIRED
    assert (await now(bench, first)).state is JobState.PAUSED
    await time.pass_s(30)
    ended = await now(bench, first)
    assert (ended.state, ended.progress.succeeded) == (JobState.EXPIRED, 4)


async def test_a_job_expires_while_its_input_is_read(tmp_path: Path) -> None:
    class NeverRead(DirectFiles):
        async def materialise(self, order: InputOrder) -> int:
            await asyncio.get_running_loop().create_future()
            raise AssertionError("it was cancelled")

    bench = Bench(tmp_path, LIMITS)
    bench.files = NeverRead()
    await bench.start()
    time = TurnedTime(bench)
    job = await bench.submit(TEXTS, expire_time_ns=time.in_s(5))
    await time.pass_s(5)
    ended = await now(bench, job)
    assert (ended.state, ended.progress.total) == (JobState.EXPIRED, 0)
    await bench.stop()


async def test_a_job_expires_that_was_due_while_the_server_was_down(bench: Bench, time: TurnedTime) -> None:
    job = await bench.submit(TEXTS, expire_time_ns=time.in_s(60))
    bench.lane.compute(6)
    await settle()
    await bench.crash()
    bench.clock.time_ns += 3600 * SECOND_NS
    await bench.start()
    ended = await now(bench, job)
    # A window was whole and written; what a crash costs is pending.
    assert (ended.state, ended.progress.succeeded, ended.progress.pending) == (JobState.EXPIRED, 4, 6)


async def test_a_crash_while_a_late_job_ends_changes_nothing_of_its_end(
    bench: Bench, time: TurnedTime
) -> None:
    job = await bench.submit(TEXTS, expire_time_ns=time.in_s(60))
    bench.lane.compute(4)
    await settle()
    bench.store.move(job.id, JobState.FINALIZING, sources=[JobState.RUNNING])
    await bench.crash()
    await bench.start()
    ended = await now(bench, job)
    assert (ended.state, ended.progress.succeeded, ended.progress.pending) == (JobState.EXPIRED, 4, 6)


async def test_rows_that_the_scheduler_gives_up_as_late_stay_pending(bench: Bench, time: TurnedTime) -> None:
    job = await bench.submit(TEXTS, expire_time_ns=time.in_s(60))
    bench.lane.compute(2)
    bench.lane.fail(4, DeadlineUnmeetable("The deadline passed while the request waited."))
    await settle()
    late = await now(bench, job)
    assert (late.progress.succeeded, late.progress.failed, late.progress.pending) == (2, 0, 8)
    assert bench.lane.waiting_rows == 0
    await time.pass_s(60)
    ended = await now(bench, job)
    assert (ended.state, ended.progress.succeeded, ended.progress.pending) == (JobState.EXPIRED, 2, 8)


async def test_a_full_disk_does_not_bring_a_late_job_back(
    bench: Bench, time: TurnedTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_room(*_: object) -> None:
        raise StorageFull("The disk is full.")

    job = await bench.submit(TEXTS, expire_time_ns=time.in_s(60))
    bench.lane.compute(4)
    await settle()
    with monkeypatch.context() as patch:
        patch.setattr(ResultReader, "export", no_room)
        await time.pass_s(60)
    assert (await now(bench, job)).state is JobState.EXPIRED
    path = await bench.runner.result_file(job.id, FileFormat.PARQUET, RowSelection.SUCCEEDED)
    assert pq.read_table(path).num_rows == 4


@pytest.mark.parametrize(
    ("seconds", "why"), [(0, "has passed"), (-1, "has passed"), (366 * 24 * 3600 + 1, "at most 366 days")]
)
async def test_an_expire_time_that_makes_no_sense_is_refused(
    bench: Bench, time: TurnedTime, seconds: int, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"spec\.expire_time: .*{why}"):
        await bench.submit(TEXTS, expire_time_ns=time.in_s(seconds))


async def test_a_repeated_request_finds_its_job_after_its_time(bench: Bench, time: TurnedTime) -> None:
    upload_id = bench.upload("rows.jsonl", b'{"id":"k0","text":"a"}\n')
    spec = bench.spec(upload_id, expire_time_ns=time.in_s(60))
    job = await bench.runner.create(spec, "again")
    await time.pass_s(61)
    assert (await bench.runner.create(spec, "again")).id == job.id
