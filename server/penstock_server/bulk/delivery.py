"""Delivers results to a folder that a caller has named: in files of so many rows, and last a manifest.

Each file is written in the job's folder, copied whole and deleted, so that there is one of them beside the
job's own at a time. The manifest, ``_SUCCESS``, names them all: who finds it finds them whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import msgspec

from penstock_server.bulk.durable import storage_errors
from penstock_server.bulk.export import ExportOrder, ResultWriter
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.places import Place, deliver
from penstock_server.bulk.results import ResultRows, read_results
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, JobProgress, JobSpec, JobState, RowSelection

MANIFEST_NAME = "_SUCCESS"


@dataclass(frozen=True, slots=True)
class DeliveryOrder:
    """Which results of a job are to be written where; picklable.

    Attributes:
        exports: What to write, one for each selection of rows.
        rows_per_file: Most rows of a file; 0: all in one.
        folder: Where the files go.
        state: The state in which the job ends.
        progress: Its counts.
    """

    exports: tuple[ExportOrder, ...]
    rows_per_file: int
    folder: Place
    state: JobState
    progress: JobProgress


class DeliveredFile(msgspec.Struct, frozen=True):
    """One file as the manifest has it: its rows are those that succeeded, or those that failed."""

    name: str
    selection: str
    rows: int
    bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """What is said of a delivery that is whole."""

    job_id: str
    state: str
    total: int
    succeeded: int
    failed: int
    pending: int
    format: str
    files: list[DeliveredFile]


def check_file_count(spec: JobSpec, rows: int, files_max: int) -> None:
    """Refuses a delivery in more files than allowed, before anything is computed.

    Raises:
        InvalidRequest: It would be; the message says how many rows a file must have.
    """
    if spec.output_rows_per_file and _files(rows, spec.output_rows_per_file) > files_max:
        raise InvalidRequest.of_field(
            "spec.output_rows_per_file",
            f"makes more than {files_max:,} files of {rows:,} rows; give "
            f"at least {_files(rows, files_max):,}",
        )


def deliver_results(order: DeliveryOrder) -> None:
    """Writes the files, then the manifest; a second time replaces them.

    Raises:
        PlaceFailed: The folder cannot be reached or written.
        StorageFull: The disk has no room.
    """
    folder = JobFolder(order.exports[0].folder)
    # What a crash left there.
    shutil.rmtree(folder.delivery_path, ignore_errors=True)
    folder.delivery_path.mkdir()
    try:
        files = [file for export in order.exports for file in _delivered(export, order, folder)]
        manifest = folder.delivery_path / MANIFEST_NAME
        with storage_errors():
            manifest.write_bytes(msgspec.json.format(msgspec.json.encode(_manifest(order, folder, files))))
        deliver([manifest], order.folder)
    finally:
        shutil.rmtree(folder.delivery_path, ignore_errors=True)


def _delivered(export: ExportOrder, order: DeliveryOrder, folder: JobFolder) -> Iterator[DeliveredFile]:
    """Writes and delivers the files of one selection, of which there is one at least."""
    is_failed = export.selection is RowSelection.FAILED
    rows_left = sum(window.failed if is_failed else window.succeeded for window in export.windows)
    rows_max = order.rows_per_file or max(rows_left, 1)
    whole = folder.result_path(export.file_format, export.selection)
    if not order.rows_per_file and whole.name == _name(export) and whole.exists():
        deliver([whole], order.folder)
        yield DeliveredFile(whole.name, export.selection.value, rows_left, whole.stat().st_size)
        return
    count = max(1, _files(rows_left, rows_max))
    writer = ResultWriter(export)
    found = read_results(folder, export.windows, has_ended=True, selection=export.selection)
    with closing(found):
        rows = _Rows(found)
        for number in range(count):
            part = f"-{number:05d}-of-{count:05d}" if order.rows_per_file else ""
            path = folder.delivery_path / _name(export, part)
            with storage_errors():
                writer.write(path, rows.take(rows_max))
            deliver([path], order.folder)
            rows_now = min(rows_left, rows_max)
            rows_left -= rows_now
            yield DeliveredFile(path.name, export.selection.value, rows_now, path.stat().st_size)
            path.unlink()


class _Rows:
    """Result rows, handed out some at a time."""

    def __init__(self, rows: Iterator[ResultRows]) -> None:
        self._rows = rows
        self._rest: ResultRows | None = None

    def take(self, count: int) -> Iterator[ResultRows]:
        """Yields the next rows, so many at most."""
        while count and (chunk := self._rest or next(self._rows, None)) is not None:
            now, rest = chunk.indices[:count], chunk.indices[count:]
            self._rest = chunk.some(rest) if len(rest) else None
            count -= len(now)
            yield chunk.some(now)


def _manifest(order: DeliveryOrder, folder: JobFolder, files: list[DeliveredFile]) -> Manifest:
    return Manifest(
        job_id=folder.path.name,
        state=order.state.name,
        total=order.progress.total,
        succeeded=order.progress.succeeded,
        failed=order.progress.failed,
        pending=order.progress.pending,
        format=order.exports[0].file_format.value,
        files=files,
    )


def _name(export: ExportOrder, part: str = "") -> str:
    """Name of a file, or of a part of it."""
    stem = JobFolder(export.folder).result_path(export.file_format, export.selection).stem
    suffix = FileFormat.JSONL if export.file_format is FileFormat.OPENAI_BATCH else export.file_format
    return f"{stem}{part}.{suffix.value}"


def _files(rows: int, rows_per_file: int) -> int:
    return -(-rows // rows_per_file)
