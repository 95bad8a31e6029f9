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
from pathlib import Path
from typing import Any

import msgspec

from penstock_server.bulk.formats import known_format
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.places import Place, allowed_place, file_system_of, is_allowed, reaching
from penstock_server.domain.errors import InvalidRequest, PlaceFailed

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
    found = _bounded(_Search(file_set, limits), limits)
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
        name: Its name, which tells its format; a link's own, not that of what it leads to.
        url: Where it is.
        version: Differs once it has been changed.
        changed_ns: When it was changed last, in nanoseconds since 1970; 0 where that is not told.
    """

    name: str
    url: str
    version: str
    changed_ns: int


class FoundFiles(msgspec.Struct, frozen=True, array_like=True):
    """What a search has found.

    Attributes:
        files: In the order of their names.
        left_out: How many files there are besides: links that lead out of the roots or nowhere, and names
            that a URL cannot tell.
    """

    files: tuple[FoundFile, ...] = ()
    left_out: int = 0


def find(order: FindOrder) -> FoundFiles:
    """Finds the files of a set that there are.

    Raises:
        InvalidRequest: There are too many.
        PlaceFailed: They cannot be listed.
    """
    search = _Search(order.file_set, order.limits, leaves_out=True)
    present = _bounded(search, order.limits)
    told = [file for file in present if _ANY not in file.place.url and file.place.url.isprintable()]
    files = [FoundFile(_last_name(f.name), f.place.url, f.version, f.changed_ns) for f in told]
    return FoundFiles(tuple(files), search.left_out + len(present) - len(told))


def _bounded(search: _Search, limits: BulkLimits) -> list[InputFile]:
    """The files that a search finds, by name. Raises InvalidRequest if there are too many."""
    found: list[InputFile] = []
    for file in search.files():
        found.append(file)
        if len(found) > limits.input_files_max:
            raise InvalidRequest(
                f"{search.url} names more than {limits.input_files_max:,} files; split the folder or the "
                "pattern."
            )
    return sorted(found, key=lambda file: file.name)


class _Search:
    """A bounded look through folders.

    Attributes:
        url: What is looked for.
        left_out: Files that were left out.

    Args:
        file_set: What is looked for.
        limits: Bounds of it.
        leaves_out: Whether a file that leads out of the roots, or is not there any more, is left out; else it
            ends the search.
    """

    def __init__(self, file_set: FileSet, limits: BulkLimits, *, leaves_out: bool = False) -> None:
        self.url = file_set.url
        self.left_out = 0
        self._leaves_out = leaves_out
        self._set = file_set
        self._limits = limits
        self._names_seen = 0
        self._folders_seen: set[str] = set()

    def files(self) -> Iterator[InputFile]:
        """Yields the files, in no order."""
        found = [InputFile("", self._set.folder, is_folder=True)]
        if not self._set.has_all_below and not any(_ANY in name for name in self._set.patterns):
            # One file, by its name: its folder may be large.
            file = self._named(self._set.patterns[-1])
            if file is not None:
                yield from self._admitted_of(file)
            return
        for level, pattern in enumerate(self._set.patterns, start=1):
            wants_files = level == len(self._set.patterns) and not self._set.has_all_below
            found = [
                admitted
                for folder in found
                for each in self._within(folder)
                if each.is_folder is not wants_files and _matches(_last_name(each.name), pattern)
                for admitted in self._admitted_of(each)
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
                    waiting += self._admitted_of(each)
                elif known_format(name) is not None:
                    yield from self._admitted_of(each)

    def _within(self, folder: InputFile) -> list[InputFile]:
        """What is in a folder, by name."""
        is_local = folder.place.is_local
        within: list[InputFile] = []
        with reaching(folder.place.url):
            try:
                for each in _listed_here(folder) if is_local else _listed_elsewhere(folder):
                    self._names_seen += 1
                    if self._names_seen > self._limits.input_names_max:
                        raise InvalidRequest(
                            f"{self.url} has more than {self._limits.input_names_max:,} names to look at; "
                            "name a folder or a pattern with fewer."
                        )
                    within.append(each)
            except FileNotFoundError:
                # An object store has no folder without objects, which is no fault where they are to come.
                if is_local or not self._leaves_out:
                    raise
        return sorted(within, key=lambda each: each.name)

    def _named(self, name: str) -> InputFile | None:
        """The file of a name; None if it is not there, where that is no fault."""
        place = self._set.folder.child(name)
        if place.is_local:
            path = Path(place.path)
            return None if self._leaves_out and not path.exists() else InputFile(name, place, path.is_dir())
        try:
            with reaching(place.url):
                files, own_name = file_system_of(place.url)
                entry: dict[str, Any] = files.info(own_name)
        except InvalidRequest:
            if not self._leaves_out:
                raise
            return None
        is_folder, size_bytes = entry["type"] == "directory", int(entry.get("size") or 0)
        return InputFile(name, place, is_folder, size_bytes, version=_version_elsewhere(entry))

    def _admitted_of(self, file: InputFile) -> Iterator[InputFile]:
        """A file or folder as `_admitted` does, or nothing where it is to be left out."""
        try:
            yield self._admitted(file)
        except (InvalidRequest, PlaceFailed):
            if not self._leaves_out:
                raise
            self.left_out += not file.is_folder

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
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:
                # A link that leads to itself is no file.
                continue
            if is_folder or is_file:
                # A name may be no UTF-8.
                name = os.fsencode(entry.name).decode(errors="replace")
                yield InputFile(_joined(folder.name, name), folder.place.child(entry.name), is_folder)


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
    """What an object store says of an object's contents: hash, time and size, as far as it does."""
    # A hash alone would not tell that a file was written anew as it had been before.
    return "-".join(str(entry[name]) for name in (*_VERSION_NAMES, "size") if entry.get(name) is not None)


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
