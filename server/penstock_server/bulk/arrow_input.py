"""Reads Arrow IPC: files, and streams that were written to one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from penstock_server.bulk.arrow import pa
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import InputRow
from penstock_server.bulk.tables import READ_ROWS, check_columns, names_of, rows_of
from penstock_server.bulk.unpacked import first_line
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import InputColumns

_FILE_MAGIC = b"ARROW1"


def read_arrow(path: Path, columns: InputColumns, limits: BulkLimits) -> Iterator[InputRow]:
    """Yields the rows of an Arrow IPC file or stream; in memory is one record batch at a time.

    Raises:
        InvalidRequest: The file cannot be read, lacks a column, or a column has a type that cannot be used.
    """
    # Not mapped into memory: a disk that fails would then end the process instead of the job.
    with pa.OSFile(str(path), "rb") as file:
        row, opened = 0, False
        try:
            with closing(_Batches(file)) as batches:
                opened = True
                check_columns(batches.schema, columns)
                for batch in batches:
                    wanted = batch.select(names_of(columns))
                    for first in range(0, batch.num_rows, READ_ROWS):
                        yield from rows_of(wanted.slice(first, READ_ROWS), row, columns, limits)
                        row += min(READ_ROWS, batch.num_rows - first)
        except (pa.ArrowException, OSError) as err:
            raise InvalidRequest(
                f"The Arrow file cannot be read past row {row:,}; it is corrupt ({first_line(err)})."
                if opened
                else f"The input is not a readable Arrow IPC file; it may be cut short ({first_line(err)})."
            ) from err


class _Batches:
    """Record batches of either form, in order."""

    def __init__(self, file: Any) -> None:
        is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        file.seek(0)
        self._reader: Any = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        self._is_file = is_file

    @property
    def schema(self) -> Any:
        """The schema of all batches."""
        return self._reader.schema

    def __iter__(self) -> Iterator[Any]:
        if not self._is_file:
            yield from self._reader
            return
        for number in range(self._reader.num_record_batches):
            yield self._reader.get_batch(number)

    def close(self) -> None:
        """Frees the reader."""
        self._reader = None
