"""The data folder belongs to one process at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from penstock_server.domain.errors import InvalidRequest


def lock_folder(folder: Path) -> IO[str]:
    """Makes the data folder and keeps other servers out of it; the lock goes with the file or the process.

    Raises:
        InvalidRequest: The folder cannot be made, or a server uses it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as err:
        raise InvalidRequest(f"Cannot use the data folder {folder}: {err.strerror}.") from err
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        lock.close()
        raise InvalidRequest(
            f"The data folder {folder} is used by another server; stop it, or give another --data."
        ) from err
    return lock
