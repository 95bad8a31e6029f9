"""Reads results of jobs without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from pathlib import Path
from typing import TypeVar

from penstock_server.bulk.export import ExportOrder
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.journal import JobStore
from penstock_server.bulk.results import ResultRows, read_results
from penstock_server.domain.errors import InvalidRequest, WrongState
from penstock_server.domain.job import RESULT_FORMATS, FileFormat, Job, RowSelection
from penstock_server.domain.tasks import Task
from penstock_server.runtime.job_files import FileTasks

# How often a read begins anew because a part was replaced under it. Chosen: a part is replaced once in many
# seconds, so a second time in a row is a defect.
_READ_TRIES_MAX = 5

_Value = TypeVar("_Value")


class ResultReader:
    """Reads rows and result files of jobs."""

    def __init__(self, store: JobStore, files: FileTasks) -> None:
        self._store = store
        self._files = files
        self._exporting = asyncio.Lock()

    async def rows(
        self, job: Job, folder: JobFolder, *, start_row: int, rows_max: int, selection: RowSelection
    ) -> AsyncGenerator[ResultRows]:
        """Yields finished rows in input order, a window at a time; see ``bulk.results.read_results``."""
        tries = 0
        rows_left = rows_max
        while job.is_validated:
            windows = await asyncio.to_thread(self._store.windows, job.id)
            chunks = read_results(
                folder,
                windows,
                has_ended=job.state.has_ended,
                start_row=start_row,
                rows_max=rows_left,
                selection=selection,
            )
            try:
                while (chunk := await in_thread(partial(_next, chunks))) is not None:
                    yield chunk
                    start_row = chunk.start_row + int(chunk.indices[-1]) + 1
                    rows_left -= len(chunk.indices) if rows_max else 0
                return
            except FileNotFoundError:
                # A checkpoint has replaced the part since the windows were listed, or the job was deleted.
                job = await asyncio.to_thread(self._store.get, job.id)
                tries += 1
                if tries == _READ_TRIES_MAX:
                    raise
            finally:
                chunks.close()

    async def file(
        self, job: Job, folder: JobFolder, file_format: FileFormat, selection: RowSelection
    ) -> Path:
        """Finds a result file, writing it first if that has not been done.

        Raises:
            WrongState: The job has not ended, or its input could not be read.
            InvalidRequest: Result files have another format.
            StorageFull: The disk has no room.
            StorageFailed: The disk failed.
        """
        if file_format not in RESULT_FORMATS:
            raise InvalidRequest.of_field("format", "must be JSONL, PARQUET or OPENAI_BATCH")
        if file_format is FileFormat.OPENAI_BATCH and job.spec.task.task is not Task.EMBED:
            raise InvalidRequest.of_field("format", "OPENAI_BATCH is for embeddings")
        if not job.state.has_ended or not job.is_validated:
            raise WrongState(
                f"Job {job.id} is {job.state.name} and has no result file; "
                "read its rows instead, or wait until it has ended.",
                job_id=job.id,
                state=job.state.name,
            )
        path = folder.result_path(file_format, selection)
        async with self._exporting:
            if not await asyncio.to_thread(path.exists):
                await self.export(job, folder, file_format, selection)
        return path

    async def export(
        self, job: Job, folder: JobFolder, file_format: FileFormat, selection: RowSelection
    ) -> None:
        """Writes a result file of what is done. Raises StorageFull or StorageFailed."""
        await self._files.export(await self.order(job, folder, file_format, selection))

    async def order(
        self, job: Job, folder: JobFolder, file_format: FileFormat, selection: RowSelection
    ) -> ExportOrder:
        """Says what of a job's results is to be written how."""
        windows = await asyncio.to_thread(self._store.windows, job.id)
        return ExportOrder(
            folder=folder.path,
            windows=tuple(windows),
            task=job.spec.task.task,
            has_keys=job.spec.columns.key is not None,
            carried=job.spec.columns.carried,
            model=job.spec.model.name,
            file_format=file_format,
            selection=selection,
        )


def _next(chunks: Generator[ResultRows]) -> ResultRows | None:
    return next(chunks, None)


async def in_thread(read: Callable[[], _Value]) -> _Value:
    """Reads in a thread, and returns or raises only when the thread is done.

    A thread cannot be cancelled: when the caller goes away it still reads, and who then closed what it reads
    from would pull it away under it.
    """
    reading = asyncio.ensure_future(asyncio.to_thread(read))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        while not reading.done():
            try:
                await asyncio.wait((reading,))
            except asyncio.CancelledError:
                continue
        if not reading.cancelled():
            reading.exception()
        raise
