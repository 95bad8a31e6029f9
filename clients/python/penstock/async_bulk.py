"""Bulk jobs for asyncio, twin of ``Bulk``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Unpack

from penstock.async_wire import AsyncWire
from penstock.errors import PenstockError
from penstock.jobs import (
    Job,
    Progress,
    ProgressCallback,
    RowResult,
    create_job,
    delete_job,
    file_request,
    job_call,
    list_jobs,
    results_request,
    retry_job,
    rows_of,
    spec_of,
)
from penstock.methods import CANCEL_JOB, GET_JOB, PAUSE_JOB, READ_RESULTS, RESUME_JOB, WATCH_JOB
from penstock.options import FileFormat, JobOptions, JobState, RowSelection, Task
from penstock.transfer import PartFile, Patience, upload
from penstock.v1 import bulk_pb2


class AsyncBulk:
    """Uploads, jobs and their results. Transfers go on where they were when the connection breaks."""

    def __init__(self, wire: AsyncWire, timeout_s: float | None) -> None:
        self._wire = wire
        self._timeout_s = timeout_s

    async def submit(
        self,
        path: str | os.PathLike[str],
        *,
        model: str,
        task: Task | str,
        wait: bool = False,
        progress: ProgressCallback | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Uploads a file and starts a job over it.

        Args:
            path: A file of JSON lines, CSV or Parquet.
            model: Name of the model.
            task: What to compute.
            wait: Return when the job has ended, not when it was created.
            progress: Told how far the upload is, and with ``wait`` how far the job is.
            **options: See ``JobOptions``: columns, format, task options.

        Returns:
            The job. A job that has ended may have failed: see its ``state`` and ``error``.

        Raises:
            OSError: The file cannot be read.
            PenstockError: The server refused the file or the job.
        """
        spec = spec_of("", model, task, options)
        spec.upload_id = await self.upload(path, progress=progress)
        job = await self._wire.run(create_job(spec, options.get("request_id", ""), self._timeout_s))
        return await self.wait(job.id, progress=progress) if wait else job

    async def upload(
        self,
        path: str | os.PathLike[str],
        *,
        upload_id: str = "",
        progress: ProgressCallback | None = None,
    ) -> str:
        """Sends a file and returns its upload's id; with ``upload_id``, goes on with an earlier upload.

        A file of a MiB or more that the server has already is not sent again: its upload's id is returned.
        """
        return await self._wire.run(upload(Path(path), upload_id, progress))

    async def create(
        self, upload_id: str = "", *, model: str, task: Task | str, **options: Unpack[JobOptions]
    ) -> Job:
        """Starts a job over a complete upload, or over the file that ``input_url`` names."""
        spec = spec_of(upload_id, model, task, options)
        return await self._wire.run(create_job(spec, options.get("request_id", ""), self._timeout_s))

    async def get(self, job_id: str) -> Job:
        """Returns a job as it stands; NotFoundError if there is none."""
        return await self._wire.run(job_call(GET_JOB, job_id, self._timeout_s))

    async def list(self, *, states: Iterable[JobState | str] = (), jobs_max: int | None = None) -> list[Job]:
        """Returns jobs, newest first: all, or those in some states, or so many at most."""
        return await self._wire.run(list_jobs(states, jobs_max, self._timeout_s))

    async def pause(self, job_id: str) -> Job:
        """Stops computing rows, keeping what is done; WrongStateError if the job has ended."""
        return await self._wire.run(job_call(PAUSE_JOB, job_id, self._timeout_s))

    async def resume(self, job_id: str) -> Job:
        """Goes on with a paused job; WrongStateError if it is not paused."""
        return await self._wire.run(job_call(RESUME_JOB, job_id, self._timeout_s))

    async def cancel(self, job_id: str) -> Job:
        """Ends a job, keeping what is done; no effect on a job that has ended."""
        return await self._wire.run(job_call(CANCEL_JOB, job_id, self._timeout_s))

    async def retry_failed(self, job_id: str, *, request_id: str = "") -> Job:
        """Starts a job over the failed rows of one that has ended.

        Rows without keys get their numbers in the earlier job as such.

        Args:
            job_id: The job that has ended.
            request_id: As in ``JobOptions``.

        Raises:
            WrongStateError: The job has not ended, or has no failed rows.
        """
        return await self._wire.run(retry_job(job_id, request_id, self._timeout_s))

    async def delete(self, job_id: str) -> None:
        """Removes a job that has ended, with its input and results."""
        await self._wire.run(delete_job(job_id, self._timeout_s))

    async def watch(self, job_id: str, *, timeout_s: float | None = None) -> AsyncIterator[Job]:
        """Yields the job whenever it changes, until it has ended."""
        request = bulk_pb2.WatchJobRequest(job_id=job_id)
        patience = Patience(timeout_s)
        while True:
            try:
                async for response in self._wire.stream(WATCH_JOB, request, patience.remaining_s()):
                    patience.progressed()
                    job = Job.of(response.job)
                    yield job
                    if job.has_ended:
                        return
            except PenstockError as error:
                await asyncio.sleep(patience.delay_s(error))

    async def wait(
        self, job_id: str, *, progress: ProgressCallback | None = None, timeout_s: float | None = None
    ) -> Job:
        """Returns the job when it has ended, well or not.

        Raises:
            DeadlineExceededError: It has not ended within ``timeout_s``.
        """
        job: Job | None = None
        async for job in self.watch(job_id, timeout_s=timeout_s):
            if progress is not None:
                progress(Progress.of_job(job))
        return job or await self.get(job_id)

    async def results(
        self,
        job_id: str,
        *,
        start_row: int = 0,
        selection: RowSelection | str = RowSelection.UNSPECIFIED,
    ) -> AsyncIterator[RowResult]:
        """Yields finished rows in input order, up to the first row that is not finished yet.

        Args:
            job_id: Id of the job, running or ended.
            start_row: First row to read, from 0.
            selection: All rows, or only those that succeeded or failed.
        """
        request = results_request(job_id, start_row, selection)
        patience = Patience()
        while True:
            try:
                async for response in self._wire.stream(READ_RESULTS, request, None):
                    patience.progressed()
                    # Moved on before the rows are handed out: what breaks later must not repeat them.
                    request.start_row = response.next_row
                    for row in rows_of(response):
                        yield row
                return
            except PenstockError as error:
                await asyncio.sleep(patience.delay_s(error))

    async def download(
        self,
        job_id: str,
        path: str | os.PathLike[str],
        *,
        format: FileFormat | str = FileFormat.JSONL,
        selection: RowSelection | str = RowSelection.UNSPECIFIED,
        progress: ProgressCallback | None = None,
    ) -> Path:
        """Writes an ended job's results to a file, which appears when it is whole.

        Args:
            job_id: Id of the job.
            path: Where to write; a file there is replaced.
            format: JSON lines or Parquet.
            selection: All rows, or only those that succeeded or failed.
            progress: Told the bytes written so far.
        """
        request = file_request(job_id, format, selection)
        patience = Patience()
        while True:
            try:
                with PartFile(Path(path), progress) as file:
                    async for response in self._wire.stream(READ_RESULTS, request, None):
                        file.write(response.data)
                return Path(path)
            except PenstockError as error:
                await asyncio.sleep(patience.delay_s(error))
