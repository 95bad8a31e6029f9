"""Inputs of several files: all files below a folder, or those whose names match a pattern.

A URL that ends in a slash names a folder, of which all files with a known ending are read, those of folders
within it included. ``*`` in a URL stands for any part of one name, so ``day=*/part-*.parquet`` looks at two
levels. Names that begin with a dot or an underscore are left out, as those of files that are being written,
unless the pattern begins so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from penstock_server.bulk.formats import known_format
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.places import Place, allowed_place, file_system_of, is_allowed, reaching
from penstock_server.domain.errors import InvalidRequest

_ANY = "*"
_HIDDEN = (".", "_")
# What plug-ins of fsspec call an object's hash or its time: s3fs, gcsfs, adlfs, others.
_VERSION_NAMES = ("ETag", "etag", "md5Hash", "LastModified", "updated", "mtime")
# Longest name that is shown; the end of a longer one tells more than its beginning.
_NAME_CHARS_MAX = 255


@dataclass(frozen=True, slots=True)
class FileSet:
    """The files that a URL names together; picklable.

    Attributes:
        url: As the caller wrote it.
        folder: Where they are looked for; allowed, and links to it are followed.
        patterns: What the names below it must match, one a level.
        has_all_below: Whether all files below what matches are meant, not those that match.
        tenant: Whose they are.
    """

    url: str
    folder: Place
    patterns: tuple[str, ...]
    has_all_below: bool
    tenant: str


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a set.

    Attributes:
        name: Its path below the set's folder, fit to be shown.
        place: Where it is; of a local one the path that links lead to.
        is_folder: Whether it is a folder, on the way to files.
        size_bytes: Its size.
        changed_ns: When it was changed last, in nanoseconds since 1970; 0 where that is not told.
        version: Differs once it has been changed.
    """

    name: str
    place: Place
    is_folder: bool
    size_bytes: int = 0
    changed_ns: int = 0
    version: str = ""


def names_many(url: str) -> bool:
    """Whether a URL names a folder or a pattern, not one file."""
    return url.endswith("/") or _ANY in url


def allowed_files(url: str, roots: Sequence[str], tenant: str, field: str) -> FileSet:
    """Takes a URL apart that names a folder, a pattern, or one file.

    Args:
        url: It.
        roots: As for `allowed_place`; what is before the first ``*`` must be below one of them, or be one.
        tenant: Who names it.
        field: The field, for the message.

    Raises:
        InvalidRequest: It is none, or below none of the roots.
    """
    fixed = url[: url.rfind("/", 0, url.index(_ANY) if _ANY in url else len(url)) + 1]
    folder = allowed_place(fixed, roots, tenant, field, is_folder=True)
    patterns = tuple(name for name in url[len(fixed) :].split("/") if name)
    return FileSet(url, folder, patterns, url.endswith("/"), tenant)


def files_of(file_set: FileSet, limits: BulkLimits) -> list[InputFile]:
    """Finds the files of a set, in the order of their names.

    Raises:
        InvalidRequest: There are none, or too many, or they are too large, or one leads out of the roots.
        PlaceFailed: They cannot be listed.
    """
    found = present_files(file_set, limits)
    if not found:
        kind = " with a known ending" if file_set.has_all_below else ""
        raise InvalidRequest(f"There is no file{kind} at {file_set.url}.")
    size_bytes = sum(file.size_bytes for file in found)
    if size_bytes > limits.input_files_bytes_max:
        raise InvalidRequest(
            f"The {len(found):,} files of {file_set.url} have {size_bytes:,} bytes; at most "
            f"{limits.input_files_bytes_max:,} are read. Make several jobs."
        )
    return found


@dataclass(frozen=True, slots=True)
class FindOrder:
    """Which files are looked for; picklable.

    Attributes:
        file_set: The set.
        limits: Bounds the search.
    """

    file_set: FileSet
    limits: BulkLimits


class FoundFile(msgspec.Struct, frozen=True, array_like=True):
    """A file of a set as it is, told by another process.

    Attributes:
        url: Where it is.
        version: Differs once it has been changed.
        changed_ns: When it was changed last, in nanoseconds since 1970; 0 where that is not told.
    """

    url: str
    version: str
    changed_ns: int


def find(order: FindOrder) -> list[FoundFile]:
    """Finds the files of a set that there are, but those whose names cannot be told in a URL.

    Raises:
        InvalidRequest: There are too many, or one leads out of the roots.
        PlaceFailed: They cannot be listed.
    """
    return [
        FoundFile(file.place.url, file.version, file.changed_ns)
        for file in present_files(order.file_set, order.limits)
        if _ANY not in file.place.url and file.place.url.isprintable()
    ]


def present_files(file_set: FileSet, limits: BulkLimits) -> list[InputFile]:
    """Finds the files of a set that there are, of whatever size, in the order of their names.

    Raises:
        InvalidRequest: There are too many, or one leads out of the roots.
        PlaceFailed: They cannot be listed.
    """
    found: list[InputFile] = []
    for file in _Search(file_set, limits).files():
        found.append(file)
        if len(found) > limits.input_files_max:
            raise InvalidRequest(
                f"{file_set.url} names more than {limits.input_files_max:,} files; split the folder or the "
                "pattern."
            )
    return sorted(found, key=lambda file: file.name)


class _Search:
    """A bounded look through folders."""

    def __init__(self, file_set: FileSet, limits: BulkLimits) -> None:
        self._set = file_set
        self._limits = limits
        self._names_seen = 0
        self._folders_seen: set[str] = set()

    def files(self) -> Iterator[InputFile]:
        """Yields the files, in no order."""
        found = [InputFile("", self._set.folder, is_folder=True)]
        for level, pattern in enumerate(self._set.patterns, start=1):
            wants_files = level == len(self._set.patterns) and not self._set.has_all_below
            found = [
                self._admitted(each)
                for folder in found
                for each in self._within(folder)
                if each.is_folder is not wants_files and _matches(_last_name(each.name), pattern)
            ]
        if self._set.has_all_below:
            yield from self._below(found)
        else:
            yield from found

    def _below(self, folders: list[InputFile]) -> Iterator[InputFile]:
        waiting = list(folders)
        while waiting:
            folder = waiting.pop()
            # Links may lead in a circle.
            if folder.place.url in self._folders_seen:
                continue
            self._folders_seen.add(folder.place.url)
            for each in self._within(folder):
                name = _last_name(each.name)
                if name.startswith(_HIDDEN):
                    continue
                if each.is_folder:
                    waiting.append(self._admitted(each))
                elif known_format(name) is not None:
                    yield self._admitted(each)

    def _within(self, folder: InputFile) -> list[InputFile]:
        """What is in a folder, by name."""
        is_local = folder.place.is_local
        with reaching(folder.place.url):
            listed = _listed_here(folder) if is_local else _listed_elsewhere(folder)
            within: list[InputFile] = []
            for each in listed:
                self._names_seen += 1
                if self._names_seen > self._limits.input_names_max:
                    raise InvalidRequest(
                        f"{self._set.url} has more than {self._limits.input_names_max:,} names to look at; "
                        "name a folder or a pattern with fewer."
                    )
                within.append(each)
        return sorted(within, key=lambda each: each.name)

    def _admitted(self, file: InputFile) -> InputFile:
        """A file or folder with its links followed and its size."""
        if not file.place.is_local:
            return file
        real = os.path.realpath(file.place.path)
        place = replace(file.place, path=real)
        probe = place.child("file") if file.is_folder else place
        if not is_allowed(probe, self._limits.input_roots, self._set.tenant):
            raise InvalidRequest(
                f"{shown(file.name)} at {self._set.url} leads out of the places that this server allows."
            )
        with reaching(file.place.url):
            status = os.stat(real)
        changed_ns, size_bytes = status.st_mtime_ns, status.st_size
        version = f"{changed_ns}-{size_bytes}"
        return replace(file, place=place, size_bytes=size_bytes, changed_ns=changed_ns, version=version)


def _listed_here(folder: InputFile) -> Iterator[InputFile]:
    try:
        entries = os.scandir(folder.place.path)
    except NotADirectoryError:
        return
    with entries:
        for entry in entries:
            if entry.is_dir() or entry.is_file():
                # A name may be no UTF-8.
                name = os.fsencode(entry.name).decode(errors="replace")
                place = folder.place.child(entry.name)
                yield InputFile(_joined(folder.name, name), place, entry.is_dir())


def _listed_elsewhere(folder: InputFile) -> Iterator[InputFile]:
    files, own_name = file_system_of(folder.place.url)
    listed: list[dict[str, Any]] = files.ls(own_name, detail=True)
    for entry in listed:
        path = str(entry["name"]).strip("/")
        name = path.rpartition("/")[2]
        # Object stores may have a file that stands for the folder, and names that no file system has.
        if path == own_name.strip("/") or name in ("", ".", ".."):
            continue
        is_folder = entry["type"] == "directory"
        size_bytes = int(entry.get("size") or 0)
        place = folder.place.child(name)
        version = _version_elsewhere(entry)
        yield InputFile(_joined(folder.name, name), place, is_folder, size_bytes, version=version)


def _version_elsewhere(entry: dict[str, Any]) -> str:
    """What an object store says of an object's contents: a hash or when it was written, and its size."""
    told = next((entry[name] for name in _VERSION_NAMES if entry.get(name)), "")
    return f"{told}-{entry.get('size')}"


def shown(name: str) -> str:
    """A file's name as messages have it."""
    return name if len(name) <= _NAME_CHARS_MAX else f"\u2026{name[1 - _NAME_CHARS_MAX :]}"


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _last_name(name: str) -> str:
    return name.rpartition("/")[2]


def _matches(name: str, pattern: str) -> bool:
    """Whether a name is what a pattern says, in linear time."""
    if name.startswith(_HIDDEN) and not pattern.startswith(name[0]):
        return False
    first, *rest = pattern.split(_ANY)
    if not rest:
        return name == first
    *middle, last = rest
    end = len(name) - len(last)
    if not (name.startswith(first) and name.endswith(last) and len(first) <= end):
        return False
    place = len(first)
    for part in middle:
        found = name.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True
