"""Reads JSON lines: one object a line. A bad line is one failed row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from penstock_server.bulk.carried import carried_of
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import BadValue, InputRow, checked_key, checked_text
from penstock_server.bulk.unpacked import open_text
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import InputColumns, RowFailure

_FIELDS_SHOWN_MAX = 50


class _Fields:
    """Names of the fields that were seen, for the error that tells them."""

    def __init__(self, columns: InputColumns) -> None:
        self.text_column = columns.text
        self.carried_missing = set(columns.carried)
        self.found_any = False
        self.found_text = False
        self.names: dict[str, None] = {}

    def see(self, record: dict[str, Any]) -> None:
        self.found_any = True
        self.found_text = self.found_text or self.text_column in record
        if self.carried_missing:
            self.carried_missing.difference_update(record)
        if not self.found_text and len(self.names) < _FIELDS_SHOWN_MAX:
            self.names.update(dict.fromkeys(record))

    def check(self) -> None:
        """Refuses an input in which no line has the text field, or one that is to be carried."""
        if self.names and not self.found_text:
            known = ", ".join(list(self.names)[:_FIELDS_SHOWN_MAX])
            raise InvalidRequest(f"No line has a field {self.text_column!r}. Fields of this input: {known}.")
        if self.carried_missing and self.found_any:
            raise InvalidRequest(
                f"No line has a field {min(self.carried_missing)!r}, which is to be carried."
            )


def read_jsonl(path: Path, columns: InputColumns, limits: BulkLimits) -> Iterator[InputRow]:
    """Yields the rows of a JSONL file. Blank lines are no rows.

    Raises:
        InvalidRequest: Objects were found, but none has the text field; or it cannot be unpacked.
    """
    fields = _Fields(columns)
    for number, found in read_objects(path, limits):
        if isinstance(found, RowFailure):
            yield InputRow(None, failure=found)
        else:
            fields.see(found)
            yield _row_of(number, found, columns, limits)
    fields.check()


def read_objects(path: Path, limits: BulkLimits) -> Iterator[tuple[int, dict[str, Any] | RowFailure]]:
    """Yields the objects of a file of JSON lines with their lines' numbers, or why a line holds none."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    with open_text(path, limits) as file:
        for number, line in enumerate(_lines(file, limits.line_bytes_max), start=1):
            if line is None:
                message = f"Line {number} is longer than {limits.line_bytes_max:,} bytes."
                yield number, RowFailure("LINE_TOO_LONG", message)
            elif line.strip():
                yield number, _object_of(number, line, decoder)


def _lines(file: BinaryIO, bytes_max: int) -> Iterator[bytes | None]:
    """Yields lines; None for one that is too long, without ever holding it."""
    while line := file.readline(bytes_max + 1):
        if len(line) <= bytes_max or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(bytes_max + 1)
        yield None


def _object_of(
    number: int, line: bytes, decoder: msgspec.json.Decoder[dict[str, Any]]
) -> dict[str, Any] | RowFailure:
    try:
        return decoder.decode(line)
    except UnicodeDecodeError:
        return RowFailure("INVALID_UTF8", f"Line {number} is not UTF-8.")
    except msgspec.ValidationError as err:
        return RowFailure("BAD_JSON", f"Line {number} is not a JSON object: {err}.")
    except (msgspec.DecodeError, RecursionError) as err:
        return RowFailure("BAD_JSON", f"Line {number} is not valid JSON: {err}.")


def _row_of(number: int, record: dict[str, Any], columns: InputColumns, limits: BulkLimits) -> InputRow:
    key = carried = None
    try:
        if columns.key is not None:
            key = checked_key(record.get(columns.key), columns.key, limits)
        carried = carried_of(record, columns.carried, limits)
        text = _text(record, columns.text, limits)
        pair = _text(record, columns.pair, limits) if columns.pair is not None else None
    except BadValue as bad:
        failure = RowFailure(bad.failure.code, f"Line {number}: {bad.failure.message}")
        return InputRow(None, key=key, failure=failure, carried=carried)
    return InputRow(text, pair, key, carried=carried)


def _text(record: dict[str, Any], name: str, limits: BulkLimits) -> bytes:
    if name not in record:
        raise BadValue("MISSING_FIELD", f"there is no field {name!r}.")
    return checked_text(record[name], name, limits)
