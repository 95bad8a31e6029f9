"""JSON into types, safely from any thread."""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec

_T = TypeVar("_T")

# msgspec (0.22.0) builds what it knows of a class when that is first used, and a second thread that uses the
# class meanwhile finds it half built, which ends the process. Models are loaded side by side, so it happens.
_BUILDING = threading.Lock()


def decode_json(data: bytes | msgspec.Raw, kind: type[_T]) -> _T:
    """Decodes JSON.

    Raises:
        msgspec.DecodeError: It is no JSON, or not of this type.
    """
    with _BUILDING:
        decoder = msgspec.json.Decoder(kind)
    return decoder.decode(data)
