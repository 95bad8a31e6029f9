"""BulkService without the wire: every id, number and token that a caller may send has an answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from penstock.v1 import bulk_pb2, common_pb2
from penstock_server.api.bulk import BulkServicer
from penstock_server.api.callers import CallerReader
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.uploads import UploadSession, UploadStore
from penstock_server.domain.errors import (
    InvalidRequest,
    PenstockError,
    StorageFull,
    UnknownJob,
    UnknownUpload,
    WrongState,
)
from tests.support.bulk_jobs import BARE_CONTEXT as CONTEXT
from tests.support.bulk_jobs import MODEL, Bench, running_bench, settle

LIMITS = BulkLimits(window_rows=4, disk_free_bytes_min=0)


BIG, SMALL = (1 << 63) - 1, -(1 << 63)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


@pytest.fixture
def servicer(bench: Bench) -> BulkServicer:
    return BulkServicer(bench.uploads, bench.runner, LIMITS, CallerReader())


async def ended_job(bench: Bench) -> str:
    job = await bench.submit(["a", "b", "", "d", "e"])
    await bench.finish(job.id)
    return job.id


async def messages(*requests: bulk_pb2.UploadRequest) -> AsyncIterator[bulk_pb2.UploadRequest]:
    for request in requests:
        yield request


async def error_of(servicer: BulkServicer, method: str, request: Any) -> PenstockError:
    """Has a method fail and returns the error."""
    with pytest.raises(PenstockError) as caught:
        await exhaust(getattr(servicer, method)(request, CONTEXT))
    return caught.value


async def exhaust(answer: Awaitable[object] | AsyncIterator[object]) -> None:
    if isinstance(answer, AsyncIterator):
        async for _ in answer:
            pass
    else:
        await answer


JOB_METHODS = (
    "GetJob",
    "WatchJob",
    "ReadResults",
    "PauseJob",
    "ResumeJob",
    "CancelJob",
    "DeleteJob",
    "RetryFailedRows",
)


@pytest.mark.parametrize("method", JOB_METHODS)
@pytest.mark.parametrize(
    ("job_id", "error"),
    [
        ("", InvalidRequest),
        ("j" * 129, InvalidRequest),
        ("\u00e9" * 65, InvalidRequest),
        ("j" * 128, UnknownJob),
        ("../uploads", UnknownJob),
        ("job\0", UnknownJob),
    ],
)
async def test_any_text_as_a_job_id_has_a_short_answer(
    servicer: BulkServicer, method: str, job_id: str, error: type[PenstockError]
) -> None:
    request = getattr(bulk_pb2, f"{method}Request")(job_id=job_id)
    told = await error_of(servicer, method, request)
    assert type(told) is error
    assert len(told.message) < 300


@pytest.mark.parametrize(
    ("token", "is_one"),
    [
        ("9" * 40, False),
        ("9" * 200, False),
        (str(BIG), False),
        (str(BIG + 1), False),
        ("-1", False),
        ("\u0663", False),
        ("1\n", False),
        ("x", False),
        (str(BIG - 1), True),
        ("0", True),
    ],
)
async def test_any_text_as_a_page_token_has_an_answer(
    servicer: BulkServicer, token: str, is_one: bool
) -> None:
    request = bulk_pb2.ListJobsRequest(page_token=token)
    if is_one:
        assert len((await servicer.ListJobs(request, CONTEXT)).jobs) == 0
    else:
        assert isinstance(await error_of(servicer, "ListJobs", request), InvalidRequest)


@pytest.mark.parametrize("page_size", [-1, 1001, (1 << 31) - 1, -(1 << 31)])
async def test_page_sizes_are_bounded(servicer: BulkServicer, page_size: int) -> None:
    request = bulk_pb2.ListJobsRequest(page_size=page_size)
    assert isinstance(await error_of(servicer, "ListJobs", request), InvalidRequest)


async def test_a_state_asked_for_many_times_is_asked_for_once(bench: Bench, servicer: BulkServicer) -> None:
    await ended_job(bench)
    request = bulk_pb2.ListJobsRequest(states=[bulk_pb2.JOB_STATE_SUCCEEDED] * 300_000)
    assert len((await servicer.ListJobs(request, CONTEXT)).jobs) == 1


@pytest.mark.parametrize("interval_ms", [-1, 99, 60_001, (1 << 31) - 1, -(1 << 31)])
async def test_watch_intervals_are_bounded(bench: Bench, servicer: BulkServicer, interval_ms: int) -> None:
    request = bulk_pb2.WatchJobRequest(job_id=await ended_job(bench), interval_ms=interval_ms)
    assert isinstance(await error_of(servicer, "WatchJob", request), InvalidRequest)


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"start_row": BIG}, 0),
        ({"start_row": BIG, "rows_max": BIG}, 0),
        ({"rows_max": BIG}, 5),
        ({"start_row": 4, "rows_max": BIG}, 1),
        ({"start_row": 5}, 0),
        ({"start_row": -1}, None),
        ({"rows_max": SMALL}, None),
        ({"selection": 99}, None),
        ({"format": 99}, None),
        ({"format": bulk_pb2.FILE_FORMAT_CSV}, None),
        ({"format": bulk_pb2.FILE_FORMAT_JSONL, "start_row": BIG}, None),
    ],
)
async def test_any_range_of_rows_has_an_answer(
    bench: Bench, servicer: BulkServicer, fields: dict[str, Any], rows: int | None
) -> None:
    request = bulk_pb2.ReadResultsRequest(job_id=await ended_job(bench), **fields)
    if rows is None:
        assert isinstance(await error_of(servicer, "ReadResults", request), InvalidRequest)
    else:
        answers = [answer async for answer in servicer.ReadResults(request, CONTEXT)]
        assert sum(len(answer.rows) for answer in answers) == rows


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({"file_name": "n" * 256, "size_bytes": 1}, InvalidRequest),
        ({"file_name": "\0.csv", "size_bytes": 1}, InvalidRequest),
        ({"file_name": "a.csv", "size_bytes": SMALL}, InvalidRequest),
        ({"file_name": "a.csv", "size_bytes": BIG}, StorageFull),
        ({"upload_id": "u" * 129}, InvalidRequest),
        ({"upload_id": "u" * 128}, UnknownUpload),
        ({"upload_id": "../journal.sqlite"}, UnknownUpload),
    ],
)
async def test_any_upload_header_has_an_answer(
    servicer: BulkServicer, header: dict[str, Any], error: type[PenstockError]
) -> None:
    request = bulk_pb2.UploadRequest(header=bulk_pb2.UploadHeader(**header))
    told = await error_of(servicer, "Upload", messages(request))
    assert type(told) is error
    assert len(told.message) < 300


async def test_a_file_that_is_there_is_not_opened_anew(bench: Bench, servicer: BulkServicer) -> None:
    data = b'{"text": "a"}\n'
    known = bench.upload("rows.jsonl", data)
    header = bulk_pb2.UploadHeader(
        file_name="b.jsonl", size_bytes=len(data), sha256=hashlib.sha256(data).digest()
    )
    request = bulk_pb2.UploadRequest(header=header)
    # Whoever sends its bytes all the same is not refused.
    chunk = bulk_pb2.UploadRequest(chunk=bulk_pb2.UploadChunk(data=data))
    for sent in (messages(request), messages(request, chunk)):
        told = (await servicer.Upload(sent, CONTEXT)).upload
        assert (told.id, told.complete, told.file_name) == (known, True, "rows.jsonl")
        assert told.expire_time.seconds - told.create_time.seconds == LIMITS.upload_age_s_max
    header.sha256 = b"short"
    for upload_id in ("", known):
        header.upload_id = upload_id
        assert isinstance(
            await error_of(servicer, "Upload", messages(bulk_pb2.UploadRequest(header=header))),
            InvalidRequest,
        )


async def test_a_sender_that_goes_away_while_its_upload_is_opened_leaves_nothing_open(
    bench: Bench, servicer: BulkServicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, sessions = asyncio.Event(), list[UploadSession]()

    def open_upload(file_name: str, size_bytes: int, *rest: Any) -> UploadSession:
        sessions.append(UploadStore.open(bench.uploads, file_name, size_bytes, *rest))
        begun.set()
        return sessions[0]

    monkeypatch.setattr(bench.uploads, "open", open_upload)
    header = bulk_pb2.UploadHeader(file_name="a.csv", size_bytes=5)
    request = bulk_pb2.UploadRequest(header=header)
    sending = asyncio.ensure_future(servicer.Upload(messages(request), CONTEXT))
    await begun.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await settle()
    with pytest.raises(WrongState, match="has ended"):
        sessions[0].append(0, b"x")


@pytest.mark.parametrize("offset", [SMALL, -1, 1, BIG])
async def test_any_wrong_offset_has_an_answer(servicer: BulkServicer, offset: int) -> None:
    header = bulk_pb2.UploadHeader(file_name="a.csv", size_bytes=5)
    chunk = bulk_pb2.UploadChunk(offset=offset, data=b"x")
    sent = messages(bulk_pb2.UploadRequest(header=header), bulk_pb2.UploadRequest(chunk=chunk))
    assert isinstance(await error_of(servicer, "Upload", sent), InvalidRequest)


@pytest.mark.parametrize("upload_id", ["", "u" * 129])
async def test_upload_ids_are_bounded_wherever_they_are_named(servicer: BulkServicer, upload_id: str) -> None:
    get = bulk_pb2.GetUploadRequest(upload_id=upload_id)
    create = bulk_pb2.CreateJobRequest(spec=bulk_pb2.JobSpec(upload_id=upload_id))
    assert isinstance(await error_of(servicer, "GetUpload", get), InvalidRequest)
    assert isinstance(await error_of(servicer, "CreateJob", create), InvalidRequest)


async def test_request_ids_are_bounded(bench: Bench, servicer: BulkServicer) -> None:
    spec = bulk_pb2.JobSpec(
        model=common_pb2.ModelRef(name=MODEL.name),
        task=common_pb2.TASK_EMBED,
        upload_id=bench.upload("rows.jsonl", b'{"text": "a"}\n'),
    )
    request = bulk_pb2.CreateJobRequest(spec=spec, request_id="r" * 129)
    assert isinstance(await error_of(servicer, "CreateJob", request), InvalidRequest)
    request.request_id = "r" * 128
    first = await servicer.CreateJob(request, CONTEXT)
    assert (await servicer.CreateJob(request, CONTEXT)).job.id == first.job.id
    await settle()


async def test_a_place_that_nobody_allows_is_refused(servicer: BulkServicer) -> None:
    spec = bulk_pb2.JobSpec(
        model=common_pb2.ModelRef(name=MODEL.name), task=common_pb2.TASK_EMBED, input_url="file:///in.csv"
    )
    request = bulk_pb2.CreateJobRequest(spec=spec)
    assert isinstance(await error_of(servicer, "CreateJob", request), InvalidRequest)
    spec.input_url = "s3://bucket/" + "a" * 2048
    request = bulk_pb2.CreateJobRequest(spec=spec)
    assert isinstance(await error_of(servicer, "CreateJob", request), InvalidRequest)


async def test_failed_rows_are_tried_again_by_a_new_job(bench: Bench, servicer: BulkServicer) -> None:
    running = await bench.submit(["a"])
    request = bulk_pb2.RetryFailedRowsRequest(job_id=running.id)
    assert isinstance(await error_of(servicer, "RetryFailedRows", request), WrongState)
    bench.lane.fail(1)
    await settle()
    request.request_id = "r" * 129
    assert isinstance(await error_of(servicer, "RetryFailedRows", request), InvalidRequest)
    request.request_id = "once"
    job = (await servicer.RetryFailedRows(request, CONTEXT)).job
    assert (job.spec.retry_of, job.spec.upload_id) == (running.id, running.spec.upload_id)
    assert (await servicer.RetryFailedRows(request, CONTEXT)).job.id == job.id
    await settle()
