"""Readers of results that go away while a thread still reads for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock_server.bulk.database import Database
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.journal import JobStore
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.results import ResultRows
from penstock_server.domain.job import FileFormat, InputColumns, Job, JobSpec, RowSelection
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestOptions, Task, TaskOptions
from penstock_server.runtime import job_results
from penstock_server.runtime.job_results import ResultReader, in_thread
from tests.support.bulk_jobs import DirectFiles


@pytest.fixture
def store(tmp_path: Path) -> Generator[JobStore]:
    database = Database(tmp_path / "db")
    yield JobStore(database, BulkLimits(), lambda: 42)
    database.close()


def validated_job(store: JobStore) -> Job:
    spec = JobSpec(
        ModelKey("m", "1"),
        TaskOptions(Task.EMBED),
        "upload-1",
        FileFormat.JSONL,
        InputColumns(),
        RequestOptions(),
    )
    job, _ = store.create(spec)
    return replace(job, is_validated=True)


class SlowDisk:
    """Result rows that are not read before the test allows it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.is_closed = False

    def read(self, *_: object, **__: object) -> Generator[ResultRows]:
        try:
            self.begun.set()
            self.may_end.wait()
            yield from ()
        finally:
            self.is_closed = True


async def test_a_reader_that_goes_away_is_not_closed_under_the_thread_that_reads(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()
    monkeypatch.setattr(job_results, "read_results", disk.read)
    rows = ResultReader(store, DirectFiles()).rows(
        validated_job(store), JobFolder(tmp_path), start_row=0, rows_max=0, selection=RowSelection.ALL
    )
    reading = asyncio.ensure_future(anext(rows, None))
    await asyncio.to_thread(disk.begun.wait)
    reading.cancel()
    asyncio.get_running_loop().call_soon(disk.may_end.set)
    with pytest.raises(asyncio.CancelledError):
        await reading
    await rows.aclose()
    assert disk.is_closed


async def test_a_read_cancelled_twice_still_waits_for_its_thread() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def read() -> None:
        begun.set()
        may_end.wait()
        raise OSError("the reader is gone; nobody hears this")

    reading = asyncio.ensure_future(in_thread(read))
    await asyncio.to_thread(begun.wait)
    for _ in range(2):
        reading.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not reading.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
