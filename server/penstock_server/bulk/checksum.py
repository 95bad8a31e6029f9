"""CRC32C (Castagnoli), in hardware where there is any, and SHA-256 of files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import google_crc32c

_native: Any = google_crc32c


def crc32c(data: bytes, start: int = 0) -> int:
    """Returns the checksum of bytes, continuing from the checksum of those before them."""
    return int(_native.extend(start, data))


def sha256_of_file(path: Path) -> bytes:
    """Reads a whole file and returns its SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
