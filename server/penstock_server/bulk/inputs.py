"""Reads an input file into a spool. One function, in constant memory, fit to run in a process of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from penstock_server.bulk.arrow_input import read_arrow
from penstock_server.bulk.csv_input import read_csv
from penstock_server.bulk.file_sets import FileSet, InputFile, files_of, shown
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.formats import format_of_name
from penstock_server.bulk.jsonl_input import read_jsonl
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.openai_input import read_openai
from penstock_server.bulk.parquet_input import read_parquet
from penstock_server.bulk.places import Place, fetch
from penstock_server.bulk.rows import InputRow
from penstock_server.bulk.sources import Source, write_sources
from penstock_server.bulk.spool import write_spool
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, InputColumns, RowFailure

_READERS = {
    FileFormat.JSONL: read_jsonl,
    FileFormat.CSV: read_csv,
    FileFormat.PARQUET: read_parquet,
    FileFormat.ARROW: read_arrow,
    FileFormat.OPENAI_BATCH: read_openai,
}


@dataclass(frozen=True, slots=True)
class InputOrder:
    """What is to be read from where to where; picklable.

    Attributes:
        input_path: The file; where it is fetched to if it has to be.
        spool_path: Where its rows go.
        input_format: Its format; None: that of each file of ``files`` by its name.
        columns: What is read of it.
        limits: Bound it.
        place: Where it is fetched from; None if it is there.
        files: The files if there are several, which are read one after the other; None if there is one.
    """

    input_path: Path
    spool_path: Path
    input_format: FileFormat | None
    columns: InputColumns
    limits: BulkLimits
    place: Place | None = None
    files: FileSet | None = None

    @property
    def sources_path(self) -> Path:
        """Where is written which row is from which of several files."""
        return JobFolder(self.spool_path.parent).sources_path


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
    found = _rows_of_file(order) if order.files is None else _rows_of_files(order, order.files)
    has_pairs = order.columns.pair is not None
    # Closed also after an error elsewhere, so that nothing that was fetched stays.
    with closing(_not_empty(found)) as rows:
        return write_spool(order.spool_path, rows, has_pairs=has_pairs, limits=order.limits)


def _rows_of_file(order: InputOrder) -> Iterator[InputRow]:
    assert order.input_format is not None
    with _here(order, order.place) as path:
        yield from _READERS[order.input_format](path, order.columns, order.limits)


def _rows_of_files(order: InputOrder, file_set: FileSet) -> Iterator[InputRow]:
    """Yields the rows of one file after the other; what is wrong with one names it."""
    sources: list[Source] = []
    row = 0
    for file in files_of(file_set, order.limits):
        name = shown(file.name)
        sources.append(Source(name, row))
        try:
            for each in _rows_of_one(order, file):
                row += 1
                yield each if each.failure is None else each._replace(failure=_named(each.failure, name))
        except InvalidRequest as err:
            raise InvalidRequest(f"{name}: {err.message}", (), **err.metadata) from err
    # Before the spool is in place, which says that the input has been read.
    write_sources(order.sources_path, sources)


def _rows_of_one(order: InputOrder, file: InputFile) -> Iterator[InputRow]:
    input_format = order.input_format or format_of_name(file.name)
    if file.place.is_local:
        order = replace(order, input_path=Path(file.place.path))
    with _here(order, None if file.place.is_local else file.place) as path:
        yield from _READERS[input_format](path, order.columns, order.limits)


@contextmanager
def _here(order: InputOrder, place: Place | None) -> Generator[Path]:
    """Has an input file on this machine while it is read."""
    if place is not None:
        fetch(place, order.input_path, order.limits.upload_bytes_max)
    try:
        yield order.input_path
    except FileNotFoundError as err:
        raise InvalidRequest("The input is not there any more.") from err
    finally:
        if place is not None:
            order.input_path.unlink(missing_ok=True)


def _named(failure: RowFailure, name: str) -> RowFailure:
    return replace(failure, message=f"{name}: {failure.message}")


def _not_empty(rows: Iterator[InputRow]) -> Generator[InputRow]:
    row = next(rows, None)
    if row is None:
        raise InvalidRequest("The input has no rows; upload a file that has some.")
    yield row
    yield from rows
