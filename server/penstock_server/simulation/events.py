"""The virtual clock: events in order of time, and of their making among equals."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True, slots=True)
class Timer:
    """An event to come; ``cancel`` makes it none."""

    at_ns: int
    number: int
    action: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Makes sure that nothing happens; idempotent."""
        self.action = None


class EventLoop:
    """Runs actions at their virtual times. Two runs with the same actions are the same."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._heap: list[Timer] = []
        self._made = 0

    def at(self, when_ns: int, action: Callable[[], None]) -> Timer:
        """Has an action happen at a time, or now if that has passed."""
        self._made += 1
        timer = Timer(max(when_ns, self.now_ns), self._made, action)
        heapq.heappush(self._heap, timer)
        return timer

    def run(self, until_ns: int | None = None) -> None:
        """Runs what happens up to and at a time, or all there is; the clock then stands at that time."""
        while self._heap and (until_ns is None or self._heap[0].at_ns <= until_ns):
            timer = heapq.heappop(self._heap)
            if timer.action is not None:
                self.now_ns = timer.at_ns
                timer.action()
        if until_ns is not None:
            self.now_ns = max(self.now_ns, until_ns)
