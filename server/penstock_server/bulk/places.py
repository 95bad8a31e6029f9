"""Files that callers name by URL: below the roots that the operator allows, and nowhere else.

``fsspec`` opens them: local paths, and what its plug-ins know (``s3://`` with s3fs, ``gs://`` with gcsfs).
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from penstock_server.bulk.durable import replacing, storage_errors
from penstock_server.domain.errors import InvalidRequest, PenstockError, PlaceFailed

_FILE = "file"
_TENANT = "{tenant}"
_BLOCK_BYTES = 1 << 20

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Place:
    """A URL taken apart: scheme, bucket or nothing, and an absolute path without detours."""

    scheme: str
    bucket: str
    path: str

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return self.scheme == _FILE

    @property
    def url(self) -> str:
        """The URL put together again."""
        return self.path if self.is_local else f"{self.scheme}://{self.bucket}{self.path}"

    def child(self, name: str) -> Place:
        """What has a name in this folder."""
        return replace(self, path=f"{self.path.rstrip('/')}/{name}")


def place_of(url: str) -> Place:
    """Takes a URL or an absolute path apart.

    Raises:
        ValueError: It is neither, or has detours; the message says what is wrong.
    """
    if "://" not in url:
        url = f"{_FILE}://{url}"
    split = urlsplit(url)
    path = url.partition("://")[2][len(split.netloc) :]
    if split.scheme == _FILE and split.netloc:
        raise ValueError("a local path must be absolute")
    if not path.startswith("/") or (split.scheme != _FILE and not split.netloc):
        raise ValueError("it must have a bucket and a path")
    if ".." in path.split("/") or "\0" in path:
        raise ValueError("it must not have detours")
    # Credentials and options would travel in it, and be told to whoever reads the job.
    if "@" in split.netloc or "::" in url or split.query or split.fragment:
        raise ValueError("it must be a plain URL")
    return Place(split.scheme.lower(), split.netloc, posixpath.normpath(path))


def allowed_place(
    url: str, roots: Sequence[str], tenant: str, field: str, *, is_folder: bool = False
) -> Place:
    """Takes a URL apart that a caller has named.

    Args:
        url: It.
        roots: URLs or paths below which it must be; ``{tenant}`` in one stands for the tenant.
        tenant: Who names it.
        field: The field, for the message.
        is_folder: Whether what is in it is meant, so that it may be a root itself.

    Returns:
        The place; of a local one the path that links lead to, so that what was looked at is what is opened.

    Raises:
        InvalidRequest: It is none, or below none of the roots.
    """
    try:
        place = place_of(url)
        if place.is_local:
            place = replace(place, path=os.path.realpath(place.path))
    except ValueError as err:
        raise InvalidRequest.of_field(field, f"{err}, such as s3://bucket/folder/file.jsonl") from err
    if not is_allowed(place.child("file") if is_folder else place, roots, tenant):
        told = (
            "is below none of the places that this server allows"
            if roots
            else "is not allowed by this server"
        )
        raise InvalidRequest.of_field(field, f"{told} (bulk.input_roots and bulk.output_roots)")
    return place


def is_allowed(place: Place, roots: Sequence[str], tenant: str) -> bool:
    """Whether a place, of which links are followed already, is below one of the roots."""
    return any(_is_below(place, root, tenant) for root in roots)


def _is_below(place: Place, root: str, tenant: str) -> bool:
    if _TENANT in root:
        # A name with a slash would lead into somebody else's folder.
        if not tenant or "/" in tenant or tenant in (".", ".."):
            return False
        root = root.replace(_TENANT, tenant)
    found = place_of(root)
    if (place.scheme, place.bucket) != (found.scheme, found.bucket):
        return False
    if not place.is_local:
        return place.path.startswith(found.path.rstrip("/") + "/")
    return place.path.startswith(os.path.realpath(found.path).rstrip("/") + "/")


def fetch(place: Place, path: Path, bytes_max: int) -> None:
    """Copies a file that is not local to a path, durably.

    Raises:
        InvalidRequest: There is no such file, or it is larger than allowed.
        PlaceFailed: It cannot be reached or read.
        StorageFull: The disk has no room.
        StorageFailed: The disk failed.
    """
    with reaching(place.url), replacing(path) as temporary, _opened(place) as source:
        size_bytes = 0
        with temporary.open("wb") as sink:
            while data := _block_of(source, place):
                size_bytes += len(data)
                if size_bytes > bytes_max:
                    raise InvalidRequest(f"{place.url} is larger than {bytes_max:,} bytes; split it.")
                sink.write(data)


def deliver(paths: Sequence[Path], folder: Place) -> None:
    """Copies files into a folder, replacing earlier ones; a reader never sees half of one.

    Raises:
        PlaceFailed: The folder cannot be reached or written.
        StorageFull: It is local, and the disk has no room.
        StorageFailed: It is local, and the disk failed.
    """
    for path in paths:
        target = f"{folder.url.rstrip('/')}/{path.name}"
        try:
            with reaching(target):
                if folder.is_local:
                    Path(folder.path).mkdir(parents=True, exist_ok=True)
                    with storage_errors(), replacing(Path(target)) as temporary:
                        shutil.copyfile(path, temporary)
                    continue
                files, name = file_system_of(target)
                # Object stores show a file when it is whole.
                files.put_file(str(path), name)
        except InvalidRequest as err:
            # Somebody can make the bucket, and nothing that is computed is to be lost.
            raise PlaceFailed(err.message) from err


def _block_of(source: BinaryIO, place: Place) -> bytes:
    # What the other side answers may look like an error of our own disk.
    with reaching(place.url):
        return source.read(_BLOCK_BYTES)


def read_from(place: Place, read: Callable[[BinaryIO], _Found]) -> _Found:
    """Has a function read a file, at any position.

    Raises:
        InvalidRequest: There is no such file.
        PlaceFailed: It cannot be reached or read.
    """
    with reaching(place.url), _opened(place) as file:
        return read(file)


def version_of(place: Place) -> str:
    """Tells a file from an earlier one of its name: by size and time, or as its store does.

    Raises:
        InvalidRequest: There is no such file.
        PlaceFailed: It cannot be reached.
    """
    with reaching(place.url):
        files, name = file_system_of(place.url)
        if place.is_local:
            return f"{files.size(name)} bytes of {files.modified(name).isoformat()}"
        return str(files.ukey(name))


def names_in(folder: Place) -> frozenset[str]:
    """Names of the files and folders in a folder; none where there is no such folder.

    Raises:
        PlaceFailed: It cannot be reached.
    """
    with reaching(folder.url):
        files, name = file_system_of(folder.url)
        # Plug-ins keep listings, and other machines write here.
        files.invalidate_cache()
        try:
            found: list[str] = files.ls(name, detail=False)
        except FileNotFoundError:
            return frozenset()
        return frozenset(posixpath.basename(path.rstrip("/")) for path in found)


def remove(place: Place) -> None:
    """Deletes a file that is there.

    Raises:
        InvalidRequest: It is not.
        PlaceFailed: It cannot be reached, or not deleted.
    """
    with reaching(place.url):
        files, name = file_system_of(place.url)
        files.rm_file(name)


@contextmanager
def _opened(place: Place) -> Generator[BinaryIO]:
    files, name = file_system_of(place.url)
    with files.open(name, "rb") as file:
        yield file


def file_system_of(url: str) -> tuple[Any, str]:
    """The file system of a URL, and what it calls the place."""
    # Imported late: only file processes need it, and its plug-ins are heavy.
    core: Any = import_module("fsspec.core")
    found: tuple[Any, str] = core.url_to_fs(url)
    return found


@contextmanager
def reaching(url: str) -> Generator[None]:
    """Turns whatever a plug-in raises into errors of ours."""
    try:
        yield
    except FileNotFoundError as err:
        raise InvalidRequest(f"There is nothing at {url}.") from err
    except (PenstockError, MemoryError):
        raise
    except ImportError as err:
        raise PlaceFailed(f"{url} needs a package that this server does not have: {err}") from err
    except Exception as err:
        told = str(err).partition("\n")[0][:200]
        raise PlaceFailed(f"{url} cannot be reached: {type(err).__name__}: {told}") from err
