"""How far a running job is: counts that only grow, a recent rate, and news for those who watch."""

from __future__ import annotations

import asyncio
from collections import deque

from penstock_server.domain.job import JobProgress
from penstock_server.runtime.clock import Clock

# The rate is taken over this time, from at most this many samples. Chosen: long enough for batches of very
# different length to even out, short enough to follow the load.
_RATE_WINDOW_NS = 30_000_000_000
_SAMPLES_MAX = 60
# Until it has run for so long, the cost tables tell better how fast a job is than what it has done.
_EXPECTED_NS = 5_000_000_000


class JobTracker:
    """Counts of one running job. Owned by the event loop, so every snapshot is consistent."""

    def __init__(self, progress: JobProgress, clock: Clock) -> None:
        self._total = progress.total
        self._succeeded = progress.succeeded
        self._failed = progress.failed
        self._tokens = progress.tokens
        self._clock = clock
        self._expected_rows_per_s: float | None = None
        self._is_most = False
        self._begun_ns: dict[int, int] = {}
        self._samples: deque[tuple[int, int]] = deque([(clock.now_ns(), progress.done)], _SAMPLES_MAX)

    @property
    def failed(self) -> int:
        """Rows that have failed."""
        return self._failed

    @property
    def pending(self) -> int:
        """Rows that are not done."""
        return self._total - self._succeeded - self._failed

    def begun(self, window: int) -> None:
        """Hears that a window's rows wait to be computed."""
        self._begun_ns[window] = self._clock.now_ns()

    def ended(self, window: int) -> None:
        """Hears that no row of a window is under way any more."""
        self._begun_ns.pop(window, None)

    def expect(self, rows_per_s: float, *, is_most: bool = False) -> None:
        """Hears how fast its rows are done if nothing else is; ``is_most``: no faster in the long run."""
        self._expected_rows_per_s, self._is_most = rows_per_s, is_most

    def add(self, *, succeeded: int = 0, failed: int = 0, tokens: int = 0) -> None:
        """Counts rows that are done."""
        self._succeeded += succeeded
        self._failed += failed
        self._tokens += tokens
        now_ns = self._clock.now_ns()
        if now_ns - self._samples[-1][0] >= _RATE_WINDOW_NS // _SAMPLES_MAX:
            self._samples.append((now_ns, self._succeeded + self._failed))

    def progress(self) -> JobProgress:
        """Takes a snapshot."""
        now_ns = self._clock.now_ns()
        while len(self._samples) > 1 and now_ns - self._samples[0][0] > _RATE_WINDOW_NS:
            self._samples.popleft()
        oldest_s = (now_ns - min(self._begun_ns.values())) / 1e9 if self._begun_ns else None
        progress = JobProgress(
            self._total, self._succeeded, self._failed, self._tokens, oldest_pending_s=oldest_s
        )
        first_ns, first_done = self._samples[0]
        elapsed_ns = now_ns - first_ns
        if elapsed_ns <= 0:
            return progress
        rate = (progress.done - first_done) * 1e9 / elapsed_ns
        expected = self._expected_rows_per_s
        if expected is not None and self._is_most:
            return progress.with_rate(rate, min(rate, expected) if rate else expected)
        return progress.with_rate(rate, expected if elapsed_ns < _EXPECTED_NS else None)


class News:
    """Wakes all who wait for the next change. Owned by the event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def publish(self) -> None:
        """Wakes those who wait now."""
        self._next.set()
        self._next = asyncio.Event()

    def next(self) -> asyncio.Event:
        """The event of the next change; to be fetched before reading what may change."""
        return self._next
