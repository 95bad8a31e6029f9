"""Arithmetic of the comparison: courses of bulk work, what they used of idle time, medians over rounds."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Point:
    """How far bulk work was at a time, in seconds of the monotonic clock."""

    at_s: float
    rows: int
    tokens: int


class Course:
    """The course of bulk work; between two points it is taken as steady, outside of them as the average."""

    def __init__(self, points: Sequence[Point]) -> None:
        if len(points) < 2 or points[-1].tokens == points[0].tokens:
            raise ValueError("The bulk work has not moved: there is nothing to measure")
        self._points = tuple(points)
        self._times = [point.at_s for point in points]
        self._tokens = [point.tokens for point in points]

    @classmethod
    def of(cls, points: Sequence[tuple[float, int, int]]) -> Course:
        """A course out of plain numbers: time, rows, tokens."""
        return cls([Point(*point) for point in points])

    def rows_at(self, at_s: float) -> float:
        """Rows done until a time."""
        return _interpolated(self._times, [point.rows for point in self._points], at_s)

    def tokens_at(self, at_s: float) -> float:
        """Tokens done until a time."""
        return _interpolated(self._times, self._tokens, at_s)

    def time_of(self, tokens: float) -> float:
        """The time at which so many tokens were done."""
        first = bisect_left(self._tokens, tokens)
        if first == len(self._tokens):
            return _interpolated(self._tokens, self._times, tokens)
        below = max(0, first - 1)
        return _between(
            self._tokens[below], self._times[below], self._tokens[first], self._times[first], tokens
        )

    def rates(self, begin_s: float, end_s: float) -> tuple[float, float]:
        """Rows and tokens a second within a stretch of time."""
        elapsed_s = end_s - begin_s
        rows = self.rows_at(end_s) - self.rows_at(begin_s)
        return rows / elapsed_s, (self.tokens_at(end_s) - self.tokens_at(begin_s)) / elapsed_s

    def gap_s(self, begin_s: float, end_s: float) -> float:
        """The longest time between two steps of progress, within a stretch of time."""
        moved = [after.at_s for before, after in pairwise(self._points) if after.tokens > before.tokens]
        times = [begin_s, *(at_s for at_s in moved if begin_s < at_s < end_s), end_s]
        return max(after - before for before, after in pairwise(times))


def _interpolated(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    if not xs[0] <= x <= xs[-1]:
        return _between(xs[0], ys[0], xs[-1], ys[-1], x)
    after = min(bisect_right(xs, x), len(xs) - 1)
    return _between(xs[after - 1], ys[after - 1], xs[after], ys[after], x)


def _between(x0: float, y0: float, x1: float, y1: float, x: float) -> float:
    return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def solo_share(beside: Course, begin_s: float, end_s: float, alone: Course) -> float:
    """Speed of bulk work within a stretch of time, as part of its speed when it is alone.

    The time that the *same* tokens took alone, over the time that they took here. Rows differ in cost, and a
    job over sorted rows does dear ones before cheap ones, so rates of two stretches cannot be compared.
    """
    begin, end = beside.tokens_at(begin_s), beside.tokens_at(end_s)
    return (alone.time_of(end) - alone.time_of(begin)) / (end_s - begin_s)


def live_share(live_cpu_s: float, idle_cpu_s: float, elapsed_s: float, cores: int) -> float:
    """Part of the machine that live work takes.

    Args:
        live_cpu_s: Processor time of server and clients with live calls alone.
        idle_cpu_s: Processor time of the same in as much time without any call.
        elapsed_s: Length of both.
        cores: Of the machine.
    """
    return max(0.0, live_cpu_s - idle_cpu_s) / (elapsed_s * cores)


def harvest(bulk_share: float, live: float) -> float:
    """Part of what live work leaves that bulk work used: 1 is all of it."""
    return bulk_share / (1.0 - live) if live < 1.0 else math.inf


def median(values: Sequence[float | None]) -> float | None:
    """Median of what was measured; None if nothing was."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def ratio(value: float | None, base: float | None) -> float | None:
    """A quotient of measured values; None where one is missing."""
    return None if value is None or not base else value / base


def goodput(answers: Sequence[tuple[float, int]], begin_s: float, end_s: float) -> tuple[float, float]:
    """Good answers and their tokens a second, by the time at which each was there."""
    counted = [tokens for at_s, tokens in answers if begin_s <= at_s < end_s]
    return len(counted) / (end_s - begin_s), sum(counted) / (end_s - begin_s)
