"""Files that are whole or absent after a crash.

The order is always: write a temporary file, fsync it, rename it, fsync the folder. Only then may a journal
mention the file.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from penstock_server.domain.errors import StorageFull

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def storage_errors() -> Generator[None]:
    """Turns "no space left" into ``StorageFull``."""
    try:
        yield
    except OSError as err:
        if err.errno in _NO_ROOM:
            raise StorageFull("The server's disk is full; delete finished jobs and try again.") from err
        raise


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yields a temporary path; what is written there becomes ``path``, durably, if no error occurs.

    Raises:
        StorageFull: The disk has no room.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with storage_errors():
            yield temporary
            fsync_file(temporary)
            temporary.replace(path)
            fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fsync_file(path: Path) -> None:
    """Makes a file's bytes durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
