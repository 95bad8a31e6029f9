"""Time, as the server's parts see it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in nanoseconds."""

    def now_ns(self) -> int:
        """The time."""
        ...


class MonotonicClock:
    """The system's monotonic clock; the same in all processes of a machine."""

    def now_ns(self) -> int:
        """The time."""
        return time.monotonic_ns()
