"""Columns of Arrow tables as rows of an input: what Parquet and Arrow files have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock_server.bulk.arrow import pa
from penstock_server.bulk.carried import carried_of
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import BadValue, InputRow, checked_key, checked_text
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import InputColumns, RowFailure

# Rows made at once. Chosen: long texts of 1 MiB then need at most a quarter of a GiB.
READ_ROWS = 256
_CARRIED = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_decimal,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_timestamp,
)


def names_of(columns: InputColumns) -> list[str]:
    """The columns that are read, each once."""
    names = (columns.text, columns.pair, columns.key, *columns.carried)
    return list(dict.fromkeys(name for name in names if name is not None))


def check_columns(schema: Any, columns: InputColumns) -> None:
    """Checks that a schema has the columns, of types that can be used.

    Raises:
        InvalidRequest: It has not; the message names the column.
    """
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
    for name in columns.carried:
        kind = _type_of(schema, name)
        if not _is_text(kind) and not any(is_kind(kind) for is_kind in _CARRIED):
            raise InvalidRequest(
                f"Column {name!r} is {kind}; texts, numbers, booleans, dates and times can be carried.",
                column=name,
            )


def rows_of(batch: Any, first_row: int, columns: InputColumns, limits: BulkLimits) -> Iterator[InputRow]:
    """Yields the rows of a record batch that has the columns.

    Args:
        batch: The batch; at most ``READ_ROWS`` rows, or memory is not bounded.
        first_row: Number of its first row in the input, for messages.
        columns: What is read of it.
        limits: Bound texts and keys.

    Raises:
        pyarrow.ArrowException: The batch is corrupt.
    """
    values = {name: _values(batch.column(name)) for name in batch.schema.names}
    for index in range(batch.num_rows):
        row = {name: column[index] for name, column in values.items()}
        yield _row_of(first_row + index, row, columns, limits)


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
        column = column.view(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.view(pa.large_binary())
    elif pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        # Python's times have microseconds.
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    # What a file says of lengths and places is not to be believed.
    column.validate(full=True)
    return list(column.to_pylist())


def _row_of(row: int, values: dict[str, Any], columns: InputColumns, limits: BulkLimits) -> InputRow:
    key = pair = carried = None
    try:
        if columns.key is not None:
            key = checked_key(values[columns.key], columns.key, limits)
        carried = carried_of(values, columns.carried, limits)
        text = checked_text(values[columns.text], columns.text, limits)
        if columns.pair is not None:
            pair = checked_text(values[columns.pair], columns.pair, limits)
    except BadValue as bad:
        failure = RowFailure(bad.failure.code, f"Row {row}: {bad.failure.message}")
        return InputRow(None, key=key, failure=failure, carried=carried)
    return InputRow(text, pair, key, carried=carried)
