"""Records what arrives, so that it can be replayed by ``penstock simulate``: times and lengths, no texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import msgspec
import structlog

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.trace import ClassName, TraceRecord
from penstock_server.domain.work import Work

# Bytes and nanoseconds after which lines are handed to the thread that writes them.
_HAND_OVER_BYTES = 64 << 10
_HAND_OVER_NS = 1_000_000_000
# Bytes that may wait for a slow disk; what comes meanwhile is left out.
_PENDING_BYTES_MAX = 8 << 20
# Tenants and jobs that get a number of their own; what comes after shares one.
_NAMES_MAX = 10_000
_CLASS_NAMES: dict[RequestClass, ClassName] = {
    RequestClass.LIVE_CRITICAL: "LIVE_CRITICAL",
    RequestClass.LIVE: "LIVE",
    RequestClass.FLEX: "FLEX",
    RequestClass.BULK: "BULK",
}

_log = structlog.get_logger(__name__)


class TraceWriter:
    """Appends a line for each submission to a file. Owned by the event loop; a thread writes.

    Tenants and jobs get numbers in the order in which they appear.

    Args:
        path: The file; where there is one already, a number is put into the name.
        bytes_max: The file is not made larger than this; what comes later is not recorded.

    Raises:
        InvalidRequest: The file cannot be made.
    """

    def __init__(self, path: Path, bytes_max: int) -> None:
        self.path, self._file = _create(path)
        self._bytes_max = bytes_max
        self._encoder = msgspec.json.Encoder()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trace")
        self._tenants: dict[str, str] = {}
        self._flows: dict[str, str] = {}
        self._lines: list[bytes] = []
        self._begin_ns: int | None = None
        self._handed_over_ns = 0
        self._waiting_bytes = 0
        self._total_bytes = 0
        # The first is the event loop's, the second the thread's; what lies between waits to be written.
        self._handed_bytes = 0
        self._written_bytes = 0
        self._is_open = True
        self.left_out = 0

    def record(self, work: Work, overload: OverloadPolicy) -> None:
        """Records a submission as it was asked for; a few microseconds, and one more for each ten rows."""
        if not self._is_open:
            return
        if self._handed_bytes - self._written_bytes > _PENDING_BYTES_MAX:
            self.left_out += 1
            return
        line = self._encoder.encode(self._record_of(work, overload)) + b"\n"
        if self._total_bytes + len(line) > self._bytes_max:
            _log.warning("trace_full", path=str(self.path), bytes_max=self._bytes_max)
            self.close()
            return
        self._total_bytes += len(line)
        self._waiting_bytes += len(line)
        self._lines.append(line)
        is_due = work.arrival_ns - self._handed_over_ns >= _HAND_OVER_NS
        if is_due or self._waiting_bytes >= _HAND_OVER_BYTES:
            self._handed_over_ns = work.arrival_ns
            self._hand_over()

    def close(self) -> None:
        """Has what is recorded written and records no more; idempotent, waits for nothing."""
        if self._is_open:
            self._is_open = False
            self._hand_over()
            self._executor.submit(self._file.close)
            self._executor.shutdown(wait=False)
            if self.left_out:
                _log.warning("trace_has_gaps", path=str(self.path), left_out=self.left_out)

    def _record_of(self, work: Work, overload: OverloadPolicy) -> TraceRecord:
        if self._begin_ns is None:
            self._begin_ns = work.arrival_ns
        deadline_ns = work.deadline_ns
        is_job = work.request_class is RequestClass.BULK
        return TraceRecord(
            # Requests that took longer to tokenise than the first one may have come before it.
            arrival_ns=max(0, work.arrival_ns - self._begin_ns),
            class_name=_CLASS_NAMES[work.request_class],
            tokens=work.tokens.lengths[work.rows].tolist(),
            tenant=_number(self._tenants, work.tenant, "t"),
            flow=_number(self._flows, work.flow, "j") if is_job else "",
            deadline_ns=None if deadline_ns is None else max(0, deadline_ns - self._begin_ns),
            overload=overload.value,
        )

    def _hand_over(self) -> None:
        data = b"".join(self._lines)
        self._lines.clear()
        self._waiting_bytes = 0
        self._handed_bytes += len(data)
        self._executor.submit(self._write, data)

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as err:
            if self._is_open:
                _log.error("trace_not_written", path=str(self.path), error=err.strerror)
        self._written_bytes += len(data)


def _create(path: Path) -> tuple[Path, IO[bytes]]:
    """Makes a new file at a path, or beside it where that is taken."""
    number = 0
    while True:
        chosen = path if not number else path.with_stem(f"{path.stem}-{number}")
        try:
            return chosen, chosen.open("xb")
        except FileExistsError:
            number += 1
        except OSError as err:
            raise InvalidRequest(f"Cannot record a trace to {chosen}: {err.strerror}.") from err


def _number(names: dict[str, str], name: str, prefix: str) -> str:
    if name in names:
        return names[name]
    if not name or len(names) >= _NAMES_MAX:
        return ""
    names[name] = f"{prefix}{len(names) + 1}"
    return names[name]
