"""A disk that is full, or that fails, for a server's data folder; see ``faults.c``."""

from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path
from typing import Self

import numpy as np

_SOURCE = Path(__file__).with_name("faults.c")
# As in `struct control`.
_ROOM_BYTES, _MAKES_NAMES, _SYNCS_BEFORE, _SYNCS_FAILING, _DROPS_PAGES, _REFUSED, _FAILED = range(7)
_NUMBERS = 7
_NO_END = 1 << 62


class Disk:
    """The disk below a folder, as the server sees it.

    Args:
        folder: The server's data folder, which need not be there yet.
        scratch: For the library and the numbers that it reads; not below ``folder``.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        library, control = scratch / "faults.so", scratch / "faults.control"
        compiler = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*compiler, "-std=gnu11", str(_SOURCE), "-o", str(library), "-ldl"], check=True)
        control.write_bytes(bytes(8 * _NUMBERS))
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._numbers = np.frombuffer(self._map, np.int64)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAULTS_CONTROL": str(control),
            "FAULTS_FOLDER": str(folder.resolve()),
        }
        self.mend()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._numbers = np.empty(0, np.int64)
        self._map.close()

    def fill(self, room_bytes: int = 0, *, makes_names: bool = True) -> None:
        """Lets files grow by so much and no more; without ``makes_names`` none can be made then, either."""
        self._numbers[_MAKES_NAMES] = makes_names
        self._numbers[_ROOM_BYTES] = room_bytes

    def fail_syncs(self, *, after: int = 0, times: int = _NO_END, drops_pages: bool = True) -> None:
        """Fails fsyncs once some have succeeded; they may take with them what was written since the last."""
        self._numbers[_DROPS_PAGES] = drops_pages
        self._numbers[_SYNCS_BEFORE] = after
        self._numbers[_SYNCS_FAILING] = times

    def mend(self) -> None:
        """Makes the disk sound, with all the room there is."""
        self._numbers[_ROOM_BYTES] = -1
        self._numbers[_SYNCS_FAILING] = 0
        # What is written from now on may be dropped by a fsync that fails later.
        self._numbers[_DROPS_PAGES] = 1

    @property
    def refused(self) -> int:
        """Calls that were refused for want of room, up to now."""
        return int(self._numbers[_REFUSED])

    @property
    def failed(self) -> int:
        """Fsyncs that failed, up to now."""
        return int(self._numbers[_FAILED])
