"""Reads JSON lines: one object a line. A bad line is one failed row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import BadValue, InputRow, checked_key, checked_text
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import InputColumns, RowFailure

_BOM = b"\xef\xbb\xbf"
_FIELDS_SHOWN_MAX = 50


class _Fields:
    """Names of the fields that were seen, for the error that tells them."""

    def __init__(self, text_column: str) -> None:
        self.text_column = text_column
        self.found_text = False
        self.names: dict[str, None] = {}

    def see(self, record: dict[str, Any]) -> None:
        self.found_text = self.found_text or self.text_column in record
        if not self.found_text and len(self.names) < _FIELDS_SHOWN_MAX:
            self.names.update(dict.fromkeys(record))

    def check(self) -> None:
        """Refuses an input in which no line has the text field."""
        if self.names and not self.found_text:
            known = ", ".join(list(self.names)[:_FIELDS_SHOWN_MAX])
            raise InvalidRequest(f"No line has a field {self.text_column!r}. Fields of this input: {known}.")


def read_jsonl(path: Path, columns: InputColumns, limits: BulkLimits) -> Iterator[InputRow]:
    """Yields the rows of a JSONL file. Blank lines are no rows.

    Raises:
        InvalidRequest: Objects were found, but none has the text field.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    fields = _Fields(columns.text)
    with path.open("rb") as file:
        if file.read(len(_BOM)) != _BOM:
            file.seek(0)
        for number, line in enumerate(_lines(file, limits.line_bytes_max), start=1):
            if line is None:
                message = f"Line {number} is longer than {limits.line_bytes_max:,} bytes."
                yield InputRow(None, failure=RowFailure("LINE_TOO_LONG", message))
            elif line.strip():
                yield _row_of(number, line, decoder, fields, columns, limits)
    fields.check()


def _lines(file: BinaryIO, bytes_max: int) -> Iterator[bytes | None]:
    """Yields lines; None for one that is too long, without ever holding it."""
    while line := file.readline(bytes_max + 1):
        if len(line) <= bytes_max or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(bytes_max + 1)
        yield None


def _row_of(
    number: int,
    line: bytes,
    decoder: msgspec.json.Decoder[dict[str, Any]],
    fields: _Fields,
    columns: InputColumns,
    limits: BulkLimits,
) -> InputRow:
    try:
        record = decoder.decode(line)
    except UnicodeDecodeError:
        return InputRow(None, failure=RowFailure("INVALID_UTF8", f"Line {number} is not UTF-8."))
    except msgspec.ValidationError as err:
        return InputRow(None, failure=RowFailure("BAD_JSON", f"Line {number} is not a JSON object: {err}."))
    except (msgspec.DecodeError, RecursionError) as err:
        return InputRow(None, failure=RowFailure("BAD_JSON", f"Line {number} is not valid JSON: {err}."))
    fields.see(record)
    key = None
    try:
        if columns.key is not None:
            key = checked_key(record.get(columns.key), columns.key, limits)
        text = _text(record, columns.text, limits)
        pair = _text(record, columns.pair, limits) if columns.pair is not None else None
    except BadValue as bad:
        failure = RowFailure(bad.failure.code, f"Line {number}: {bad.failure.message}")
        return InputRow(None, key=key, failure=failure)
    return InputRow(text, pair, key)


def _text(record: dict[str, Any], name: str, limits: BulkLimits) -> bytes:
    if name not in record:
        raise BadValue("MISSING_FIELD", f"there is no field {name!r}.")
    return checked_text(record[name], name, limits)
