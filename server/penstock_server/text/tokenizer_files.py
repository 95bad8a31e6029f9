"""Compiled tokenizers beside their models: compiled once, mapped by every process that needs them.

``<model folder>/.penstock/tokenizer-<key>.blob`` holds what ``tokenizer.json`` was compiled to. The key
covers the file, the format and the code that compiled it, so a stale blob is never read, only replaced. A
folder that cannot be written to costs the time to compile at every start, and a copy in each process.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray

from penstock_kernels import _compile, blob_records, serde_floats, spec
from penstock_kernels import blob as blob_format
from penstock_kernels.blob import check_blob, compile_tokenizer
from penstock_server.domain.errors import ModelBroken
from penstock_server.text import (
    tokenizer_json,
    tokenizer_json_models,
    tokenizer_json_parts,
    tokenizer_json_stages,
    tokenizer_json_templates,
)
from penstock_server.text.tokenizer_json import explained, read_spec

CACHE_FOLDER = ".penstock"
_SUFFIX = ".blob"
_KEY_DIGITS = 32
# What a process that was killed left behind is removed after so long; chosen: no compiling takes as long.
_ABANDONED_AFTER_S = 3600.0
# Whatever of these changes may change a blob.
_COMPILER = (
    _compile,
    blob_format,
    blob_records,
    serde_floats,
    spec,
    tokenizer_json,
    tokenizer_json_models,
    tokenizer_json_parts,
    tokenizer_json_stages,
    tokenizer_json_templates,
)

Blob: TypeAlias = NDArray[np.uint8]

_log = structlog.get_logger(__name__)


def load_tokenizer_blob(path: Path) -> Blob:
    """The compiled tokenizer of a ``tokenizer.json``, from its cache if that is there; blocking.

    Any number of threads and processes may load one file at once.

    Args:
        path: The ``tokenizer.json``.

    Returns:
        Read-only bytes at an address that 16 divides, mapped from the cache and shared with other processes
        unless the folder cannot be written to. They live as long as anything refers to them.

    Raises:
        ModelBroken: The file cannot be read, or needs a feature that is not supported (named).
    """
    try:
        content = path.read_bytes()
    except OSError as err:
        raise ModelBroken(f"cannot read {path.name}: {err.strerror}") from err
    cached = path.parent / CACHE_FOLDER / f"{path.stem}-{_key(content)}{_SUFFIX}"
    mapped = _map(cached)
    return _build(content, path, cached) if mapped is None else mapped


def _key(content: bytes) -> str:
    key = hashlib.sha256(hashlib.sha256(content).digest())
    key.update(f"{blob_format.VERSION} ".encode())
    for module in _COMPILER:
        # A module without a source file has been frozen into a program, which is built anew when it changes.
        with contextlib.suppress(OSError):
            key.update(hashlib.sha256(Path(module.__file__ or "").read_bytes()).digest())
    return key.hexdigest()[:_KEY_DIGITS]


def _build(content: bytes, path: Path, cached: Path) -> Blob:
    with explained(path.name):
        compiled = compile_tokenizer(read_spec(content))
    try:
        _write(cached, compiled)
    except OSError as err:
        _log.warning(
            "compiled tokenizer not stored: every start compiles it again, every process holds a copy",
            path=str(cached),
            error=err.strerror,
        )
        return np.frombuffer(compiled, np.uint8)
    mapped = _map(cached)
    return np.frombuffer(compiled, np.uint8) if mapped is None else mapped


def _map(cached: Path) -> Blob | None:
    """The cached blob, or None if there is none that can be used."""
    try:
        with cached.open("rb") as file:
            # Not a memoryview: those complain if they are collected with what still reads them.
            mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        check_blob(mapped.data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as err:  # BlobBroken is a ValueError, and so is an empty file to mmap
        _log.warning("compiled tokenizer unusable: compiling it again", path=str(cached), error=str(err))
        return None
    return mapped


def _write(cached: Path, compiled: bytes) -> None:
    """Writes the blob so that it is there as a whole or not at all, and removes those that it replaces."""
    folder = cached.parent
    folder.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{cached.stem}.", suffix=".tmp", dir=folder)
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(compiled)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        fresh.replace(cached)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    for old in _outdated(cached):
        # Another process may have removed it; those that mapped it keep it.
        with contextlib.suppress(OSError):
            old.unlink()


def _outdated(cached: Path) -> Iterator[Path]:
    """Blobs of the same tokenizer file with another key, and what processes that were killed left behind."""
    stem = re.escape(cached.stem[:-_KEY_DIGITS])
    name = re.compile(rf"{stem}[0-9a-f]{{{_KEY_DIGITS}}}(\{_SUFFIX}|\..*\.tmp)")
    for path in cached.parent.iterdir():
        match = name.fullmatch(path.name)
        if match is None or path == cached:
            continue
        with contextlib.suppress(OSError):
            if match[1] == _SUFFIX or path.stat().st_mtime < time.time() - _ABANDONED_AFTER_S:
                yield path
