"""Has inputs read and result files written outside of the event loop."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Protocol

import structlog

from penstock_server.bulk.delivery import DeliveryOrder
from penstock_server.bulk.export import ExportOrder
from penstock_server.bulk.file_process import FileAnswer, FileOrder, carry_out, encode_order
from penstock_server.bulk.file_sets import FindOrder, FoundFiles
from penstock_server.bulk.inputs import InputOrder
from penstock_server.bulk.retry import RetryOrder
from penstock_server.bulk.unpacked import codec_of
from penstock_server.domain.decoding import decode_json
from penstock_server.domain.errors import (
    InvalidRequest,
    PenstockError,
    PlaceFailed,
    StorageFailed,
    StorageFull,
)
from penstock_server.domain.job import FileFormat

# Up to this size a thread does it: the interpreter is held for a few milliseconds in all, while a process
# takes half a second to start.
_THREAD_BYTES_MAX = 256 * 1024
_THREAD_ROWS_MAX = 1000
_TEXTS = frozenset({FileFormat.CSV, FileFormat.JSONL, FileFormat.OPENAI_BATCH})

_log = structlog.get_logger(__name__)


class FileTasks(Protocol):
    """Reads inputs and writes result files."""

    async def materialise(self, order: InputOrder) -> int:
        """Reads an input into its spool; returns the rows.

        Raises InvalidRequest, StorageFull or StorageFailed.
        """
        ...

    async def retry(self, order: RetryOrder) -> int:
        """Writes a spool of another job's failed rows; returns the rows. Raises as `materialise`."""
        ...

    async def find(self, order: FindOrder) -> FoundFiles:
        """Looks for files. Raises InvalidRequest or PlaceFailed."""
        ...

    async def export(self, order: ExportOrder) -> None:
        """Writes a result file. Raises StorageFull or StorageFailed."""
        ...

    async def deliver(self, order: DeliveryOrder) -> None:
        """Writes results to where a URL says. Raises PlaceFailed, StorageFull or StorageFailed."""
        ...


class FileProcesses:
    """Uses a process for each large file, and threads for small ones. Cancelling a task ends its process."""

    async def materialise(self, order: InputOrder) -> int:
        """Reads an input; always in a process if a native parser or unpacker does it, which may crash."""
        is_text = order.input_format in _TEXTS
        is_here = order.place is None and order.files is None
        if is_text and is_here and _is_small(order.input_path):
            return (await asyncio.to_thread(carry_out, order)).rows
        return (await _in_process(order)).rows

    async def retry(self, order: RetryOrder) -> int:
        """Writes a spool of failed rows."""
        if sum(window.failed for window in order.windows) <= _THREAD_ROWS_MAX:
            return (await asyncio.to_thread(carry_out, order)).rows
        return (await _in_process(order)).rows

    async def find(self, order: FindOrder) -> FoundFiles:
        """Looks for files; in a process, as it may take long, and plug-ins of object stores have threads."""
        return (await _in_process(order)).found

    async def export(self, order: ExportOrder) -> None:
        """Writes a result file."""
        if sum(window.rows for window in order.windows) <= _THREAD_ROWS_MAX:
            await asyncio.to_thread(carry_out, order)
        else:
            await _in_process(order)

    async def deliver(self, order: DeliveryOrder) -> None:
        """Writes results elsewhere; in a process, as plug-ins of object stores are large and have threads."""
        await _in_process(order)


def _is_small(path: Path) -> bool:
    try:
        return path.stat().st_size <= _THREAD_BYTES_MAX and codec_of(path) is None
    except OSError:
        # Whoever reads it says what is wrong.
        return True


async def _in_process(order: FileOrder) -> FileAnswer:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock_server.bulk.file_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(encode_order(order))
        # Standard input stays open: its end tells the process that the server is gone.
        data = await process.stdout.read()
        status = await process.wait()
    except BaseException:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise
    finally:
        process.stdin.close()
    return _answer_of(data, status)


def _answer_of(data: bytes, status: int) -> FileAnswer:
    if status < 0:
        _log.error("file_process_died", signal=-status)
        raise InvalidRequest(
            "The process that reads files died over this one: it is corrupt or needs too much memory."
        )
    if status > 0 or not data:
        _log.error("file_process_failed", status=status)
        raise PenstockError("The file could not be processed; the server's log has the reason.")
    answer = decode_json(data, FileAnswer)
    for kind in (StorageFull, StorageFailed, PlaceFailed):
        if answer.reason == kind.reason:
            raise kind(answer.message)
    if answer.reason:
        raise InvalidRequest(answer.message)
    return answer
