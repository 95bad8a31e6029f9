"""How a cost table learns from batches: one observation in a few microseconds, in constant memory.

An observation is a surprise: the logarithm of actual over predicted median. Three things learn from it.

- **Drift**, a factor for the whole table: the median of the last surprises. A machine that becomes slower or
  faster is believed once more than half of them say so; a stall is one of them.
- **Cells**: the surprise that drift leaves over moves the four cells around the batch, the more the less is
  known of them, and their unknown neighbours with them. It is bounded, so that a cell tracks a median.
- **Spread**, by how much the upper cost exceeds the median: it grows by a step with each excess and shrinks
  by one of the right size otherwise (stochastic approximation of a quantile; Robbins and Monro 1951). A
  surprise is judged when it leaves the window, so that what turned out to be drift is not taken for spread.

Both tables stay monotone along both axes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

# Surprises that decide on drift. Chosen: a change is believed after eight batches, and seven stalls in a row
# are not one; the noise of a median of 15 is a third of a single batch's.
WINDOW = 15
# A shift of the whole table above this is followed at once, a smaller one in tenths: two percent is noise.
_DRIFT_AT_ONCE = 0.05
_DRIFT_SHARE = 0.1
# From this many observations on, what a cell's surprises say is how far batches scatter.
_KNOWN = 3.0
# How far a known cell goes with a surprise, and what a surprise counts at most there. An unknown cell goes
# all the way, up to a factor of 1.65: the prior is not further off once it is scaled, a stall is.
_GAIN_MIN = 0.03
_BOUND = 0.05
_BOUND_UNKNOWN = 0.45
# Neighbours within this many octaves share what is learnt.
_REACH_OCTAVES = 1.5
# The quantile that the upper cost tracks. A tracked quantile is missed half of the time by a little: to be
# exceeded by at most one batch in a hundred, it has to aim higher.
UPPER_QUANTILE = 0.995
# Growth of the spread with each excess: five excesses double it.
_SPREAD_STEP = 0.15
_SPREAD_INITIAL = 0.25
# The upper cost never comes closer to the median than clocks and caches let a batch repeat itself.
_SPREAD_MIN = 0.03
# A machine that stalls more often than the quantile allows would raise the spread without end, and pessimism
# costs goodput as well: stalls beyond twice the median are left to luck.
_SPREAD_MAX = 1.0
# An unknown cell's upper cost allows for this error of its median.
_UNKNOWN_EXTRA = 0.4
# What an earlier process knew counts as this many observations: true in shape, perhaps not today.
_SEEN_RESTORED_MAX = 10.0

# A grid point, and the way from there to the next.
Place = tuple[int, float]
Corners = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class TableState:
    """A table as it outlives its process; lists of rows of numbers.

    Attributes:
        row_points: Grid points of rows.
        length_points: Grid points of lengths.
        median_ns: Median costs.
        spread: Relative excess of the upper cost over the median.
        seen: Observations of each cell.
    """

    row_points: list[int]
    length_points: list[int]
    median_ns: list[list[float]]
    spread: list[list[float]]
    seen: list[list[float]]


@dataclass(slots=True)
class _Surprise:
    """A surprise in the window, relative to the table as it is now."""

    value: float
    cell: int
    is_known: bool


class TableLearner:
    """Changes a table's arrays in place, batch by batch.

    Args:
        row_points: Grid points of rows.
        length_points: Grid points of lengths.
        median_ns: float64 ``[R, L]``, C-contiguous, positive and monotone.
        upper_ns: float64 ``[R, L]``, C-contiguous; overwritten.
    """

    def __init__(
        self,
        row_points: tuple[int, ...],
        length_points: tuple[int, ...],
        median_ns: Table,
        upper_ns: Table,
    ) -> None:
        self._row_points, self._length_points = row_points, length_points
        self._median_ns, self._upper_ns = median_ns, upper_ns
        self._nearness = nearness(row_points, length_points)
        self._spread = np.full(median_ns.shape, _SPREAD_INITIAL)
        # How much of a surprise a cell believes: 1 / (1 + its observations).
        self._openness = np.ones(median_ns.shape)
        self._scratch = np.empty(median_ns.shape)
        # Flat views: reading and writing single elements through them takes a fraction of an array's time.
        self._spreads = flat(self._spread)
        self._open = flat(self._openness)
        self._steps = flat(self._scratch)
        self._window: deque[_Surprise] = deque()
        self.observations = 0
        self.drift = 1.0
        self._lift_upper()

    def observe(self, row: Place, column: Place, surprise: float) -> None:
        """Learns from one batch.

        Args:
            row: The grid point below the batch's rows, and the way to the next.
            column: Likewise for its length.
            surprise: Logarithm of actual over predicted median.
        """
        self.observations += 1
        corners = self._corners(row, column)
        is_known = self._seen(corners) >= _KNOWN
        shift = self._follow_drift(_Surprise(surprise, nearest(corners), is_known))
        self._move_cells(corners, surprise - shift)
        self._see(corners, 1.0)
        self._judge_oldest()
        self._lift_upper()

    def scale(self, factor: float) -> None:
        """Makes the whole table dearer, or cheaper, by a factor that a sweep has measured."""
        self._median_ns *= factor
        self._trust()
        self._lift_upper()

    def settle(self, row: Place, column: Place, surprise: float, worth: float) -> None:
        """Moves a place of the table to what a sweep has measured.

        Args:
            row: As in `observe`.
            column: As in `observe`.
            surprise: As in `observe`, of a median.
            worth: Observations that the median stands for.
        """
        corners = self._corners(row, column)
        self._move_cells(corners, surprise)
        self._see(corners, worth)
        self._lift_upper()

    def state(self) -> TableState:
        """What a later process needs to go on from here."""
        seen = 1.0 / self._openness - 1.0
        return TableState(
            list(self._row_points),
            list(self._length_points),
            self._median_ns.tolist(),
            self._spread.tolist(),
            np.minimum(seen, _SEEN_RESTORED_MAX).tolist(),
        )

    def restore(self, state: TableState) -> bool:
        """Goes on from an earlier process's state; changes nothing and returns False if it does not fit."""
        if (tuple(state.row_points), tuple(state.length_points)) != (self._row_points, self._length_points):
            return False
        try:
            medians, spread, seen = (
                np.array(rows, np.float64) for rows in (state.median_ns, state.spread, state.seen)
            )
        except ValueError:
            return False
        if not _is_plausible(self._median_ns.shape, medians, spread, seen):
            return False
        self._median_ns[:] = medians
        self._spread[:] = np.clip(spread, _SPREAD_MIN, _SPREAD_MAX)
        self._openness[:] = 1.0 / (1.0 + np.minimum(seen, _SEEN_RESTORED_MAX))
        make_monotone(self._median_ns)
        self._trust()
        self._lift_upper()
        return True

    def _corners(self, row: Place, column: Place) -> Corners:
        """The cells around a batch, by flat index, with weights that add up to 1."""
        x, y = min(row[1], 1.0), min(column[1], 1.0)
        columns = len(self._length_points)
        cell = row[0] * columns + column[0]
        weights = ((1 - x) * (1 - y), (1 - x) * y, x * (1 - y), x * y)
        cells = (cell, cell + 1, cell + columns, cell + columns + 1)
        return [(index, weight) for index, weight in zip(cells, weights, strict=True) if weight > 0.0]

    def _seen(self, corners: Corners) -> float:
        """Observations of a place."""
        return sum([weight / self._open[cell] for cell, weight in corners]) - 1.0

    def _see(self, corners: Corners, worth: float) -> None:
        for cell, weight in corners:
            self._open[cell] = 1.0 / (1.0 / self._open[cell] + worth * weight)

    def _follow_drift(self, newest: _Surprise) -> float:
        """Moves the whole table to where the last surprises say it is; returns by how much."""
        window = self._window
        window.append(newest)
        shift = _middle([each.value for each in window])
        if abs(shift) < _DRIFT_AT_ONCE:
            shift *= _DRIFT_SHARE
        if shift:
            factor = math.exp(shift)
            self._median_ns *= factor
            self.drift *= factor
            for each in window:
                each.value -= shift
        return shift

    def _move_cells(self, corners: Corners, surprise: float) -> None:
        """Moves the cells around a batch, and their unknown neighbours, towards what it cost."""
        seen = self._seen(corners)
        bound = _BOUND + _BOUND_UNKNOWN / (1.0 + seen)
        move = max(-bound, min(bound, surprise)) * max(_GAIN_MIN, 1.0 / (1.0 + seen))
        steps = np.multiply(self._nearness[nearest(corners)], self._openness, out=self._scratch)
        steps *= move
        # With these steps the prediction between the corners moves by exactly ``move``.
        square = sum([weight * weight for _, weight in corners])
        for cell, weight in corners:
            self._steps[cell] = move * weight / square
        steps += 1.0
        self._median_ns *= steps
        make_monotone(self._median_ns)

    def _judge_oldest(self) -> None:
        """Widens or narrows the spread by the surprise that leaves the window."""
        if len(self._window) <= WINDOW:
            return
        oldest = self._window.popleft()
        if not oldest.is_known:
            return
        is_excess = oldest.value > math.log1p(self._spreads[oldest.cell])
        step = _SPREAD_STEP if is_excess else -_SPREAD_STEP * (1.0 - UPPER_QUANTILE) / UPPER_QUANTILE
        steps = np.multiply(self._nearness[oldest.cell], step, out=self._scratch)
        steps += 1.0
        self._spread *= steps
        np.maximum(self._spread, _SPREAD_MIN, out=self._spread)
        np.minimum(self._spread, _SPREAD_MAX, out=self._spread)

    def _lift_upper(self) -> None:
        """Sets the upper costs from medians and spread."""
        upper = np.multiply(self._openness, _UNKNOWN_EXTRA, out=self._upper_ns)
        upper += self._spread
        upper += 1.0
        upper *= self._median_ns
        np.maximum.accumulate(upper, axis=0, out=upper)
        np.maximum.accumulate(upper, axis=1, out=upper)

    def _trust(self) -> None:
        """Takes the table as right, so that only most of a window's batches can move it as a whole."""
        self._window = deque(_Surprise(0.0, 0, is_known=False) for _ in range(WINDOW))


def _middle(values: list[float]) -> float:
    """A median, four times as fast as the one of ``statistics``; of an even number the lower one."""
    return sorted(values)[(len(values) - 1) // 2]


def flat(table: Table) -> memoryview[float]:
    """Views a C-contiguous table as one row of elements."""
    return table.data.cast("B").cast("d")


def nearest(corners: Corners) -> int:
    """The cell that weighs most."""
    return max(corners, key=_weight)[0]


def _weight(corner: tuple[int, float]) -> float:
    return corner[1]


@lru_cache(maxsize=32)
def nearness(row_points: tuple[int, ...], length_points: tuple[int, ...]) -> NDArray[np.float64]:
    """How near each cell is to each other: 1 for itself, falling with the octaves between them.

    Returns:
        float64 ``[R * L, R, L]``, read-only.
    """
    rows, lengths = (np.log2(np.array(points, np.float64)) for points in (row_points, length_points))
    apart = np.subtract.outer(rows, rows)[:, np.newaxis, :, np.newaxis] ** 2
    apart = apart + np.subtract.outer(lengths, lengths)[np.newaxis, :, np.newaxis, :] ** 2
    near = np.exp(-apart / (2 * _REACH_OCTAVES**2)).reshape(-1, len(rows), len(lengths))
    near.flags.writeable = False
    return np.ascontiguousarray(near)


def make_monotone(table: Table) -> None:
    """Makes a table grow along both axes, in place.

    What is in order already stays; elsewhere cells meet between the largest before and the smallest behind
    them. That is no least-squares fit, but takes microseconds, and violations are rare and small.
    """
    if (table[1:] >= table[:-1]).all() and (table[:, 1:] >= table[:, :-1]).all():
        return
    rising = np.maximum.accumulate(np.maximum.accumulate(table, axis=0), axis=1)
    turned = table[::-1, ::-1]
    falling = np.minimum.accumulate(np.minimum.accumulate(turned, axis=0), axis=1)[::-1, ::-1]
    np.add(rising, falling, out=table)
    table *= 0.5


def _is_plausible(shape: tuple[int, ...], medians: Table, spread: Table, seen: Table) -> bool:
    tables = (medians, spread, seen)
    if any(table.shape != shape or not np.isfinite(table).all() for table in tables):
        return False
    return bool((medians > 0).all() and (spread > 0).all() and (seen >= 0).all())
