"""One row of an input, and the checks that each text and key must pass."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.job import RowFailure

Key: TypeAlias = str | int | None
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


class InputRow(NamedTuple):
    """A row as the spool keeps it.

    Attributes:
        text: The text as UTF-8; None if the row is bad.
        pair: The second text; None if the row is bad or there are no pairs.
        key: The key; None without one.
        failure: Why the row is bad; None if it is not.
        carried: A JSON object with the further columns; None without any, or if they could not be read.
    """

    text: bytes | None
    pair: bytes | None = None
    key: Key = None
    failure: RowFailure | None = None
    carried: bytes | None = None


class BadValue(Exception):
    """A value that makes its row fail."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.failure = RowFailure(code, message)


def checked_text(value: object, name: str, limits: BulkLimits) -> bytes:
    """Returns a text as UTF-8 bytes.

    Args:
        value: str, bytes, or anything else, which is an error.
        name: The column, for the message.
        limits: Bounds the size.

    Raises:
        BadValue: It is null, empty, not a text, not UTF-8 or too large.
    """
    if value is None:
        raise BadValue("EMPTY_TEXT", f"{name} is null; every row needs a text.")
    if isinstance(value, str):
        try:
            data = value.encode()
        except UnicodeEncodeError:
            raise BadValue("INVALID_UTF8", f"{name} holds half of a surrogate pair.") from None
    elif isinstance(value, bytes):
        data = value
        _decoded(value, name)
    else:
        raise BadValue("NOT_TEXT", f"{name} is a {_type_name(value)}, not a text.")
    if not data:
        raise BadValue("EMPTY_TEXT", f"{name} is empty; every row needs a text.")
    if len(data) > limits.text_bytes_max:
        raise BadValue(
            "TEXT_TOO_LARGE",
            f"{name} has {len(data):,} bytes; at most {limits.text_bytes_max:,} are allowed.",
        )
    return data


def checked_key(value: object, name: str, limits: BulkLimits) -> Key:
    """Returns a key as text or whole number, as it came; null stays None.

    Raises:
        BadValue: It is of another type, not UTF-8 or too large.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        value = _decoded(value, name)
    if isinstance(value, str):
        if len(_encoded(value, name)) > limits.key_bytes_max:
            raise BadValue("BAD_KEY", f"{name} is longer than {limits.key_bytes_max:,} bytes.")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if not _INT64_MIN <= value <= _INT64_MAX:
            raise BadValue("BAD_KEY", f"{name} does not fit into 64 bits; write it as text.")
        return value
    raise BadValue("BAD_KEY", f"{name} is a {_type_name(value)}; a key must be a text or a whole number.")


def _encoded(value: str, name: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise BadValue("INVALID_UTF8", f"{name} holds half of a surrogate pair.") from None


def _decoded(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as err:
        raise BadValue("INVALID_UTF8", f"{name} is not UTF-8 (byte {err.start}: {err.reason}).") from None


def _type_name(value: object) -> str:
    names: dict[type, str] = {bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)
