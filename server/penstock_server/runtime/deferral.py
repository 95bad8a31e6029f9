"""Calls that were demoted to BULK and cannot be computed while they last become jobs of one request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import msgspec
import structlog

from penstock_server.bulk.checksum import crc32c
from penstock_server.bulk.uploads import UploadStore
from penstock_server.domain.errors import PenstockError
from penstock_server.domain.job import FileFormat, InputColumns, Job, JobSpec
from penstock_server.domain.tasks import RequestClass
from penstock_server.runtime.request_ticket import InferenceCall, TextRow

# What is left of a call's time when its job is made: input and job take about ten fsyncs of 5 to 30 ms.
# Chosen: more would take time from computing, less would tell the caller too late.
MARGIN_NS = 500_000_000

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


class Deferral:
    """Makes jobs of calls. Owned by the event loop; files are written on threads.

    Args:
        uploads: Takes the call's texts as an input file.
        jobs: Runs the job.
    """

    def __init__(self, uploads: UploadStore, jobs: Jobs) -> None:
        self._uploads = uploads
        self._jobs = jobs
        self._making: set[asyncio.Task[str]] = set()

    @staticmethod
    def can_take(rows: Sequence[TextRow]) -> bool:
        """Whether a call's texts can be an input: all are pairs, or none is."""
        return len({row.pair is None for row in rows}) == 1

    async def defer(self, call: InferenceCall, rows: Sequence[TextRow]) -> str:
        """Makes a job of a call; returns its id.

        If the caller leaves meanwhile, nobody can ask for the job: it is cancelled once it is there.

        Raises:
            PenstockError: The disk is full, there are too many jobs, or the server shuts down.
        """
        making = asyncio.create_task(self._make(call, rows))
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            withdrawing = asyncio.create_task(self._withdraw(making))
            self._making.add(withdrawing)
            withdrawing.add_done_callback(self._making.discard)
            raise

    async def close(self) -> None:
        """Waits for what is under way; idempotent."""
        while self._making:
            await asyncio.gather(*self._making, return_exceptions=True)

    async def _make(self, call: InferenceCall, rows: Sequence[TextRow]) -> str:
        upload_id = await asyncio.to_thread(self._write, rows)
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

    def _write(self, rows: Sequence[TextRow]) -> str:
        """Writes the texts as an upload, which is deleted with the job. Blocking."""
        records = [
            {"text": row.text} if row.pair is None else {"text": row.text, "text_pair": row.pair}
            for row in rows
        ]
        data = msgspec.json.Encoder().encode_lines(records)
        chunk_bytes = self._uploads.limits.chunk_bytes_max
        session = self._uploads.open(_FILE_NAME, len(data), crc32c(data))
        try:
            for offset in range(0, len(data), chunk_bytes):
                session.append(offset, data[offset : offset + chunk_bytes])
            session.finish()
        finally:
            session.close()
        return session.upload_id

    async def _withdraw(self, making: asyncio.Task[str]) -> str:
        """Cancels a job that nobody knows of."""
        try:
            job_id = await making
            await self._jobs.cancel(job_id)
        except PenstockError as err:
            _log.warning("deferred_call_not_withdrawn", error=err.message)
            return ""
        _log.info("deferred_call_withdrawn", job=job_id)
        return job_id
