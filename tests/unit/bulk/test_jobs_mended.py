"""Jobs that the server pauses because of what its operator can mend: a model that is gone, a full disk."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import NoReturn

import pytest

from penstock_server.bulk import durable, uploads
from penstock_server.bulk.arrow import pq
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import StorageFailed, StorageFull
from penstock_server.domain.job import FileFormat, JobState, RowSelection
from penstock_server.runtime import job_windows
from tests.support.bulk_jobs import Bench, DirectFiles, settle, sums_model

TEXTS = [f"{chr(97 + row % 26) * (1 + row % 5)} b" for row in range(10)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    bench = Bench(tmp_path, BulkLimits(window_rows=4, disk_free_bytes_min=0))
    await bench.start()
    yield bench
    await bench.stop()


def no_room(*_: object, **__: object) -> NoReturn:
    raise StorageFull("The server's disk is full.")


def fail(*_: object, **__: object) -> NoReturn:
    raise StorageFailed("The server's disk failed.")


def do_nothing(_: Path) -> None:
    """Stands in for a fsync that succeeds."""


def fail_to_write(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_job_whose_model_is_gone_is_paused_and_goes_on_when_it_is_back(bench: Bench) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(5)
    await settle()
    await bench.stop()
    model, bench.model = bench.model, sums_model(bench.folder / "other", name="other")
    await bench.start()
    paused = await bench.runner.get(job.id)
    assert (paused.state, paused.progress.succeeded) == (JobState.PAUSED, 5)
    assert paused.error is not None
    assert paused.error.reason == "UNKNOWN_MODEL"

    await bench.stop()
    bench.model = model
    await bench.start()
    assert (await bench.runner.get(job.id)).error == paused.error
    resumed = await bench.runner.resume(job.id)
    assert (resumed.state, resumed.error) == (JobState.RUNNING, None)
    await settle()
    assert (await bench.finish(job.id)).progress.succeeded == len(TEXTS)
    assert [row.answer for row in await bench.read(job.id)] == bench.expected(TEXTS)


async def test_a_full_disk_pauses_the_job_and_costs_no_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bench.submit(TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(job_windows, "write_part", no_room)
        bench.lane.compute(4)
        await settle()
    paused = await bench.runner.get(job.id)
    assert (paused.state, paused.progress.succeeded) == (JobState.PAUSED, 0)
    assert paused.error is not None
    assert paused.error.reason == "STORAGE_FULL"
    await bench.runner.resume(job.id)
    await settle()
    assert (await bench.finish(job.id)).progress.succeeded == len(TEXTS)


@pytest.mark.parametrize("call", ["make_folder", "write_part", "unlink", "export"])
async def test_a_failing_disk_pauses_the_job_wherever_it_is_and_costs_no_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patch:
        if call == "make_folder":
            patch.setattr(durable, "fsync_folder", fail_to_write)
            patch.setattr(uploads, "fsync_folder", do_nothing)
        elif call == "write_part":
            patch.setattr(job_windows, "write_part", fail)
        elif call == "export":
            patch.setattr(DirectFiles, "export", fail)
        job = await bench.submit(TEXTS)
        if call == "unlink":
            bench.lane.compute(2)
            await bench.runner.pause(job.id)
            await settle()
            await bench.runner.resume(job.id)
            await settle()
            patch.setattr(Path, "unlink", fail_to_write)
        for _ in range(3):
            bench.lane.compute(len(TEXTS))
            await settle()
        paused = await bench.runner.get(job.id)
    assert paused.state is JobState.PAUSED
    assert paused.error is not None
    assert paused.error.reason == "STORAGE_FAILED"
    await bench.runner.resume(job.id)
    await settle()
    if (await bench.runner.get(job.id)).state is not JobState.SUCCEEDED:
        await bench.finish(job.id)
    assert [row.answer for row in await bench.read(job.id)] == bench.expected(TEXTS)


async def test_a_full_disk_at_the_end_leaves_the_rows_and_can_be_resumed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bench.submit(TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(DirectFiles, "export", no_room)
        for _ in range(2):
            bench.lane.compute(len(TEXTS))
            await settle()
    paused = await bench.runner.get(job.id)
    assert (paused.state, paused.progress.pending) == (JobState.PAUSED, 0)
    await bench.runner.resume(job.id)
    await settle()
    assert (await bench.runner.get(job.id)).state is JobState.SUCCEEDED
    assert bench.lane.computed_rows == len(TEXTS)


async def test_a_full_disk_does_not_bring_a_cancelled_job_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bench.submit(TEXTS)
    bench.lane.compute(6)
    with monkeypatch.context() as patch:
        patch.setattr(DirectFiles, "export", no_room)
        await bench.runner.cancel(job.id)
        await settle()
    assert (await bench.runner.get(job.id)).state is JobState.CANCELLED
    path = await bench.runner.result_file(job.id, FileFormat.PARQUET, RowSelection.SUCCEEDED)
    assert pq.read_table(path).num_rows == 6


@pytest.mark.parametrize("refuse", [no_room, fail])
async def test_a_journal_that_cannot_be_written_is_tried_again_until_the_job_is_paused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, refuse: Callable[..., NoReturn]
) -> None:
    waits: list[float] = []

    async def make_room(seconds: float) -> None:
        waits.append(seconds)
        patch.undo()

    job = await bench.submit(TEXTS)
    monkeypatch.setattr(bench, "sleep", make_room)
    with monkeypatch.context() as patch:
        patch.setattr(job_windows, "write_part", refuse)
        patch.setattr(bench.store, "move", refuse)
        bench.lane.compute(4)
        await settle()
    assert len(waits) == 1
    assert (await bench.runner.get(job.id)).state is JobState.PAUSED


async def test_a_full_disk_does_not_hold_up_the_shutdown_and_the_job_goes_on_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_in_vain(_: float) -> None:
        await asyncio.sleep(0)

    job = await bench.submit(TEXTS)
    bench.lane.compute(1)
    await settle()
    monkeypatch.setattr(bench, "sleep", wait_in_vain)
    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "commit_window", no_room)
        patch.setattr(bench.store, "move", no_room)
        closing = asyncio.create_task(bench.runner.close())
        await settle()
        assert closing.done()
    await bench.stop()
    await bench.start()
    assert (await bench.finish(job.id)).progress.succeeded == len(TEXTS)


async def test_old_uploads_stay_when_the_disk_is_full_at_the_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bench.submit(TEXTS)
    await bench.stop()
    with monkeypatch.context() as patch:
        patch.setattr(uploads.UploadStore, "sweep", no_room)
        await bench.start()
    assert (await bench.finish(job.id)).progress.succeeded == len(TEXTS)
