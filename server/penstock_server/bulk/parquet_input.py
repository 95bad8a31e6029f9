"""Reads Parquet, a window at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import BadValue, InputRow, checked_key, checked_text
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import InputColumns, RowFailure

# Rows read at once. Chosen: long texts of 1 MiB then need at most a quarter of a GiB.
_READ_ROWS = 256


def read_parquet(path: Path, columns: InputColumns, limits: BulkLimits) -> Iterator[InputRow]:
    """Yields the rows of a Parquet file.

    Raises:
        InvalidRequest: The file cannot be read, lacks a column, or a column has a type that cannot be used.
    """
    with _open(path) as file:
        _check_columns(file.schema_arrow, columns)
        names = [name for name in (columns.text, columns.pair, columns.key) if name is not None]
        row = 0
        for batch in _batches(file, list(dict.fromkeys(names))):
            values = {name: _values(batch.column(name)) for name in batch.schema.names}
            for index in range(batch.num_rows):
                yield _row_of(row, {name: column[index] for name, column in values.items()}, columns, limits)
                row += 1


def _open(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as err:
        raise InvalidRequest(
            f"The input is not a readable Parquet file; it may be cut short ({_first_line(err)})."
        ) from err


def _batches(file: Any, names: list[str]) -> Iterator[Any]:
    rows = 0
    try:
        for batch in file.iter_batches(batch_size=_READ_ROWS, columns=names, use_threads=False):
            yield batch
            rows += batch.num_rows
    except (pa.ArrowException, OSError) as err:
        raise InvalidRequest(
            f"The Parquet file cannot be read past row {rows:,}; it is corrupt ({_first_line(err)})."
        ) from err


def _first_line(err: Exception) -> str:
    return str(err).partition("\n")[0].rstrip(".")


def _check_columns(schema: Any, columns: InputColumns) -> None:
    for name in (columns.text, columns.pair):
        if name is not None and not _is_text(_type_of(schema, name)):
            raise InvalidRequest(
                f"Column {name!r} is {_type_of(schema, name)}; a text column is needed.", column=name
            )
    if columns.key is not None:
        kind = _type_of(schema, columns.key)
        if not _is_text(kind) and not pa.types.is_integer(kind):
            raise InvalidRequest(
                f"Key column {columns.key!r} is {kind}; a text or whole number column is needed.",
                column=columns.key,
            )


def _type_of(schema: Any, name: str) -> Any:
    places = schema.get_all_field_indices(name)
    if not places:
        raise InvalidRequest(
            f"There is no column {name!r}. Columns of this input: {', '.join(schema.names)}.", column=name
        )
    if len(places) > 1:
        raise InvalidRequest(
            f"{len(places)} columns are called {name!r}; give each a name of its own.", column=name
        )
    kind = schema.field(places[0]).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(is_kind(kind) for is_kind in texts) or pa.types.is_null(kind)


def _values(column: Any) -> list[Any]:
    """Python values of a column; texts as bytes, so that each is checked on its own."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    return list(column.to_pylist())


def _row_of(row: int, values: dict[str, Any], columns: InputColumns, limits: BulkLimits) -> InputRow:
    key = pair = None
    try:
        if columns.key is not None:
            key = checked_key(values[columns.key], columns.key, limits)
        text = checked_text(values[columns.text], columns.text, limits)
        if columns.pair is not None:
            pair = checked_text(values[columns.pair], columns.pair, limits)
    except BadValue as bad:
        failure = RowFailure(bad.failure.code, f"Row {row}: {bad.failure.message}")
        return InputRow(None, key=key, failure=failure)
    return InputRow(text, pair, key)
