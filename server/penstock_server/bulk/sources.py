"""Which file of an input of several files a row came from: a small file beside the spool."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import msgspec

from penstock_server.bulk.durable import replacing


class Source(msgspec.Struct, frozen=True, array_like=True):
    """A file of an input: its name, and the job's row number of its first row."""

    name: str
    first_row: int


class Sources:
    """The files of an input in order."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._first_rows = [source.first_row for source in sources]

    def of_row(self, row: int) -> str:
        """Says which file a row is from, and its number there from 0."""
        # Of files that begin at the same row all but the last are empty.
        source = self._sources[bisect_right(self._first_rows, row) - 1]
        return f"{source.name}, row {row - source.first_row}"


def write_sources(path: Path, sources: Sequence[Source]) -> None:
    """Writes the files of an input durably. Raises StorageFull."""
    with replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(sources))


def read_sources(path: Path) -> Sources | None:
    """Reads the files of an input; None if it was one file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return Sources(msgspec.json.decode(data, type=list[Source]))
