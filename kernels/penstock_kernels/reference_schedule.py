"""Plain Python twins of the cost grid and the deadline tree: their specification."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Stands for "no deadline", and for the slack of nothing.
NEVER = 1 << 61
_COST_MAX_NS = 900_000_000_000

ScheduleKey = tuple[int, int, int]


class CostGridView:
    """Predicted upper time of a batch: a table that others own and change in place.

    Args:
        row_points: int32 ``[rows]``, ascending, at least two, at least 1.
        length_points: int32 ``[lengths]``, likewise.
        upper_ns: float64 ``[rows, lengths]``, C-contiguous.

    Raises:
        ValueError: Shapes or points are wrong.
    """

    def __init__(
        self, row_points: NDArray[np.int32], length_points: NDArray[np.int32], upper_ns: NDArray[np.float64]
    ) -> None:
        if len(row_points) < 2 or len(length_points) < 2:
            raise ValueError("a cost grid needs at least two points of rows and two of lengths")
        if upper_ns.shape != (len(row_points), len(length_points)):
            raise ValueError(f"costs must be [{len(row_points)}, {len(length_points)}], not {upper_ns.shape}")
        for points in (row_points, length_points):
            if points[0] < 1 or (np.diff(points) <= 0).any():
                raise ValueError("points of a cost grid must be at least 1 and ascend")
        self._rows: list[int] = row_points.tolist()
        self._lengths: list[int] = length_points.tolist()
        self._upper_ns = upper_ns

    def upper(self, rows: int, padded_length: int) -> int:
        """Bilinear, straight on beyond the last points, constant below the first; rounded up, at least 1."""
        i, along_rows = _locate(self._rows, rows)
        j, along_lengths = _locate(self._lengths, padded_length)
        grid = self._upper_ns
        here, there = float(grid[i, j]), float(grid[i, j + 1])
        shorter = here + (float(grid[i + 1, j]) - here) * along_rows
        longer = there + (float(grid[i + 1, j + 1]) - there) * along_rows
        cost = shorter + (longer - shorter) * along_lengths
        if not cost < _COST_MAX_NS:
            return _COST_MAX_NS
        return math.ceil(max(cost, 1.0))

    def efficient_rows(self, padded_length: int, rows_max: int, efficiency: float) -> int:
        """The fewest rows, a point or ``rows_max``, whose cost a row is within ``efficiency`` of the best."""
        most = max(1, rows_max)
        counts = [*(point for point in self._rows if point < most), most]
        costs = [self.upper(count, padded_length) / count for count in counts]
        best = min(costs)
        return next(
            (n for n, cost in zip(counts[:-1], costs, strict=False) if cost * efficiency <= best), most
        )


def _locate(points: list[int], value: int) -> tuple[int, float]:
    below = min(max(bisect_right(points, value) - 1, 0), len(points) - 2)
    span = float(points[below + 1]) - float(points[below])
    return below, max(0.0, (float(value) - float(points[below])) / span)


class DeadlineTree:
    """A serial schedule in the order of keys (rank, urgency, sequence): costs, due times and slack.

    The slack of an item is its due time less the costs of all items up to and including itself. The native
    twin does every operation in O(log n), this one in O(n).
    """

    def __init__(self) -> None:
        self._keys: list[ScheduleKey] = []
        self._items: dict[ScheduleKey, tuple[int, int]] = {}

    def insert(self, key: ScheduleKey, due_ns: int, cost_ns: int) -> None:
        """Adds an item; raises ValueError if there is one of this key."""
        if key in self._items:
            raise ValueError(f"the schedule has an item {key} already")
        insort(self._keys, key)
        self._items[key] = (due_ns, cost_ns)

    def erase(self, key: ScheduleKey) -> None:
        """Removes an item; raises KeyError if there is none."""
        del self._items[key]
        del self._keys[bisect_left(self._keys, key)]

    def update(self, key: ScheduleKey, due_ns: int, cost_ns: int) -> None:
        """Changes an item; raises KeyError if there is none."""
        self._items[key]
        self._items[key] = (due_ns, cost_ns)

    def item(self, key: ScheduleKey) -> tuple[int, int]:
        """Due time and cost of an item."""
        return self._items[key]

    def total_cost(self) -> int:
        """Sum of all costs."""
        return sum(cost for _, cost in self._items.values())

    def cost_before(self, key: ScheduleKey) -> int:
        """Sum of the costs of all items before ``key``."""
        return sum(self._items[at][1] for at in self._keys[: bisect_left(self._keys, key)])

    def least_slack_between(self, after: ScheduleKey, before: ScheduleKey) -> int:
        """Least slack of the items strictly between the keys; NEVER if there are none."""
        return min((slack for key, slack in self._slacks() if after < key < before), default=NEVER)

    def least_slack_after(self, key: ScheduleKey) -> int:
        """Least slack of the items after ``key``."""
        return min((slack for at, slack in self._slacks() if at > key), default=NEVER)

    def least_slack_before(self, key: ScheduleKey) -> int:
        """Least slack of the items before ``key``."""
        return min((slack for at, slack in self._slacks() if at < key), default=NEVER)

    def keys(self) -> list[ScheduleKey]:
        """All keys, in order."""
        return list(self._keys)

    def _slacks(self) -> Iterator[tuple[ScheduleKey, int]]:
        done_ns = 0
        for key in self._keys:
            due_ns, cost_ns = self._items[key]
            done_ns += cost_ns
            yield key, due_ns - done_ns
