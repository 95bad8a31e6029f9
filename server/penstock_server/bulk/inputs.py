"""Reads an input file into a spool. One function, in constant memory, fit to run in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock_server.bulk.arrow_input import read_arrow
from penstock_server.bulk.csv_input import read_csv
from penstock_server.bulk.jsonl_input import read_jsonl
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.openai_input import read_openai
from penstock_server.bulk.parquet_input import read_parquet
from penstock_server.bulk.places import Place, fetch
from penstock_server.bulk.rows import InputRow
from penstock_server.bulk.spool import write_spool
from penstock_server.bulk.unpacked import COMPRESSED_SUFFIXES
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, InputColumns

_READERS = {
    FileFormat.JSONL: read_jsonl,
    FileFormat.CSV: read_csv,
    FileFormat.PARQUET: read_parquet,
    FileFormat.ARROW: read_arrow,
    FileFormat.OPENAI_BATCH: read_openai,
}
_FORMATS_BY_SUFFIX = {
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".csv": FileFormat.CSV,
    ".parquet": FileFormat.PARQUET,
    ".arrow": FileFormat.ARROW,
    ".feather": FileFormat.ARROW,
    ".arrows": FileFormat.ARROW,
}


@dataclass(frozen=True, slots=True)
class InputOrder:
    """What is to be read from where to where; picklable.

    Attributes:
        input_path: The file; where it is fetched to if it has to be.
        spool_path: Where its rows go.
        input_format: Its format.
        columns: What is read of it.
        limits: Bound it.
        place: Where it is fetched from; None if it is there.
    """

    input_path: Path
    spool_path: Path
    input_format: FileFormat
    columns: InputColumns
    limits: BulkLimits
    place: Place | None = None


def format_of_name(file_name: str) -> FileFormat:
    """Tells a file's format by its name, compressed or not.

    Raises:
        InvalidRequest: The ending is not one of those known.
    """
    path = Path(file_name.lower())
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED_SUFFIXES else path.suffix
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
        PlaceFailed: It cannot be fetched.
        StorageFull: The disk has no room.
        StorageFailed: The disk failed.
    """
    if order.place is not None:
        fetch(order.place, order.input_path, order.limits.upload_bytes_max)
    try:
        return _spool_rows(order)
    except FileNotFoundError as err:
        raise InvalidRequest("The input is not there any more.") from err
    finally:
        if order.place is not None:
            order.input_path.unlink(missing_ok=True)


def _spool_rows(order: InputOrder) -> int:
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
