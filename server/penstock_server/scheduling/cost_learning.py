"""How a cost table learns from batches: one observation in a few microseconds, in constant memory.

An observation is a surprise: the logarithm of actual over predicted median. Three things learn from it.

- **Drift**, a factor for the whole table: the median of the last surprises. A machine that becomes slower or
  faster is believed once more than half of them say so; a stall is one of them.
- **Cells**: the surprise that drift leaves over moves the four cells around the batch, the more the less is
  known of them, and their unknown neighbours with them. It is bounded, so that a cell tracks a median.
- **Scatter**, how large surprises are on average now, and **tails**, at how many times that the upper cost
  lies: a cell's tail grows by a step with each excess and shrinks by one of the right size otherwise
  (stochastic approximation of a quantile; Robbins and Monro 1951). Scatter follows a machine that becomes
  restless within some fifty batches, which a quantile by itself cannot. A surprise is judged when it leaves
  the window, so that what turned out to be drift is not taken for scatter.

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
# Growth of a tail with each excess: five excesses double it. It starts at twice what a normal distribution
# asks for, as real tails are heavier: on records of MiniLM, 5 left 2 % of batches above it and 7 left 1.2 %.
# It stays where scatter still means something.
_TAIL_STEP = 0.15
_TAIL_INITIAL, _TAIL_MIN, _TAIL_MAX = 7.0, 2.0, 20.0
# Scatter before anything is known, and how many surprises that belief is worth; what a single surprise counts
# at most, and the weight of the newest.
_SCATTER_INITIAL = 0.1
_SCATTER_WORTH = 8
_SCATTER_BOUND = 0.5
_SCATTER_SHARE = 0.02
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
        scatter: Average size of surprises.
        tails: Relative excess of the upper cost over the median, in scatters.
        seen: Observations of each cell.
    """

    row_points: list[int]
    length_points: list[int]
    median_ns: list[list[float]]
    scatter: float
    tails: list[list[float]]
    seen: list[list[float]]


@dataclass(slots=True)
class _Surprise:
    """A surprise in the window, relative to the table as it is now."""

    value: float
    cell: int
    is_known: bool


# What a table that is trusted starts with in its window; nothing is learnt from it.
_NO_SURPRISE = _Surprise(0.0, 0, is_known=False)


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
        self._scatter = _SCATTER_INITIAL
        self._judged = 0
        self._tail = np.full(median_ns.shape, _TAIL_INITIAL)
        # How much of a surprise a cell believes: 1 / (1 + its observations).
        self._openness = np.ones(median_ns.shape)
        self._scratch = np.empty(median_ns.shape)
        # Flat views: reading and writing single elements through them takes a fraction of an array's time.
        self._tails = flat(self._tail)
        self._open = flat(self._openness)
        self._steps = flat(self._scratch)
        self._window: deque[_Surprise] = deque()
        # Whether the table's scale was measured; what moves a prior as a whole is no drift.
        self._is_scaled = False
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
            self._scatter,
            self._tail.tolist(),
            np.minimum(seen, _SEEN_RESTORED_MAX).tolist(),
        )

    def restore(self, state: TableState) -> bool:
        """Goes on from an earlier process's state; changes nothing and returns False if it does not fit."""
        if (tuple(state.row_points), tuple(state.length_points)) != (self._row_points, self._length_points):
            return False
        try:
            medians, tails, seen = (
                np.array(rows, np.float64) for rows in (state.median_ns, state.tails, state.seen)
            )
        except ValueError:
            return False
        if not _is_plausible(self._median_ns.shape, medians, tails, seen) or not 0.0 < state.scatter <= 1.0:
            return False
        self._scatter = state.scatter
        self._median_ns[:] = medians
        self._tail[:] = np.clip(tails, _TAIL_MIN, _TAIL_MAX)
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
        is_sudden = abs(shift) >= _DRIFT_AT_ONCE
        if not is_sudden:
            shift *= _DRIFT_SHARE
        if shift:
            factor = math.exp(shift)
            self._median_ns *= factor
            if self._is_scaled:
                self.drift *= factor
            for index, each in enumerate(window):
                # What was right before a sudden change is wrong now, and says nothing of the scatter.
                if is_sudden and abs(each.value - shift) > abs(each.value):
                    window[index] = _NO_SURPRISE
                elif each is not _NO_SURPRISE:
                    each.value -= shift
        self._is_scaled = self._is_scaled or len(window) >= WINDOW
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
        """Learns from the surprise that leaves the window how far batches scatter."""
        if len(self._window) <= WINDOW:
            return
        oldest = self._window.popleft()
        if oldest is _NO_SURPRISE:
            return
        size = min(abs(oldest.value), _SCATTER_BOUND)
        self._judged += 1
        self._scatter += max(_SCATTER_SHARE, 1.0 / (_SCATTER_WORTH + self._judged)) * (size - self._scatter)
        if not oldest.is_known:
            return
        is_excess = math.expm1(oldest.value) > self._spread_of(self._tails[oldest.cell])
        step = _TAIL_STEP if is_excess else -_TAIL_STEP * (1.0 - UPPER_QUANTILE) / UPPER_QUANTILE
        steps = np.multiply(self._nearness[oldest.cell], step, out=self._scratch)
        steps += 1.0
        self._tail *= steps
        np.maximum(self._tail, _TAIL_MIN, out=self._tail)
        np.minimum(self._tail, _TAIL_MAX, out=self._tail)

    def _spread_of(self, tail: float) -> float:
        """The relative excess of the upper cost over the median, where all is known."""
        return min(_SPREAD_MAX, max(_SPREAD_MIN, tail * self._scatter))

    def _lift_upper(self) -> None:
        """Sets the upper costs from medians, scatter and tails."""
        upper = np.multiply(self._tail, self._scatter, out=self._upper_ns)
        np.maximum(upper, _SPREAD_MIN, out=upper)
        np.minimum(upper, _SPREAD_MAX, out=upper)
        upper += np.multiply(self._openness, _UNKNOWN_EXTRA, out=self._scratch)
        upper += 1.0
        upper *= self._median_ns
        np.maximum.accumulate(upper, axis=0, out=upper)
        np.maximum.accumulate(upper, axis=1, out=upper)

    def _trust(self) -> None:
        """Takes the table as right, so that only most of a window's batches can move it as a whole."""
        self._is_scaled = True
        self._window = deque([_NO_SURPRISE] * WINDOW)


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


def _is_plausible(shape: tuple[int, ...], medians: Table, tails: Table, seen: Table) -> bool:
    tables = (medians, tails, seen)
    if any(table.shape != shape or not np.isfinite(table).all() for table in tables):
        return False
    return bool((medians > 0).all() and (tails > 0).all() and (seen >= 0).all())
