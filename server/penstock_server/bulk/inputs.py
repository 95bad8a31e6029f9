"""Reads an input file into a spool. One function, in constant memory, fit to run in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock_server.bulk.csv_input import read_csv
from penstock_server.bulk.jsonl_input import read_jsonl
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.parquet_input import read_parquet
from penstock_server.bulk.rows import InputRow
from penstock_server.bulk.spool import write_spool
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, InputColumns

_READERS = {
    FileFormat.JSONL: read_jsonl,
    FileFormat.CSV: read_csv,
    FileFormat.PARQUET: read_parquet,
}
_FORMATS_BY_SUFFIX = {
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".csv": FileFormat.CSV,
    ".parquet": FileFormat.PARQUET,
}


@dataclass(frozen=True, slots=True)
class InputOrder:
    """What is to be read from where to where; picklable."""

    input_path: Path
    spool_path: Path
    input_format: FileFormat
    columns: InputColumns
    limits: BulkLimits


def format_of_name(file_name: str) -> FileFormat:
    """Tells a file's format by its name.

    Raises:
        InvalidRequest: The ending is not one of those known.
    """
    suffix = Path(file_name).suffix.lower()
    if suffix not in _FORMATS_BY_SUFFIX:
        known = ", ".join(_FORMATS_BY_SUFFIX)
        raise InvalidRequest.of_field(
            "spec.input_format", f"cannot be told from the name {file_name!r} ({known} can); set it"
        )
    return _FORMATS_BY_SUFFIX[suffix]


def materialise(order: InputOrder) -> int:
    """Reads and checks all rows of an input and writes the spool.

    Returns:
        Number of rows, bad ones included.

    Raises:
        InvalidRequest: The input as a whole cannot be used: unreadable, no such column, no rows.
        StorageFull: The disk has no room.
    """
    rows = _READERS[order.input_format](order.input_path, order.columns, order.limits)
    return write_spool(
        order.spool_path, _not_empty(rows), has_pairs=order.columns.pair is not None, limits=order.limits
    )


def _not_empty(rows: Iterator[InputRow]) -> Iterator[InputRow]:
    row = next(rows, None)
    if row is None:
        raise InvalidRequest("The input has no rows; upload a file that has some.")
    yield row
    yield from rows
