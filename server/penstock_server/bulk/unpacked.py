"""Opens text files, plain ones and compressed ones, and bounds what the latter unpack to."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from penstock_server.bulk.arrow import pa
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import InvalidRequest

# Neither begins a text: 0x8b is no UTF-8 there, and 0xb5 none after 0x28.
_CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_MAGIC_BYTES = max(map(len, _CODECS))
_BUFFER_BYTES = 1 << 18


def codec_of(path: Path) -> str | None:
    """Tells by its first bytes how a file is compressed: ``gzip``, ``zstd``, or None."""
    with path.open("rb") as file:
        head = file.read(_MAGIC_BYTES)
    return next((codec for magic, codec in _CODECS.items() if head.startswith(magic)), None)


@contextmanager
def open_text(path: Path, limits: BulkLimits) -> Generator[BinaryIO]:
    """Opens a file for reading by lines, after its byte order mark; unpacks it if it is compressed.

    Raises:
        InvalidRequest: While it is read: the compressed file is corrupt or cut short, or unpacks to too much.
    """
    codec = codec_of(path)
    with path.open("rb") if codec is None else _unpacking(path, codec, limits) as file:
        skip_bom(file)
        yield file


@contextmanager
def _unpacking(path: Path, codec: str, limits: BulkLimits) -> Generator[BinaryIO]:
    with pa.OSFile(str(path), "rb") as packed, pa.CompressedInputStream(packed, codec) as stream:
        unpacked = _Unpacked(stream, path.stat().st_size, codec, limits)
        with io.BufferedReader(unpacked, _BUFFER_BYTES) as file:
            yield cast(BinaryIO, file)


def skip_bom(file: Any) -> None:
    """Skips a UTF-8 byte order mark at the beginning of a file."""
    if file.peek(len(_BOM))[: len(_BOM)] == _BOM:
        file.read(len(_BOM))


_BOM = b"\xef\xbb\xbf"


class _Unpacked(io.RawIOBase):
    """What a compressed file holds, in constant memory."""

    def __init__(self, stream: Any, packed_bytes: int, codec: str, limits: BulkLimits) -> None:
        self._stream = stream
        self._codec = codec
        self._bytes = 0
        by_ratio = max(limits.unpacked_ratio_from_bytes, packed_bytes * limits.unpacked_ratio_max)
        self._bytes_max = min(limits.unpacked_bytes_max, by_ratio)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (pa.ArrowException, OSError) as err:
            raise InvalidRequest(
                f"The {self._codec} file cannot be unpacked past byte {self._bytes:,} of what it holds; it "
                f"is corrupt or cut short ({first_line(err)})."
            ) from err
        self._bytes += len(data)
        if self._bytes > self._bytes_max:
            raise InvalidRequest(
                f"The {self._codec} file unpacks to more than {self._bytes_max:,} bytes, which is too much "
                "for its size. Split it, or upload it unpacked."
            )
        buffer[: len(data)] = data
        return len(data)


def first_line(err: Exception) -> str:
    """The first line of an error's message, for a sentence in brackets."""
    return str(err).partition("\n")[0].rstrip(".")
