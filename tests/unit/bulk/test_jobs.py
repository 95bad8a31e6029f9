"""The runner: what becomes of rows and states, on a manual lane."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from penstock_server.bulk.arrow import pq
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import (
    Draining,
    InvalidRequest,
    TaskNotSupported,
    UnknownJob,
    UnknownModel,
    WrongState,
)
from penstock_server.domain.job import FileFormat, InputColumns, Job, JobSpec, JobState, RowSelection
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestOptions, Task, TaskOptions, Truncation
from tests.support.bulk_jobs import MODEL, Bench, running_bench, settle

LIMITS = BulkLimits(window_rows=4, jobs_running_max=1, disk_free_bytes_min=0)
TEXTS = [f"{chr(97 + row % 26) * (1 + row % 5)} b" for row in range(10)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


def check_sum(job: Job) -> Job:
    progress = job.progress
    assert progress.succeeded + progress.failed + progress.pending == progress.total
    assert progress.pending >= 0
    return job


async def test_every_row_is_answered_once_in_input_order_with_its_key(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    ended = check_sum(await bench.finish(job.id))
    rows = await bench.read(job.id)
    assert ended.state is JobState.SUCCEEDED
    assert ended.progress.succeeded == bench.lane.computed_rows == len(TEXTS)
    assert [row.row for row in rows] == list(range(len(TEXTS)))
    assert [row.key for row in rows] == [f"k{row}" for row in range(len(TEXTS))]
    assert [row.answer for row in rows] == bench.expected(TEXTS)


async def test_bad_rows_fail_alone_and_say_why(bench: Bench) -> None:
    job = await bench.submit(["a", "", None, 7, "e", "f"])
    bench.lane.fail(1)
    bench.lane.spoil(1)
    ended = check_sum(await bench.finish(job.id))
    assert (ended.state, ended.progress.succeeded, ended.progress.failed) == (JobState.SUCCEEDED, 1, 5)
    failed = await bench.read(job.id, selection=RowSelection.FAILED)
    codes = {row.row: row.failure.code for row in failed if row.failure}
    assert codes == {
        0: "ENGINE_FAILED", 1: "EMPTY_TEXT", 2: "EMPTY_TEXT", 3: "NOT_TEXT", 4: "ENGINE_FAILED"
    }  # fmt: skip
    assert [row.row for row in await bench.read(job.id, selection=RowSelection.SUCCEEDED)] == [5]


async def test_a_job_of_bad_rows_only_ends_without_computing(bench: Bench) -> None:
    job = await bench.submit(["", None])
    ended = await bench.runner.get(job.id)
    assert (ended.state, ended.progress.failed, bench.lane.computed_rows) == (JobState.SUCCEEDED, 2, 0)


async def test_rows_over_the_token_limit_fail_when_truncation_is_off(bench: Bench) -> None:
    options = RequestOptions(truncation=Truncation.ERROR, tokens_max=4)
    job = await bench.submit(["ab", "abc", "a"], options=options)
    await bench.finish(job.id)
    failed = await bench.read(job.id, selection=RowSelection.FAILED)
    assert [(row.row, row.failure and row.failure.code) for row in failed] == [(1, "TOO_MANY_TOKENS")]


async def test_progress_counts_rows_of_windows_not_yet_written(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(3)
    bench.clock.time_ns += 6_000_000_000
    running = check_sum(await bench.runner.get(job.id))
    assert (running.state, running.progress.succeeded, running.progress.pending) == (JobState.RUNNING, 3, 7)
    assert running.progress.rows_per_s == pytest.approx(0.5)
    assert running.progress.time_left_s == pytest.approx(14)
    assert await bench.read(job.id) == []


async def test_the_cost_tables_tell_how_long_a_job_takes_that_has_just_begun(bench: Bench) -> None:
    texts = ["a b", "c d", "a b c d"]
    job = await bench.submit(texts)
    bench.clock.time_ns += 1_000_000_000
    running = await bench.runner.get(job.id)
    tokens = bench.model.tokenizer.encode(texts, tokens_max=64, truncation=Truncation.RIGHT)
    assert running.progress.rows_per_s == 0
    assert running.progress.time_left_s == pytest.approx(len(tokens.ids) * 0.1)


async def test_finished_windows_are_read_while_the_job_runs(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(5)
    await settle()
    assert [row.row for row in await bench.read(job.id)] == [0, 1, 2, 3]
    assert [row.row for row in await bench.read(job.id, start_row=2)] == [2, 3]
    assert [row.row for row in await bench.read(job.id, start_row=1, rows_max=2)] == [1, 2]
    assert await bench.read(job.id, start_row=99) == []


async def test_a_later_window_that_is_done_first_is_not_read_before_the_earlier_one(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.queue.reverse()
    bench.lane.compute(4)
    await settle()
    assert (await bench.runner.get(job.id)).progress.succeeded == 4
    assert await bench.read(job.id) == []


async def test_pause_keeps_single_rows_and_resume_computes_only_the_others(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(3)
    paused = check_sum(await bench.runner.pause(job.id))
    await settle()
    assert paused.state is JobState.PAUSED
    assert bench.lane.waiting_rows == 0
    assert (await bench.runner.get(job.id)).progress.succeeded == 3
    with pytest.raises(WrongState):
        await bench.runner.pause(job.id)

    assert (await bench.runner.resume(job.id)).state is JobState.RUNNING
    await settle()
    assert (await bench.finish(job.id)).state is JobState.SUCCEEDED
    assert bench.lane.computed_rows == len(TEXTS)
    assert [row.answer for row in await bench.read(job.id)] == bench.expected(TEXTS)


async def test_a_quick_resume_while_the_run_winds_down_leaves_no_row_undone(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(3)
    await bench.runner.pause(job.id)
    resumed = await bench.runner.resume(job.id)
    assert resumed.progress.pending == len(TEXTS) - 3
    await settle()
    running = check_sum(await bench.runner.get(job.id))
    assert (running.state, running.progress.pending) == (JobState.RUNNING, len(TEXTS) - 3)
    ended = await bench.finish(job.id)
    assert (ended.state, ended.progress.succeeded) == (JobState.SUCCEEDED, len(TEXTS))
    assert bench.lane.computed_rows == len(TEXTS)


@pytest.mark.parametrize("rounds", [1, 2, 3])
async def test_a_job_paused_after_quick_resumes_computes_nothing(bench: Bench, rounds: int) -> None:
    job = await bench.submit(TEXTS)
    for _ in range(rounds):
        await bench.runner.pause(job.id)
        await bench.runner.resume(job.id)
    await bench.runner.pause(job.id)
    await settle()
    assert (await bench.runner.get(job.id)).state is JobState.PAUSED
    assert bench.lane.waiting_rows == 0


@pytest.mark.parametrize("rounds", [1, 2, 3])
async def test_a_stop_while_a_run_winds_down_begins_no_other(bench: Bench, rounds: int) -> None:
    job = await bench.submit(TEXTS)
    for _ in range(rounds):
        await bench.runner.pause(job.id)
        await bench.runner.resume(job.id)
    closing = asyncio.create_task(bench.runner.close())
    await settle()
    assert closing.done()
    assert bench.lane.waiting_rows == 0
    assert (await bench.runner.get(job.id)).state is JobState.RUNNING


async def test_cancel_keeps_finished_rows_and_writes_their_file(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(6)
    cancelled = await bench.runner.cancel(job.id)
    assert cancelled.state in (JobState.CANCELLING, JobState.CANCELLED)
    await settle()
    ended = check_sum(await bench.runner.get(job.id))
    assert (ended.state, ended.progress.succeeded, ended.progress.pending) == (JobState.CANCELLED, 6, 4)
    rows = await bench.read(job.id)
    expected = bench.expected(TEXTS)
    assert [row.answer for row in rows] == [expected[row.row] for row in rows]
    assert len(rows) == 6
    path = await bench.runner.result_file(job.id, FileFormat.PARQUET, RowSelection.SUCCEEDED)
    assert pq.read_table(path).column("row").to_pylist() == [row.row for row in rows]
    assert (await bench.runner.cancel(job.id)).state is JobState.CANCELLED


async def test_cancel_of_a_paused_job_and_of_a_waiting_one(bench: Bench) -> None:
    first = await bench.submit(TEXTS)
    waiting = await bench.submit(TEXTS)
    assert (await bench.runner.get(waiting.id)).progress.rows_per_s == 0
    await bench.runner.cancel(waiting.id)
    await settle()
    assert (await bench.runner.get(waiting.id)).state is JobState.CANCELLED
    await bench.runner.pause(first.id)
    await settle()
    await bench.runner.cancel(first.id)
    await settle()
    assert (await bench.runner.get(first.id)).state is JobState.CANCELLED


async def test_jobs_beyond_the_limit_wait_their_turn(bench: Bench) -> None:
    first = await bench.submit(TEXTS)
    second = await bench.submit(TEXTS[:5])
    assert bench.lane.waiting_rows <= 2 * LIMITS.window_rows
    await bench.finish(first.id)
    assert (await bench.finish(second.id)).state is JobState.SUCCEEDED


async def test_a_stop_in_the_middle_of_a_window_loses_no_row(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(5)
    await settle()
    await bench.stop()
    await bench.start()
    assert check_sum(await bench.runner.get(job.id)).progress.succeeded == 5
    assert (await bench.finish(job.id)).progress.succeeded == len(TEXTS)
    assert bench.lane.computed_rows == len(TEXTS) - 5
    assert [row.answer for row in await bench.read(job.id)] == bench.expected(TEXTS)


async def test_after_a_crash_committed_windows_stay_and_stray_parts_go(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(6)
    await settle()
    await bench.crash()
    folder = bench.folder / "jobs" / job.id
    (folder / "part-00000001.0.arrow").write_bytes(b"cut short")
    (folder / "part-00000002.0.arrow.0123abcd.tmp").write_bytes(b"")
    await bench.start()
    assert sorted(path.name for path in folder.iterdir()) == ["part-00000000.0.arrow", "spool.arrow"]
    assert check_sum(await bench.runner.get(job.id)).progress.succeeded == 4
    assert (await bench.finish(job.id)).state is JobState.SUCCEEDED
    assert [row.answer for row in await bench.read(job.id)] == bench.expected(TEXTS)


async def test_a_paused_job_stays_paused_over_a_restart(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(2)
    await bench.runner.pause(job.id)
    await settle()
    await bench.stop()
    await bench.start()
    assert (await bench.runner.get(job.id)).state is JobState.PAUSED
    assert bench.lane.waiting_rows == 0
    await bench.runner.resume(job.id)
    await settle()
    assert (await bench.finish(job.id)).progress.succeeded == len(TEXTS)


async def test_a_slow_window_is_written_as_far_as_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, BulkLimits(window_rows=4, checkpoint_s=0.001, disk_free_bytes_min=0))
    await bench.start()
    job = await bench.submit(TEXTS[:4])
    bench.lane.compute(3)
    while not bench.store.windows(job.id):
        await settle()
    await bench.crash()
    await bench.start()
    assert (await bench.runner.get(job.id)).progress.succeeded == 3
    assert (await bench.finish(job.id)).progress.succeeded == 4
    assert bench.lane.computed_rows == 1
    await bench.stop()


async def test_a_full_queue_is_waited_for(bench: Bench) -> None:
    bench.lane.is_full = True
    job = await bench.submit(TEXTS[:4])
    assert bench.lane.waiting_rows == 0
    bench.lane.is_full = False
    watched = bench.runner.watch(job.id, 0)
    while bench.lane.waiting_rows == 0:
        await settle()
    await bench.finish(job.id)
    assert [job.state async for job in watched] == [JobState.SUCCEEDED]
    # Traces tell what arrives, not how often it is tried.
    assert bench.lane.arrivals == 1


async def test_an_input_that_cannot_be_used_fails_the_job_with_the_columns(bench: Bench) -> None:
    upload_id = bench.upload("rows.csv", b"id,body\n1,hello\n")
    job = await bench.runner.create(bench.spec(upload_id, input_format=FileFormat.CSV))
    await settle()
    failed = check_sum(await bench.runner.get(job.id))
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.message == "There is no column 'text'. Columns of this input: id, body."
    assert await bench.read(job.id) == []
    with pytest.raises(WrongState, match="FAILED"):
        await bench.runner.result_file(job.id, FileFormat.JSONL, RowSelection.ALL)


async def test_a_limit_that_leaves_a_pair_no_token_of_one_text_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LIMITS, Task.CLASSIFY)
    await bench.start()
    upload_id = bench.upload("rows.jsonl", b'{"text": "a", "other": "b"}\n')

    def spec(tokens_max: int) -> JobSpec:
        options = RequestOptions(tokens_max=tokens_max)
        return bench.spec(upload_id, columns=InputColumns("text", "other"), options=options)

    with pytest.raises(InvalidRequest, match=r"^spec\.options\.tokens_max: is 4; this model allows 5 to"):
        await bench.runner.create(spec(4))
    await bench.runner.create(spec(5))
    await bench.stop()


async def test_what_can_never_work_is_refused_when_the_job_is_created(bench: Bench) -> None:
    upload_id = bench.upload("rows.jsonl", b'{"text": "a"}\n')
    with pytest.raises(UnknownModel):
        await bench.runner.create(bench.spec(upload_id, model=ModelKey("none", "")))
    with pytest.raises(TaskNotSupported):
        await bench.runner.create(bench.spec(upload_id, task=TaskOptions(Task.CLASSIFY)))
    with pytest.raises(InvalidRequest, match=r"spec\.options\.tokens_max"):
        await bench.runner.create(bench.spec(upload_id, options=RequestOptions(tokens_max=2)))
    with pytest.raises(InvalidRequest, match=r"spec\.text_pair_column"):
        await bench.runner.create(bench.spec(upload_id, columns=InputColumns("text", "other")))
    part = bench.uploads.open("rows.jsonl", 10)
    with pytest.raises(WrongState, match="0 of 10 bytes"):
        await bench.runner.create(bench.spec(part.upload_id))
    part.close()


async def test_the_version_is_pinned_and_a_repeated_request_makes_no_second_job(bench: Bench) -> None:
    spec = bench.spec(bench.upload("rows.jsonl", b'{"text": "a"}\n'))
    first = await bench.runner.create(spec, "same")
    again = await bench.runner.create(spec, "same")
    assert first.spec.model == MODEL
    assert again.id == first.id
    assert (await bench.runner.create(spec, "other")).id != first.id
    await settle()


async def test_watch_tells_every_change_and_ends_with_the_job(bench: Bench) -> None:
    job = await bench.submit(TEXTS[:4])
    watched = bench.runner.watch(job.id, 0)
    seen = [await anext(watched)]
    bench.lane.compute(1)
    seen.append(await anext(watched))
    bench.lane.compute(3)
    seen += [check_sum(job) async for job in watched]
    assert [job.progress.succeeded for job in seen[:2]] == [0, 1]
    assert seen[-1].state is JobState.SUCCEEDED


async def test_a_watcher_of_long_intervals_is_told_the_end_at_once(bench: Bench) -> None:
    job = await bench.submit(TEXTS[:4])
    watched = bench.runner.watch(job.id, 3600)
    assert (await anext(watched)).progress.succeeded == 0
    told = asyncio.ensure_future(anext(watched))
    bench.lane.compute(1)
    await settle()
    assert not told.done()
    other = await bench.submit([""])
    assert (await bench.runner.get(other.id)).state is JobState.SUCCEEDED
    assert not told.done()
    bench.lane.compute(3)
    await settle()
    assert told.done()
    assert (await told).state is JobState.SUCCEEDED


@pytest.mark.parametrize("rows_done", [0, 1])
async def test_a_stop_ends_watchers_at_once(bench: Bench, rows_done: int) -> None:
    job = await bench.submit(TEXTS[:4])
    told: list[int] = []

    async def watch() -> None:
        async for state in bench.runner.watch(job.id, 3600):
            told.append(state.progress.succeeded)  # noqa: PERF401 - what came before the error counts

    watching = asyncio.create_task(watch())
    await settle()
    bench.lane.compute(rows_done)
    await settle()
    await bench.runner.close()
    await settle()
    assert watching.done()
    with pytest.raises(Draining):
        await watching
    assert told == [0, 1][: rows_done + 1]


async def test_delete_removes_job_results_and_an_upload_nobody_needs(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    other = await bench.runner.create(bench.spec(job.spec.upload_id))
    with pytest.raises(WrongState, match="cancel it"):
        await bench.runner.delete(job.id)
    await bench.finish(job.id)
    await bench.finish(other.id)
    await bench.runner.delete(job.id)
    with pytest.raises(UnknownJob):
        await bench.runner.get(job.id)
    assert bench.uploads.path(job.spec.upload_id).exists()
    await bench.runner.delete(other.id)
    assert not bench.uploads.path(job.spec.upload_id).exists()
    assert list((bench.folder / "jobs").iterdir()) == []


async def test_a_job_cancelled_and_deleted_at_once_leaves_no_task_that_fails(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    unheard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context["message"]))
    await bench.runner.cancel(job.id)
    await settle()
    await bench.runner.delete(job.id)
    # What happens when the second launch of the cancelled job is late.
    bench.runner._tasks.launch(job.id)  # pyright: ignore[reportPrivateUsage]
    await settle()
    gc.collect()
    assert unheard == []


async def test_pages_of_jobs_are_newest_first(bench: Bench) -> None:
    jobs = [await bench.submit(["a"]) for _ in range(3)]
    page = await bench.runner.page(2, "", [])
    rest = await bench.runner.page(2, page.next_page_token, [])
    assert [job.id for job in (*page.jobs, *rest.jobs)] == [job.id for job in reversed(jobs)]
    assert rest.next_page_token == ""
    assert (await bench.runner.page(9, "", [JobState.FAILED])).jobs == ()
    with pytest.raises(InvalidRequest, match="page_token"):
        await bench.runner.page(2, "x", [])
