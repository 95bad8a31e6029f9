"""Files that are whole or absent after a crash.

The order is always: write a temporary file, fsync it, rename it, fsync the folder. Only then may a journal
mention the file.

A failed fsync is final for what it was to save: the kernel may have dropped the bytes and marked their pages
clean, so that the next fsync of the same file succeeds without them
(https://wiki.postgresql.org/wiki/Fsync_Errors). So nothing is fsynced twice: it is thrown away and made anew.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from penstock_server.domain.errors import StorageFailed, StorageFull

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a disk, or a file system that no longer trusts it, answers. Others are defects of ours.
_DISK_FAILED = frozenset({errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EUCLEAN})
TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def storage_errors() -> Generator[None]:
    """Turns "no space left" into ``StorageFull``, and what a failing disk answers into ``StorageFailed``."""
    try:
        yield
    except OSError as err:
        if err.errno in _NO_ROOM:
            raise no_room() from err
        if err.errno in _DISK_FAILED:
            raise disk_failed(os.strerror(err.errno)) from err
        raise


def no_room() -> StorageFull:
    """The error for a full disk."""
    return StorageFull("The server's disk is full; delete finished jobs, or make room, and try again.")


def disk_failed(why: str) -> StorageFailed:
    """The error for a disk that does not save what it is given; ``why`` is what it said."""
    return StorageFailed(
        f"The server's disk failed ({why}), and what it was given does not count. Try again; "
        "if it fails again, the server's operator must look at the disk."
    )


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yields a temporary path; what is written there becomes ``path``, durably, if no error occurs.

    Raises:
        StorageFull: The disk has no room.
        StorageFailed: The disk failed; the next attempt begins with a new temporary file.
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


def make_folder(path: Path) -> None:
    """Makes a folder, durably; no effect if it is there.

    Raises:
        StorageFull: The disk has no room.
        StorageFailed: The disk failed; the folder is not there then.
    """
    if path.is_dir():
        return
    with storage_errors():
        path.mkdir(parents=True)
        try:
            fsync_folder(path.parent)
        except BaseException:
            # A name that is found here later would be taken for a durable one.
            path.rmdir()
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
