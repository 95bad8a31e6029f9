"""Callers that leave while the journal is written: what follows from the write is done all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import UnknownJob, UnknownUpload, WrongState
from penstock_server.domain.job import Job, JobState
from penstock_server.runtime.job_commands import JobCommands
from tests.support.bulk_jobs import MODEL, Bench, settle

TEXTS = ["a b", "c", "d e f"]
LINES = b'{"id": "k0", "text": "a b"}\n'


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    bench = Bench(tmp_path, BulkLimits(window_rows=4, disk_free_bytes_min=0))
    await bench.start()
    yield bench
    await bench.stop()


async def leave_once(is_written: Callable[[], bool], call: Coroutine[Any, Any, object]) -> None:
    """Makes a call whose caller leaves when the journal is written, before anything else has happened."""
    caller = asyncio.create_task(call)
    for _ in range(100):
        if is_written():
            break
        await asyncio.sleep(0)
    assert is_written()
    assert not caller.done(), "the call was over before the caller could leave"
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


def is_in(bench: Bench, job: Job, state: JobState) -> Callable[[], bool]:
    return lambda: bench.store.get(job.id).state is state


async def test_a_job_is_started_though_its_creator_left(bench: Bench) -> None:
    spec = bench.spec(bench.upload("rows.jsonl", LINES))
    await leave_once(
        lambda: bench.store.find_request("once") is not None, bench.runner.create(spec, request_id="once")
    )
    await settle()
    job = bench.store.find_request("once")
    assert job is not None
    assert (await bench.finish(job.id)).progress.succeeded == 1


async def test_a_repeated_request_starts_the_job_if_nothing_else_did(bench: Bench) -> None:
    spec = bench.spec(bench.upload("rows.jsonl", LINES))
    job, _ = bench.store.create(bench.spec(spec.upload_id, model=MODEL), "once")
    assert (await bench.runner.create(spec, request_id="once")).id == job.id
    await settle()
    assert (await bench.finish(job.id)).progress.succeeded == 1


async def test_a_job_stops_computing_though_who_paused_it_left(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    assert bench.lane.waiting_rows == len(TEXTS)
    await leave_once(is_in(bench, job, JobState.PAUSED), bench.runner.pause(job.id))
    await settle()
    assert bench.lane.waiting_rows == 0


async def test_a_job_goes_on_though_who_resumed_it_left(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    await bench.runner.pause(job.id)
    await settle()
    await leave_once(is_in(bench, job, JobState.RUNNING), bench.runner.resume(job.id))
    await settle()
    assert (await bench.finish(job.id)).progress.succeeded == len(TEXTS)


async def test_a_paused_job_ends_though_who_cancelled_it_left(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    await bench.runner.pause(job.id)
    await settle()
    await leave_once(is_in(bench, job, JobState.CANCELLING), bench.runner.cancel(job.id))
    await settle()
    assert (await bench.runner.get(job.id)).state is JobState.CANCELLED


async def test_shutdown_waits_until_a_deleted_jobs_files_are_gone(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    await bench.finish(job.id)
    folder = bench.folder / "jobs" / job.id
    assert folder.exists()
    await leave_once(lambda: job.id not in bench.store.job_ids(), bench.runner.delete(job.id))
    await bench.runner.close()
    assert not folder.exists()
    with pytest.raises(UnknownUpload):
        bench.uploads.get(job.spec.upload_id)


async def test_closing_waits_for_commands_whose_callers_left() -> None:
    commands, go, ended = JobCommands(), asyncio.Event(), asyncio.Event()

    async def command() -> None:
        await go.wait()
        ended.set()

    caller = asyncio.create_task(commands.carry_out(command()))
    await settle()
    caller.cancel()
    closing = asyncio.create_task(commands.close())
    await settle()
    assert caller.cancelled()
    assert not closing.done()
    go.set()
    await closing
    assert ended.is_set()


@pytest.mark.parametrize("error", [UnknownJob("There is none."), WrongState("Not now."), OSError("broken")])
async def test_a_failure_reaches_the_caller_or_else_the_log(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    commands, go = JobCommands(), asyncio.Event()
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))

    async def command() -> None:
        await go.wait()
        raise error

    present, gone = (asyncio.create_task(commands.carry_out(command())) for _ in range(2))
    await settle()
    gone.cancel()
    go.set()
    with pytest.raises(type(error)):
        await present
    await commands.close()
    await settle()
    assert gone.cancelled()
    assert str(error) in capsys.readouterr().out
    assert unhandled == []
