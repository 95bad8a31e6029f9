"""BulkService: uploads, jobs and their results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from penstock.v1 import bulk_pb2, bulk_pb2_grpc
from penstock_server.api import bulk_codec
from penstock_server.api.callers import CallerReader
from penstock_server.api.deadlines import Context
from penstock_server.api.messages import Messages
from penstock_server.bulk.journal import no_job
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.uploads import Upload as UploadState
from penstock_server.bulk.uploads import UploadSession, UploadStore, no_upload
from penstock_server.domain.errors import Draining, InvalidRequest
from penstock_server.domain.job import FileFormat, RowSelection
from penstock_server.runtime.job_results import in_thread
from penstock_server.runtime.jobs import JobRunner

_MILLISECONDS = 1000


class BulkServicer(bulk_pb2_grpc.BulkServiceServicer):
    """Parses messages, has stores and runner do the work, writes messages."""

    def __init__(
        self, uploads: UploadStore, jobs: JobRunner, limits: BulkLimits, callers: CallerReader
    ) -> None:
        self._uploads = uploads
        self._jobs = jobs
        self._limits = limits
        self._callers = callers

    async def Upload(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[bulk_pb2.UploadRequest], context: Context
    ) -> bulk_pb2.UploadResponse:
        """Takes a file in chunks; what came before an error is kept."""
        messages = Messages(request_iterator, self._jobs.draining)
        try:
            upload = await self._receive(messages, self._callers.proven_tenant(context))
        finally:
            await messages.close()
        return bulk_pb2.UploadResponse(upload=bulk_codec.upload_to_proto(upload))

    async def GetUpload(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.GetUploadRequest, context: Context
    ) -> bulk_pb2.GetUploadResponse:
        """Tells how much of an upload is safe on disk."""
        upload = await self._upload(request.upload_id, "upload_id", self._callers.proven_tenant(context))
        return bulk_pb2.GetUploadResponse(upload=bulk_codec.upload_to_proto(upload))

    async def CreateJob(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.CreateJobRequest, context: Context
    ) -> bulk_pb2.CreateJobResponse:
        """Starts a job over a complete upload."""
        request_id = self._request_id(request.request_id, context)
        bulk_codec.check_built(request.spec)
        tenant = self._callers.proven_tenant(context)
        if request.spec.WhichOneof("source") == "input_url":
            url = bulk_codec.required(request.spec.input_url, "spec.input_url", self._limits.url_bytes_max)
            file_name = url.rpartition("/")[2]
        else:
            file_name = (await self._upload(request.spec.upload_id, "spec.upload_id", tenant)).file_name
        spec = bulk_codec.spec_from_proto(request.spec, file_name, self._limits)
        spec = replace(spec, options=self._callers.options_of(spec.options, context))
        job = await self._jobs.create(spec, request_id)
        return bulk_pb2.CreateJobResponse(job=bulk_codec.job_to_proto(job))

    async def GetJob(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.GetJobRequest, context: Context
    ) -> bulk_pb2.GetJobResponse:
        """Tells a job's state and progress."""
        job = await self._jobs.get(await self._own_job(request.job_id, context))
        return bulk_pb2.GetJobResponse(job=bulk_codec.job_to_proto(job))

    async def ListJobs(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.ListJobsRequest, context: Context
    ) -> bulk_pb2.ListJobsResponse:
        """Lists jobs, newest first."""
        page_size = bulk_codec.page_size_from_proto(request.page_size, self._limits)
        states = {bulk_codec.state_from_proto(number) for number in request.states}
        bulk_codec.bounded(request.page_token, "page_token", self._limits.id_bytes_max)
        tenant = self._callers.proven_tenant(context)
        page = await self._jobs.page(page_size, request.page_token, states, tenant)
        return bulk_pb2.ListJobsResponse(
            jobs=[bulk_codec.job_to_proto(job) for job in page.jobs], next_page_token=page.next_page_token
        )

    async def WatchJob(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.WatchJobRequest, context: Context
    ) -> AsyncGenerator[bulk_pb2.WatchJobResponse]:
        """Sends a job whenever it has changed, until it ends."""
        limits = self._limits
        interval_ms = request.interval_ms or limits.watch_interval_ms_default
        if not limits.watch_interval_ms_min <= interval_ms <= limits.watch_interval_ms_max:
            raise InvalidRequest.of_field(
                "interval_ms",
                f"must be from {limits.watch_interval_ms_min:,} to {limits.watch_interval_ms_max:,} "
                "(0: the default)",
            )
        job_id = await self._own_job(request.job_id, context)
        watched = self._jobs.watch(job_id, interval_ms / _MILLISECONDS)
        async with aclosing(watched) as jobs:
            async for job in jobs:
                yield bulk_pb2.WatchJobResponse(job=bulk_codec.job_to_proto(job))

    async def ReadResults(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.ReadResultsRequest, context: Context
    ) -> AsyncGenerator[bulk_pb2.ReadResultsResponse]:
        """Sends finished rows, or the bytes of a result file."""
        job_id = await self._own_job(request.job_id, context)
        selection = bulk_codec.selection_from_proto(request.selection)
        file_format = bulk_codec.result_format_from_proto(request.format)
        for name, value in (("start_row", request.start_row), ("rows_max", request.rows_max)):
            if value < 0:
                raise InvalidRequest.of_field(name, "must not be negative")
            if value and file_format is not None:
                raise InvalidRequest.of_field(name, "must be 0 when a file is asked for")
        responses = (
            self._rows(job_id, request, selection)
            if file_format is None
            else self._file(job_id, file_format, selection)
        )
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def PauseJob(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.PauseJobRequest, context: Context
    ) -> bulk_pb2.PauseJobResponse:
        """Stops computing rows, keeping what is done."""
        job = await self._jobs.pause(await self._own_job(request.job_id, context))
        return bulk_pb2.PauseJobResponse(job=bulk_codec.job_to_proto(job))

    async def ResumeJob(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.ResumeJobRequest, context: Context
    ) -> bulk_pb2.ResumeJobResponse:
        """Goes on with a paused job."""
        job = await self._jobs.resume(await self._own_job(request.job_id, context))
        return bulk_pb2.ResumeJobResponse(job=bulk_codec.job_to_proto(job))

    async def RetryFailedRows(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.RetryFailedRowsRequest, context: Context
    ) -> bulk_pb2.RetryFailedRowsResponse:
        """Starts a job over the failed rows of one that has ended."""
        job_id = await self._own_job(request.job_id, context)
        job = await self._jobs.retry(job_id, self._request_id(request.request_id, context))
        return bulk_pb2.RetryFailedRowsResponse(job=bulk_codec.job_to_proto(job))

    async def CancelJob(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.CancelJobRequest, context: Context
    ) -> bulk_pb2.CancelJobResponse:
        """Ends a job, keeping what is done."""
        job = await self._jobs.cancel(await self._own_job(request.job_id, context))
        return bulk_pb2.CancelJobResponse(job=bulk_codec.job_to_proto(job))

    async def DeleteJob(  # noqa: N802 - gRPC's name
        self, request: bulk_pb2.DeleteJobRequest, context: Context
    ) -> bulk_pb2.DeleteJobResponse:
        """Removes a job that has ended, with its input and results."""
        await self._jobs.delete(await self._own_job(request.job_id, context))
        return bulk_pb2.DeleteJobResponse()

    async def _receive(self, messages: Messages[bulk_pb2.UploadRequest], tenant: str | None) -> UploadState:
        session: UploadSession | None = None
        try:
            async for request in messages:
                if session is None:
                    known = await self._known(request, tenant)
                    if known is not None:
                        return known
                    session = await self._open(request, tenant)
                else:
                    await _append(session, request)
            if messages.is_cut:
                raise Draining("The server is shutting down; resume the upload when it is up again.")
            if session is None:
                raise InvalidRequest.of_field("header", "is required: the stream was empty")
            return await asyncio.to_thread(session.finish)
        finally:
            if session is not None:
                await asyncio.shield(asyncio.to_thread(session.close))

    async def _known(self, request: bulk_pb2.UploadRequest, tenant: str | None) -> UploadState | None:
        """A complete upload of the bytes that somebody is about to send; None if there is none."""
        header = request.header
        if header.upload_id or not header.HasField("sha256"):
            return None
        sha256 = bulk_codec.sha256_from_proto(header)
        return await asyncio.to_thread(
            self._uploads.find, header.file_name, header.size_bytes, sha256, tenant or ""
        )

    async def _open(self, request: bulk_pb2.UploadRequest, tenant: str | None) -> UploadSession:
        if request.WhichOneof("message") != "header":
            raise InvalidRequest.of_field("header", "is required as the first message of an upload")
        header = request.header
        crc32c = header.crc32c if header.HasField("crc32c") else None
        sha256 = bulk_codec.sha256_from_proto(header) if header.HasField("sha256") else None
        if header.upload_id:
            upload = await self._upload(header.upload_id, "header.upload_id", tenant)
            begin = partial(self._uploads.resume, upload.id, header.size_bytes, crc32c, sha256)
        else:
            begin = partial(
                self._uploads.open, header.file_name, header.size_bytes, crc32c, tenant or "", sha256
            )
        opening = asyncio.ensure_future(asyncio.to_thread(begin))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The sender has gone; the thread goes on, and nobody else would close what it opens.
            opening.add_done_callback(_close_opened)
            raise

    async def _upload(self, upload_id: str, field: str, tenant: str | None) -> UploadState:
        """Reads an upload that the caller may know of."""
        upload = await asyncio.to_thread(self._uploads.get, self._id(upload_id, field))
        if tenant is not None and upload.tenant != tenant:
            raise no_upload(upload_id)
        return upload

    async def _own_job(self, job_id: str, context: Context) -> str:
        """The id of a job, if the caller may know of it."""
        job_id = self._id(job_id)
        tenant = self._callers.proven_tenant(context)
        if tenant is not None and (await self._jobs.get(job_id)).spec.options.tenant != tenant:
            raise no_job(job_id)
        return job_id

    def _request_id(self, request_id: str, context: Context) -> str:
        return bulk_codec.own_request_id(request_id, self._callers.proven_tenant(context), self._limits)

    def _id(self, value: str, field: str = "job_id") -> str:
        return bulk_codec.required(value, field, self._limits.id_bytes_max)

    async def _rows(
        self, job_id: str, request: bulk_pb2.ReadResultsRequest, selection: RowSelection
    ) -> AsyncGenerator[bulk_pb2.ReadResultsResponse]:
        vector_format = bulk_codec.vector_format_of((await self._jobs.get(job_id)).spec)
        chunks = self._jobs.rows(
            job_id, start_row=request.start_row, rows_max=request.rows_max, selection=selection
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                for response in bulk_codec.results_to_proto(chunk, vector_format, self._limits):
                    yield response

    async def _file(
        self, job_id: str, file_format: FileFormat, selection: RowSelection
    ) -> AsyncGenerator[bulk_pb2.ReadResultsResponse]:
        path = await self._jobs.result_file(job_id, file_format, selection)
        async with aclosing(_blocks(path, self._limits.result_message_bytes)) as blocks:
            async for data in blocks:
                yield bulk_pb2.ReadResultsResponse(data=data)


def _close_opened(opening: asyncio.Future[UploadSession]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _append(session: UploadSession, request: bulk_pb2.UploadRequest) -> None:
    if request.WhichOneof("message") != "chunk":
        raise InvalidRequest.of_field("header", "must come only once; send chunks after it")
    chunk = request.chunk
    crc32c = chunk.crc32c if chunk.HasField("crc32c") else None
    await asyncio.to_thread(session.append, chunk.offset, chunk.data, crc32c)


async def _blocks(path: Path, block_bytes: int) -> AsyncGenerator[bytes]:
    file: BinaryIO = await in_thread(lambda: path.open("rb"))
    try:
        while data := await in_thread(lambda: file.read(block_bytes)):
            yield data
    finally:
        file.close()
