"""Uploads that survive broken connections, and the patience that all resumed streams share."""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from google.protobuf.message import Message

from penstock.errors import DataLossError, InternalError, NotFoundError, PenstockError, UnavailableError
from penstock.exchange import Deadline, Exchange, Local, Pause, Send, ask
from penstock.jobs import Progress, ProgressCallback
from penstock.methods import GET_UPLOAD, UPLOAD
from penstock.v1 import bulk_pb2

CHUNK_BYTES = 1024 * 1024
FAILURES_MAX = 5
# Files from this size on are asked for by their hash before they are sent: a smaller one is sent as fast.
HASHED_BYTES_MIN = CHUNK_BYTES
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0


# CRC32C (Castagnoli) of the bytes so far and the bytes now.
Extend = Callable[[int, bytes], int]


def checksum() -> Extend | None:
    """Returns CRC32C from google-crc32c, or None where it is not installed: checksums are optional."""
    try:
        module = importlib.import_module("google_crc32c")
    except ImportError:
        return None
    return cast(Extend, module.extend)


class Patience:
    """How often and how long a broken stream is tried again; progress restores it.

    Args:
        timeout_s: Longest time for all of it; None is no limit.
    """

    def __init__(self, timeout_s: float | None = None) -> None:
        self._deadline = Deadline(timeout_s)
        self._failures = 0

    def remaining_s(self) -> float | None:
        """Returns the time left in seconds, None for no limit; raises DeadlineExceededError if none is."""
        return self._deadline.remaining_s()

    def progressed(self) -> None:
        """Notes that bytes or rows came through."""
        self._failures = 0

    def delay_s(self, error: PenstockError) -> float:
        """Returns how long to wait before going on after ``error``, in seconds.

        Raises:
            PenstockError: ``error`` itself, if trying again is no use.
        """
        self._failures += 1
        if self._failures >= FAILURES_MAX or not isinstance(error, UnavailableError | DataLossError):
            raise error
        delay_s = error.retry_after_s
        if delay_s is None:
            delay_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** (self._failures - 1))
        if not self._deadline.allows(delay_s):
            raise error
        return delay_s


class PartFile:
    """A file that is written beside its place and moved there when it is whole."""

    def __init__(
        self, path: Path, progress: ProgressCallback | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        # A name of its own, for two downloads to one place must not write into each other.
        self._part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        self._progress = progress
        self._clock = clock
        self._start_s = clock()
        self._written = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self._part.open("xb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if error is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Adds bytes at the end."""
        if self._file is None:
            raise ValueError("write to a PartFile inside its with block")
        self._file.write(data)
        self._written += len(data)
        if self._progress is not None:
            self._progress(Progress.of_bytes("download", self._written, 0, self._clock() - self._start_s))


def upload(
    path: Path,
    upload_id: str,
    progress: ProgressCallback | None,
    clock: Callable[[], float] = time.monotonic,
) -> Exchange[str]:
    """Sends a file and returns the upload's id, going on from the committed bytes when the line breaks.

    The upload is opened by a call of its own, so that its id is known before the first byte is at risk. If
    the server has one of the same bytes, of ``HASHED_BYTES_MIN`` or more, that is it, and none are sent.

    Args:
        path: The file; it must not change meanwhile.
        upload_id: An earlier upload of the same file to go on with; empty opens a new one.
        progress: Told the bytes sent so far.
        clock: Seconds, for the rate.
    """
    source = _Source(path, progress, clock)
    if upload_id:
        state = yield from _get(upload_id)
        _check_same(path, source.size_bytes, state)
    else:
        opening = yield Local(source.opening)
        response = yield Send(UPLOAD, iter([opening]), None)
        state = cast(bulk_pb2.UploadResponse, response).upload
        if state.complete:
            source.tell(state.size_bytes)
    patience = Patience()
    while not state.complete:
        before = state.committed_bytes
        try:
            response = yield Send(UPLOAD, source.messages(state), None)
            state = cast(bulk_pb2.UploadResponse, response).upload
            if not state.complete and state.committed_bytes <= before:
                raise InternalError(f"upload {state.id} stays at {before} of {source.size_bytes} bytes")
        except PenstockError as error:
            yield Pause(patience.delay_s(error))
            state = yield from _state_after(error, state.id, patience)
        if state.committed_bytes > before:
            patience.progressed()
    return state.id


def _get(upload_id: str) -> Exchange[bulk_pb2.Upload]:
    response = yield from ask(GET_UPLOAD, bulk_pb2.GetUploadRequest(upload_id=upload_id), Deadline(None))
    return response.upload


def _state_after(error: PenstockError, upload_id: str, patience: Patience) -> Exchange[bulk_pb2.Upload]:
    while True:
        try:
            return (yield from _get(upload_id))
        except NotFoundError:
            # The server drops an upload that arrived whole but changed; that is what the caller must hear.
            raise error from None
        except UnavailableError as away:
            # What broke the upload, a restart say, may last longer than the first pause.
            yield Pause(patience.delay_s(away))


def _check_same(path: Path, size_bytes: int, state: bulk_pb2.Upload) -> None:
    if state.size_bytes != size_bytes:
        raise ValueError(
            f"{path} has {size_bytes} bytes, but upload {state.id} was opened for {state.size_bytes}; "
            "upload the file anew"
        )


class _Source:
    """The file on its way: opened anew for each attempt, read once for each byte sent."""

    def __init__(self, path: Path, progress: ProgressCallback | None, clock: Callable[[], float]) -> None:
        self.size_bytes = os.stat(path).st_size
        if not self.size_bytes:
            raise ValueError(f"{path} is empty: there is nothing to compute")
        self._path = path
        self._progress = progress
        self._clock = clock
        self._start_s = clock()
        self._extend = checksum()

    def opening(self) -> bulk_pb2.UploadRequest:
        """Builds the message that opens the upload, with the whole file's checksums."""
        crc32c, sha256 = self._checksums()
        header = bulk_pb2.UploadHeader(
            file_name=self._path.name, size_bytes=self.size_bytes, crc32c=crc32c, sha256=sha256
        )
        return bulk_pb2.UploadRequest(header=header)

    def messages(self, state: bulk_pb2.Upload) -> Iterator[Message]:
        """Yields the messages that go on from the committed bytes."""
        yield bulk_pb2.UploadRequest(header=bulk_pb2.UploadHeader(upload_id=state.id))
        offset = state.committed_bytes
        with self._path.open("rb") as file:
            file.seek(offset)
            while data := file.read(CHUNK_BYTES):
                crc = None if self._extend is None else self._extend(0, data)
                chunk = bulk_pb2.UploadChunk(offset=offset, data=data, crc32c=crc)
                yield bulk_pb2.UploadRequest(chunk=chunk)
                offset += len(data)
                self.tell(offset)

    def tell(self, sent_bytes: int) -> None:
        """Tells how far it is."""
        if self._progress is not None:
            elapsed_s = self._clock() - self._start_s
            self._progress(Progress.of_bytes("upload", sent_bytes, self.size_bytes, elapsed_s))

    def _checksums(self) -> tuple[int | None, bytes | None]:
        """Reads the file once; returns its CRC32C and its SHA-256, None for what is not wanted."""
        extend, is_hashed = self._extend, self.size_bytes >= HASHED_BYTES_MIN
        if extend is None and not is_hashed:
            return None, None
        crc, sha256 = 0, hashlib.sha256()
        with self._path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                crc = 0 if extend is None else extend(crc, data)
                if is_hashed:
                    sha256.update(data)
        return None if extend is None else crc, sha256.digest() if is_hashed else None
