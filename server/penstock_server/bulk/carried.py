"""Input columns that are carried to the results: a JSON object for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from penstock_server.bulk.arrow import pa
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import BadValue
from penstock_server.domain.errors import InvalidRequest

# What result files call columns of their own.
RESERVED = frozenset({"row", "key", "embedding", "labels", "error", "error_code"})
# A JSON object with all carried columns of a row, in their order; None for a row that could not be read.
Carried: TypeAlias = bytes | None

_encoder = msgspec.json.Encoder(enc_hook=str)
_decoder = msgspec.json.Decoder(dict[str, Any])


def check_carried(names: Sequence[str], limits: BulkLimits) -> None:
    """Checks which columns are to be carried.

    Raises:
        InvalidRequest: Too many, two of one name, or a name that results use themselves.
    """
    field = "spec.carry_columns"
    if len(names) > limits.carried_columns_max:
        raise InvalidRequest.of_field(field, f"must be at most {limits.carried_columns_max}")
    for name in names:
        if not name or name in RESERVED:
            raise InvalidRequest.of_field(
                field, f"{name!r} cannot be carried: results have a column of that name"
            )
    if len(set(names)) < len(names):
        raise InvalidRequest.of_field(field, "must name each column once")


def carried_of(values: Mapping[str, object], names: Sequence[str], limits: BulkLimits) -> Carried:
    """Writes the carried columns of a row; what is missing is null.

    Raises:
        BadValue: A text is not UTF-8, or all together are too large.
    """
    if not names:
        return None
    data = _encoder.encode({name: _plain(values.get(name), name) for name in names})
    if len(data) > limits.carried_bytes_max:
        message = (
            f"the carried columns have {len(data):,} bytes; at most {limits.carried_bytes_max:,} are allowed."
        )
        raise BadValue("CARRIED_TOO_LARGE", message)
    return data


def members_of(carried: Carried, names: Iterable[str]) -> bytes:
    """The members of a row's object, without its braces; nulls for a row that could not be read."""
    return (_encoder.encode(dict.fromkeys(names)) if carried is None else carried)[1:-1]


def values_of(carried: Carried) -> dict[str, Any]:
    """The columns of a row as values of JSON."""
    return {} if carried is None else _decoder.decode(carried)


class CarriedTypes:
    """Which Arrow type each carried column of a job has: that of its values if they are alike, else text."""

    def __init__(self, names: Sequence[str]) -> None:
        self._kinds: dict[str, set[type]] = {name: set() for name in names}

    def see(self, carried: Carried) -> None:
        """Takes a row into account."""
        values: dict[str, object] = values_of(carried)
        for name, value in values.items():
            self._kinds[name].add(type(value))

    def type_of(self, name: str) -> Any:
        """The type of a column."""
        kinds = self._kinds[name] - {type(None)}
        if kinds == {bool}:
            return pa.bool_()
        if kinds == {int}:
            return pa.int64()
        return pa.float64() if kinds and kinds <= {int, float} else pa.string()


def column_of(rows: Sequence[Carried], name: str, kind: Any) -> Any:
    """A carried column of some rows as an Arrow array; where texts are wanted, other values are JSON."""
    values = [values_of(row).get(name) for row in rows]
    if pa.types.is_string(kind):
        values = [
            value if value is None or isinstance(value, str) else _encoder.encode(value).decode()
            for value in values
        ]
    return pa.array(values, type=kind)


def _plain(value: object, name: str) -> object:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as err:
        raise BadValue("INVALID_UTF8", f"{name} is not UTF-8 (byte {err.start}: {err.reason}).") from None
