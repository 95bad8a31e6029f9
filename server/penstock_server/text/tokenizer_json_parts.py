"""Reading sections of ``tokenizer.json`` so that nothing in them is passed over."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from penstock_server.domain.decoding import decode_json

INT32_MAX = 2**31 - 1
NOTHING = msgspec.Raw(b"null")

_Part = TypeVar("_Part", bound=msgspec.Struct)


class Unsupported(ValueError):
    """A feature of tokenizer.json that Penstock does not compute; the text names it."""


class Contradiction(ValueError):
    """Values that do not go together, or cannot be."""


class _TypeOnly(msgspec.Struct, frozen=True):
    type: str | None = None


def is_nothing(section: msgspec.Raw) -> bool:
    """Whether the section is null or left out."""
    return bytes(section) == b"null"


def type_of(section: msgspec.Raw, what: str) -> str | None:
    """The section's ``type``, None if it has none.

    Raises:
        msgspec.ValidationError: It is not a component.
    """
    try:
        return decode_json(section, _TypeOnly).type
    except msgspec.ValidationError as err:
        raise msgspec.ValidationError(f"{what}: {err}") from err


def keys_of(section: msgspec.Raw) -> frozenset[str]:
    """The section's keys."""
    return frozenset(msgspec.json.decode(section, type=dict[str, msgspec.Raw]))


def read(section: msgspec.Raw, kind: type[_Part], what: str) -> _Part:
    """Reads a section of a known component.

    tokenizers ignores keys that it does not know, and with them what the file's author meant; here they are
    errors, so that nothing is different without a word.

    Raises:
        Unsupported: It has a key that the component does not have.
        msgspec.ValidationError: A value is missing or of a wrong type.
    """
    unknown = keys_of(section) - {field.encode_name for field in msgspec.structs.fields(kind)} - {"type"}
    if unknown:
        raise Unsupported(f"{what} with the unknown key {min(unknown)!r}")
    try:
        return decode_json(section, kind)
    except msgspec.ValidationError as err:
        raise msgspec.ValidationError(f"{what}: {err}") from err
