from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from penstock_server.bulk.database import Database
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.uploads import UploadStore
from penstock_server.domain.errors import Overloaded, StorageFull
from penstock_server.domain.job import Job, JobProgress, JobSpec, JobState
from penstock_server.domain.tasks import OverloadPolicy, RequestClass, RequestOptions, Task, TaskOptions
from penstock_server.runtime.deferral import Deferral
from penstock_server.runtime.request_ticket import InferenceCall, TextRow
from tests.support.bulk_jobs import sums_model


class Jobs:
    """Keeps what is asked of it; makes jobs once the gate is open."""

    def __init__(self) -> None:
        self.specs: list[JobSpec] = []
        self.cancelled: list[str] = []
        self.deleted: list[str] = []
        self.gate = asyncio.Event()
        self.is_full = False

    async def create(self, spec: JobSpec, request_id: str = "") -> Job:
        await self.gate.wait()
        if self.is_full:
            raise StorageFull("too many jobs")
        self.specs.append(spec)
        return Job("job-1", spec, JobState.VALIDATING, JobProgress(), False, None, 0, None, None)

    async def cancel(self, job_id: str) -> Job:
        self.cancelled.append(job_id)
        return self._job(job_id, JobState.CANCELLING)

    async def watch(self, job_id: str, interval_s: float) -> AsyncGenerator[Job]:
        yield self._job(job_id, JobState.CANCELLING)
        await asyncio.sleep(0)
        yield self._job(job_id, JobState.CANCELLED)

    async def delete(self, job_id: str) -> None:
        self.deleted.append(job_id)

    def _job(self, job_id: str, state: JobState) -> Job:
        return Job(job_id, self.specs[0], state, JobProgress(), False, None, 0, None, None)


@pytest.fixture
def uploads(tmp_path: Path) -> Generator[UploadStore]:
    database = Database(tmp_path / "journal.sqlite")
    yield UploadStore(tmp_path / "uploads", database, BulkLimits(chunk_bytes_max=16), lambda: 0)
    database.close()


def call_of(folder: Path) -> InferenceCall:
    options = RequestOptions(
        request_class=RequestClass.LIVE,
        overload_policy=OverloadPolicy.DEMOTE_TO_BULK,
        tenant="acme",
        explain=True,
    )
    return InferenceCall(sums_model(folder), TaskOptions(Task.CLASSIFY), options, None, "Classify")


async def test_the_input_holds_the_texts_as_they_came(tmp_path: Path, uploads: UploadStore) -> None:
    jobs = Jobs()
    jobs.gate.set()
    rows = [TextRow('a "quoted"\nline', "pair"), TextRow("\U0001f600 é", "\t")]
    assert await Deferral(uploads, jobs, calls_max=2).defer(call_of(tmp_path / "model"), rows) == "job-1"
    (spec,) = jobs.specs
    lines = uploads.complete_path(spec.upload_id).read_text().splitlines()
    assert lines == [
        '{"text":"a \\"quoted\\"\\nline","text_pair":"pair"}',
        '{"text":"😀 é","text_pair":"\\t"}',
    ]
    assert (spec.columns.text, spec.columns.pair) == ("text", "text_pair")
    assert spec.model == call_of(tmp_path / "model").model.manifest.key
    assert (spec.options.tenant, spec.options.request_class) == ("acme", RequestClass.BULK)


async def test_a_job_that_nobody_waits_for_is_cancelled_and_deleted(
    tmp_path: Path, uploads: UploadStore
) -> None:
    jobs = Jobs()
    deferral = Deferral(uploads, jobs, calls_max=2)
    waiting = asyncio.create_task(deferral.defer(call_of(tmp_path / "model"), [TextRow("a")]))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    jobs.gate.set()
    await deferral.close()
    assert jobs.cancelled == jobs.deleted == ["job-1"]


async def test_an_input_without_a_job_is_deleted(tmp_path: Path, uploads: UploadStore) -> None:
    jobs = Jobs()
    jobs.is_full = True
    jobs.gate.set()
    with pytest.raises(StorageFull):
        await Deferral(uploads, jobs, calls_max=2).defer(call_of(tmp_path / "model"), [TextRow("a")])
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_half_an_input_is_deleted_when_the_disk_is_full(
    tmp_path: Path, uploads: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StorageFull):
        await Deferral(uploads, Jobs(), calls_max=2).defer(call_of(tmp_path / "model"), [TextRow("a")])
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_jobs_are_made_of_so_many_calls_at_once_and_no_more(
    tmp_path: Path, uploads: UploadStore
) -> None:
    jobs = Jobs()
    deferral = Deferral(uploads, jobs, calls_max=2)
    call = call_of(tmp_path / "model")
    making = [asyncio.create_task(deferral.defer(call, [TextRow("a")])) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await deferral.defer(call, [TextRow("b")])
    assert refused.value.metadata == {"limit": "DEFERRED_CALLS"}
    assert refused.value.retry_after_s > 0
    # A caller that leaves frees no place: its job is still being made, and then cancelled.
    making[0].cancel()
    await asyncio.gather(making[0], return_exceptions=True)
    with pytest.raises(Overloaded):
        await deferral.defer(call, [TextRow("b")])
    jobs.gate.set()
    assert await making[1] == "job-1"
    await deferral.close()
    assert (len(jobs.specs), len(jobs.cancelled)) == (2, 1)


def test_texts_and_pairs_together_are_no_input() -> None:
    assert Deferral.can_take([TextRow("a"), TextRow("b")])
    assert Deferral.can_take([TextRow("a", "b")])
    assert not Deferral.can_take([TextRow("a"), TextRow("b", "c")])
