"""Time, as the server's parts see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
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


class Timer(Protocol):
    """A call in the future."""

    def cancel(self) -> None:
        """Forgets the call."""


class TimerClock(Clock, Protocol):
    """The server's clock, which can also call back."""

    def call_at(self, when_ns: int, call: Callable[[], None]) -> Timer:
        """Calls back at a time, soon if it has passed."""
        ...


class LoopClock(MonotonicClock):
    """The server's clock with the running event loop's timers."""

    def call_at(self, when_ns: int, call: Callable[[], None]) -> Timer:
        """Calls back at a time, soon if it has passed."""
        delay_s = max(0, when_ns - self.now_ns()) / 1e9
        return asyncio.get_running_loop().call_later(delay_s, call)
