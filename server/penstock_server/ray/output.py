"""The folder of a job on Ray: what is in it, and under which names.

    part-00000042.parquet               the rows of one window
    _SUCCESS                            the counts, once all parts are there
    _penstock/job.json                  what the folder is for
    _penstock/window-00000042.arrow     the texts of one window; gone once all parts are there

Readers of Parquet folders skip names that begin with an underscore. Each file appears whole or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.places import Place, deliver, fetch, names_in, read_from, remove
from penstock_server.bulk.spool import Spool
from penstock_server.domain.errors import InvalidRequest

_OWN = "_penstock"
_MANIFEST = "job.json"
_SUCCESS = "_SUCCESS"
_PART_START, _PART_END = "part-", ".parquet"
_WINDOW_START, _WINDOW_END = "window-", ".arrow"
_SUCCEEDED, _FAILED = b"penstock.succeeded", b"penstock.failed"
# A manifest takes six bytes a window; what is larger is none.
_MANIFEST_BYTES_MAX = 1 << 26
# A window's texts are closed at 64 MiB, and one text more.
_WINDOW_BYTES_MAX = 1 << 28
# Requests to a store that only wait: for a footer, or to delete.
_REQUESTS_MAX = 16


class JobManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder is for.

    Attributes:
        spec: Everything that a row's answer depends on, by name.
        windows: Rows of each window.
        window_rows: Most rows that a window was cut to.
        schema: The schema of the parts, serialised by Arrow.
    """

    spec: dict[str, str]
    windows: tuple[int, ...]
    window_rows: int
    schema: bytes

    @property
    def rows(self) -> int:
        """Rows of the job."""
        return sum(self.windows)

    def start_rows(self) -> list[int]:
        """First row of each window."""
        starts = [0]
        for rows in self.windows[:-1]:
            starts.append(starts[-1] + rows)
        return starts

    def arrow_schema(self) -> Any:
        """The schema of the parts."""
        return pa.ipc.read_schema(pa.py_buffer(self.schema))


@dataclass(frozen=True, slots=True)
class PartCounts:
    """What became of the rows of a part."""

    succeeded: int
    failed: int


class Success(msgspec.Struct, frozen=True, kw_only=True):
    """What a job has come to; ``succeeded + failed == total``."""

    total: int
    succeeded: int
    failed: int
    parts: int


class OutputFolder:
    """Reads and writes a job's folder, from any machine; picklable.

    All methods raise PlaceFailed if it cannot be reached, and StorageFull if a local disk has no room.

    Args:
        place: The folder.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._own = place.child(_OWN)

    def manifest(self) -> JobManifest | None:
        """Reads what the folder is for; None if it is new.

        Raises:
            InvalidRequest: The manifest is of another release, or no manifest.
        """
        if _MANIFEST not in names_in(self._own):
            return None
        data = read_from(self._own.child(_MANIFEST), lambda file: file.read(_MANIFEST_BYTES_MAX))
        try:
            return msgspec.json.decode(data, type=JobManifest)
        except msgspec.DecodeError as err:
            raise InvalidRequest(f"{self._own.url}/{_MANIFEST} cannot be read ({err}).") from err

    def write_manifest(self, manifest: JobManifest) -> None:
        """Says what the folder is for; its windows must be there."""
        self._write(_MANIFEST, msgspec.json.encode(manifest), self._own)

    def write_success(self, success: Success) -> None:
        """Says that all parts are there."""
        self._write(_SUCCESS, msgspec.json.encode(success), self.place)

    def take_back_success(self) -> None:
        """Says no longer that all parts are there, if it was said."""
        if _SUCCESS in names_in(self.place):
            remove(self.place.child(_SUCCESS))

    def parts(self) -> frozenset[int]:
        """Windows whose part is there."""
        return _numbers(names_in(self.place), _PART_START, _PART_END)

    def windows(self) -> frozenset[int]:
        """Windows whose texts are there."""
        return _numbers(names_in(self._own), _WINDOW_START, _WINDOW_END)

    def write_windows(self, spool: Spool, cuts: Sequence[tuple[int, int, int]]) -> None:
        """Puts the texts of windows where all nodes can read them.

        Args:
            spool: Has them.
            cuts: For each window: which one of the spool it is of, its first row in that, and its rows.
        """
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(_REQUESTS_MAX) as threads:

            def write(number: int, cut: tuple[int, int, int]) -> None:
                path = Path(scratch) / _window_name(number)
                spool.extract(path, *cut)
                deliver([path], self._own)
                path.unlink()

            list(threads.map(write, range(len(cuts)), cuts))

    def fetch_window(self, number: int, path: Path) -> None:
        """Copies the texts of a window to a local path.

        Raises:
            InvalidRequest: They are not there.
        """
        fetch(self._own.child(_window_name(number)), path, _WINDOW_BYTES_MAX)

    def write_part(self, number: int, batch: Any, counts: PartCounts) -> None:
        """Writes the rows of a window; replaces an earlier part of it."""
        tallies = {_SUCCEEDED: str(counts.succeeded), _FAILED: str(counts.failed)}
        table = pa.table(batch).replace_schema_metadata(tallies)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / _part_name(number)
            pq.write_table(table, path)
            deliver([path], self.place)

    def counts(self, numbers: Sequence[int]) -> list[PartCounts]:
        """Reads what became of the rows of some parts, from the ends of their files."""
        with ThreadPoolExecutor(_REQUESTS_MAX) as threads:
            return list(threads.map(self._counts_of, numbers))

    def remove_windows(self, numbers: Sequence[int]) -> None:
        """Deletes the texts of some windows."""
        with ThreadPoolExecutor(_REQUESTS_MAX) as threads:
            list(threads.map(remove, [self._own.child(_window_name(number)) for number in numbers]))

    def _counts_of(self, number: int) -> PartCounts:
        tallies = read_from(self.place.child(_part_name(number)), _tallies_of)
        return PartCounts(int(tallies[_SUCCEEDED]), int(tallies[_FAILED]))

    def _write(self, name: str, data: bytes, folder: Place) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            path.write_bytes(data)
            deliver([path], folder)


def _window_name(number: int) -> str:
    return f"{_WINDOW_START}{number:08d}{_WINDOW_END}"


def _part_name(number: int) -> str:
    return f"{_PART_START}{number:08d}{_PART_END}"


def _tallies_of(file: BinaryIO) -> dict[bytes, bytes]:
    tallies: dict[bytes, bytes] = pq.read_metadata(file).metadata
    return tallies


def _numbers(names: frozenset[str], start: str, end: str) -> frozenset[int]:
    middles = (
        name.removeprefix(start).removesuffix(end)
        for name in names
        if name.startswith(start) and name.endswith(end)
    )
    return frozenset(int(middle) for middle in middles if middle.isascii() and middle.isdecimal())
