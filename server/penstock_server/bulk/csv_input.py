"""Reads CSV (RFC 4180) with a header line. A bad row fails alone; a quote that never closes fails the job.

Bytes are read as Latin-1, which is one character a byte, so that invalid UTF-8 reaches the check of its own
row and spoils no other.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from penstock_server.bulk.carried import carried_of
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import BadValue, InputRow, checked_key, checked_text
from penstock_server.bulk.unpacked import open_text
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import InputColumns, RowFailure

_BYTES = "latin-1"


class _Lines:
    """Lines of a file, each bounded."""

    def __init__(self, file: BinaryIO, bytes_max: int) -> None:
        self._file = file
        self._bytes_max = bytes_max
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._bytes_max + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > self._bytes_max:
            raise InvalidRequest(
                f"Line {self.number} is longer than {self._bytes_max:,} bytes; is this CSV with a row a line?"
            )
        return line.decode(_BYTES)


def read_csv(path: Path, columns: InputColumns, limits: BulkLimits) -> Iterator[InputRow]:
    """Yields the rows of a CSV file. Blank lines are no rows; keys stay text exactly as written.

    Raises:
        InvalidRequest: No header, no such column, quotes that do not close, or no way to unpack it.
    """
    # The module's own bound is for the whole process; validation runs in one of its own.
    csv.field_size_limit(max(csv.field_size_limit(), limits.line_bytes_max))
    with open_text(path, limits) as file:
        lines = _Lines(file, limits.line_bytes_max)
        reader = csv.reader(lines, strict=True)
        header = _header(reader)
        wanted = _Columns(header, columns)
        while True:
            first_line = lines.number + 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as err:
                yield _broken(first_line, err)
                continue
            if record:
                yield wanted.row(record, first_line, limits)


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        names = next((record for record in reader if record), None)
        if names is None:
            raise InvalidRequest("The CSV file is empty; its first line must name the columns.")
        return [name.encode(_BYTES).decode() for name in names]
    except (csv.Error, UnicodeDecodeError) as err:
        raise InvalidRequest(f"The CSV header cannot be read: {err}. The file must be UTF-8 CSV.") from err


def _broken(line: int, err: csv.Error) -> InputRow:
    problem = str(err)
    if "unexpected end of data" in problem or "field larger than" in problem:
        raise InvalidRequest(
            f"The row that begins on line {line} has a quote that is not closed; mend it and upload again."
        ) from err
    return InputRow(None, failure=RowFailure("BAD_CSV", f"Line {line} is not valid CSV: {problem}."))


class _Columns:
    """Where the chosen columns stand."""

    def __init__(self, header: list[str], columns: InputColumns) -> None:
        self._names = columns
        self._width = len(header)
        self._text = _place(header, columns.text)
        self._pair = _place(header, columns.pair) if columns.pair is not None else None
        self._key = _place(header, columns.key) if columns.key is not None else None
        self._carried = {name: _place(header, name) for name in columns.carried}

    def row(self, record: list[str], line: int, limits: BulkLimits) -> InputRow:
        """Picks and checks the chosen columns of a record."""
        if len(record) != self._width:
            message = f"Line {line} has {len(record)} columns; the header has {self._width}."
            return InputRow(None, failure=RowFailure("BAD_CSV", message))
        key = pair = carried = None
        try:
            if self._key is not None:
                key = checked_key(record[self._key].encode(_BYTES), str(self._names.key), limits)
            values = {name: record[place].encode(_BYTES) for name, place in self._carried.items()}
            carried = carried_of(values, self._names.carried, limits)
            text = checked_text(record[self._text].encode(_BYTES), self._names.text, limits)
            if self._pair is not None:
                pair = checked_text(record[self._pair].encode(_BYTES), str(self._names.pair), limits)
        except BadValue as bad:
            failure = RowFailure(bad.failure.code, f"Line {line}: {bad.failure.message}")
            return InputRow(None, key=key, failure=failure, carried=carried)
        return InputRow(text, pair, key, carried=carried)


def _place(header: list[str], name: str) -> int:
    places = [place for place, column in enumerate(header) if column == name]
    if not places:
        raise InvalidRequest(
            f"There is no column {name!r}. Columns of this input: {', '.join(header)}.", column=name
        )
    if len(places) > 1:
        raise InvalidRequest(
            f"{len(places)} columns are called {name!r}; give each a name of its own.", column=name
        )
    return places[0]
