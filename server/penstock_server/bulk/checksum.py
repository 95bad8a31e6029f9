"""CRC32C (Castagnoli), in hardware where there is any."""

from __future__ import annotations

from typing import Any

import google_crc32c

_native: Any = google_crc32c


def crc32c(data: bytes, start: int = 0) -> int:
    """Returns the checksum of bytes, continuing from the checksum of those before them."""
    return int(_native.extend(start, data))
