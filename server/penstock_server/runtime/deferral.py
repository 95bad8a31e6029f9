"""Calls that were demoted to BULK and cannot be computed while they last become jobs of one request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import msgspec
import structlog

from penstock_server.bulk.checksum import crc32c
from penstock_server.bulk.uploads import UploadSession, UploadStore
from penstock_server.domain.errors import Overloaded, PenstockError
from penstock_server.domain.job import FileFormat, InputColumns, Job, JobSpec
from penstock_server.domain.tasks import RequestClass
from penstock_server.runtime.request_ticket import InferenceCall, TextRow

# What is left of a call's time when its job is made: input and job take about ten fsyncs of 5 to 30 ms.
# Chosen: more would take time from computing, less would tell the caller too late.
MARGIN_NS = 500_000_000

# Threads that write inputs. Chosen: their fsyncs overlap, and more would only queue at the disk.
_WRITERS = 2
# When trying again makes sense after the limit was reached; about what it takes to make a few jobs.
_RETRY_S = 1.0

# How often a withdrawn job may be looked at; its end is told at once.
_WATCH_S = 1.0

_FILE_NAME = "call.jsonl"
_log = structlog.get_logger(__name__)


class Jobs(Protocol):
    """What is asked of the job runner."""

    async def create(self, spec: JobSpec, request_id: str = "") -> Job:
        """Makes a job and starts it."""
        ...

    async def cancel(self, job_id: str) -> Job:
        """Ends a job."""
        ...

    def watch(self, job_id: str, interval_s: float) -> AsyncGenerator[Job]:
        """Yields a job whenever it has changed, until it ends."""
        ...

    async def delete(self, job_id: str) -> None:
        """Removes a job that has ended."""
        ...


class Deferral:
    """Makes jobs of calls. Owned by the event loop; files are written on threads of its own.

    Args:
        uploads: Takes the call's texts as an input file.
        jobs: Runs the job.
        calls_max: Calls that jobs are made of at once; further ones are refused. An overload demotes calls
            much faster than a disk takes them, and each that waits for it has half a second left.
    """

    def __init__(self, uploads: UploadStore, jobs: Jobs, *, calls_max: int) -> None:
        self._uploads = uploads
        self._jobs = jobs
        self._calls_max = calls_max
        # Not the default one: parts of jobs are written there, which these must not hold up.
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="deferral")
        self._making: set[asyncio.Task[str]] = set()
        self._withdrawing: set[asyncio.Task[str]] = set()

    @staticmethod
    def can_take(rows: Sequence[TextRow]) -> bool:
        """Whether a call's texts can be an input: all are pairs, or none is."""
        return len({row.pair is None for row in rows}) == 1

    async def defer(self, call: InferenceCall, rows: Sequence[TextRow]) -> str:
        """Makes a job of a call; returns its id.

        If the caller leaves meanwhile, nobody can ask for the job: once there, it is cancelled and deleted.

        Raises:
            Overloaded: Jobs are being made of too many calls already.
            PenstockError: The disk is full, there are too many jobs, or the server shuts down.
        """
        if len(self._making) >= self._calls_max:
            raise Overloaded(
                "The call cannot be answered in time, and too many are being made into jobs already; "
                "try again, or send it as a job.",
                retry_after_s=_RETRY_S,
                limit="DEFERRED_CALLS",
            )
        making = asyncio.create_task(self._make(call, rows))
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            withdrawing = asyncio.create_task(self._withdraw(making))
            self._withdrawing.add(withdrawing)
            withdrawing.add_done_callback(self._withdrawing.discard)
            raise

    async def close(self) -> None:
        """Waits for what is under way; idempotent."""
        while under_way := self._making | self._withdrawing:
            await asyncio.gather(*under_way, return_exceptions=True)
        self._writers.shutdown(wait=False)

    async def _make(self, call: InferenceCall, rows: Sequence[TextRow]) -> str:
        loop = asyncio.get_running_loop()
        upload_id = await loop.run_in_executor(self._writers, self._write, rows, call.options.tenant)
        spec = JobSpec(
            model=call.model.manifest.key,
            task=call.task,
            upload_id=upload_id,
            input_format=FileFormat.JSONL,
            columns=InputColumns(text="text", pair=None if rows[0].pair is None else "text_pair"),
            options=replace(
                call.options, request_class=RequestClass.BULK, overload_policy=None, explain=False
            ),
            display_name=f"{call.method} call that was demoted to BULK",
        )
        try:
            job = await self._jobs.create(spec)
        except PenstockError:
            await asyncio.to_thread(self._uploads.delete, upload_id)
            raise
        _log.info("call_deferred", job=job.id, rows=len(rows))
        return job.id

    def _write(self, rows: Sequence[TextRow], tenant: str) -> str:
        """Writes the texts as an upload, which is deleted with the job. Blocking."""
        records = [
            {"text": row.text} if row.pair is None else {"text": row.text, "text_pair": row.pair}
            for row in rows
        ]
        data = msgspec.json.Encoder().encode_lines(records)
        chunk_bytes = self._uploads.limits.chunk_bytes_max
        session = self._uploads.open(_FILE_NAME, len(data), crc32c(data), tenant)
        try:
            _send(session, data, chunk_bytes)
        except PenstockError:
            # Nobody knows of it, so nobody would go on with it.
            self._uploads.delete(session.upload_id)
            raise
        return session.upload_id

    async def _withdraw(self, making: asyncio.Task[str]) -> str:
        """Cancels and deletes a job that nobody knows of."""
        try:
            job_id = await making
            await self._jobs.cancel(job_id)
            async for _ in self._jobs.watch(job_id, _WATCH_S):
                pass
            await self._jobs.delete(job_id)
        except PenstockError as err:
            _log.warning("deferred_call_not_withdrawn", error=err.message)
            return ""
        _log.info("deferred_call_withdrawn", job=job_id)
        return job_id


def _send(session: UploadSession, data: bytes, chunk_bytes: int) -> None:
    try:
        for offset in range(0, len(data), chunk_bytes):
            session.append(offset, data[offset : offset + chunk_bytes])
        session.finish()
    finally:
        session.close()
