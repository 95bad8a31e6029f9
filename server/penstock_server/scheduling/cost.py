"""What batches cost: a table over rows and padded length for each model version and kind of lane.

A table and no formula, because costs are neither straight lines nor the same curve on two processors. Tables
start from a prior, are seeded by a sweep or a file of an earlier run, and learn from every batch; how is in
`penstock_server.scheduling.cost_learning`. Synchronous, deterministic, without I/O.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import TOKENS_MAX, ModelKey
from penstock_server.scheduling.cost_learning import TableLearner, TableState

# Half octaves: measured costs bend little between neighbours (decision record 0008).
ROW_POINTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_LENGTH_POINTS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Values up to this are located by a table, larger ones by a search.
_LOCATED_MAX = 512
# A batch is as good as the best within this; measured costs differ by as much from run to run.
_THROUGHPUT_TOLERANCE = 0.02
# A bulk batch is as large as its tokens may be, unless that costs clearly more: single places of a learnt
# table are off by a tenth or two, so that the best by the table was a small one half the time (2026-11-27).
_BULK_TOLERANCE = 0.15
# A larger batch must do this much better to count as more efficient than a smaller one: above the noise.
_EFFICIENCY_STEP = 0.01
# A median of fewer runs says something of the whole table at most. One of more stands for this many batches:
# several runs, but of one moment.
_SWEEP_RUNS_MIN = 3
_SWEEP_WORTH = 5.0
# Which batches are efficient takes 20 microseconds to find out, and changes slowly.
_SIZES_RENEWED_AFTER = 64
# Where the rate of a lane is asked for without lengths: about the median row of real traffic is 24 tokens
# long, but rows of 64 carry the mean token.
_TYPICAL_LENGTH = 64


class Cost(NamedTuple):
    """Predicted time of a batch, in nanoseconds: exceeded by half of the batches, and by one in a hundred."""

    median_ns: float
    upper_ns: float


class Axis:
    """Grid points of one axis, and where a value lies between them."""

    def __init__(self, points: tuple[int, ...]) -> None:
        self.points = points
        self._located = [self._search(value) for value in range(_LOCATED_MAX + 1)]

    def locate(self, value: int) -> tuple[int, float]:
        """Returns the point below and the way from there to the next, above 1 beyond the last."""
        return self._located[value] if value <= _LOCATED_MAX else self._search(value)

    def _search(self, value: int) -> tuple[int, float]:
        index = min(max(bisect_right(self.points, value) - 1, 0), len(self.points) - 2)
        low, high = self.points[index], self.points[index + 1]
        return index, max(0.0, (value - low) / (high - low))


@lru_cache(maxsize=32)
def axis_to(tokens_max: int) -> Axis:
    """The axis of lengths for rows of at most ``tokens_max`` tokens."""
    points = [point for point in _LENGTH_POINTS if point < tokens_max] or [_LENGTH_POINTS[0]]
    while points[-1] < tokens_max or len(points) < 2:
        following = next((point for point in _LENGTH_POINTS if point > points[-1]), points[-1] * 2)
        points.append(following)
    return Axis(tuple(points))


_ROWS = Axis(ROW_POINTS)
# MiniLM in fp32 on one AVX-512 thread, nanoseconds (decision record 0008): a batch at all, a token, and what
# each of a row's tokens adds to each other one. Only the shape matters: the first batches scale it.
_PRIOR_BATCH_NS = 700_000.0
_PRIOR_TOKEN_NS = 215_000.0
_PRIOR_PAIR_NS = 100.0
# The live lane computes with several threads. Two is the least that "several" means.
_PRIOR_SPEED = {LaneKind.LIVE: 2.0, LaneKind.BULK: 1.0}


class BatchSizes(NamedTuple):
    """Batches of rows of one length.

    Attributes:
        efficient: Row counts that no smaller one beats, increasing.
        best: The best count for the lane.
        costs_ns: What each row count costs.
    """

    efficient: tuple[int, ...]
    best: int
    costs_ns: tuple[float, ...]


def batch_sizes(costs_ns: Iterable[tuple[int, float]], lane: LaneKind = LaneKind.LIVE) -> BatchSizes:
    """Finds the row counts that no smaller one beats in throughput, and the best count for a lane.

    For a live lane that is the smallest within 2 % of the best throughput, for a bulk lane the largest within
    15 %.

    Args:
        costs_ns: Row counts, increasing and at least one, with what they cost.
        lane: The kind of lane.
    """
    best_rate = 0.0
    rates: dict[int, float] = {}
    efficient: list[int] = []
    costs: list[float] = []
    for rows, cost_ns in costs_ns:
        costs.append(cost_ns)
        rate = rates[rows] = rows / cost_ns
        if rate > best_rate * (1 + _EFFICIENCY_STEP):
            best_rate = rate
            efficient.append(rows)
    if lane is LaneKind.BULK:
        best = max(rows for rows, rate in rates.items() if rate >= best_rate * (1 - _BULK_TOLERANCE))
    else:
        best = next(rows for rows in efficient if rates[rows] >= best_rate * (1 - _THROUGHPUT_TOLERANCE))
    return BatchSizes(tuple(efficient), best, tuple(costs))


class CostTable:
    """Costs of one model version on one kind of lane. Owned by the scheduler's thread.

    Attributes:
        row_points: int32 ``[R]``, increasing.
        length_points: int32 ``[L]``, increasing, up to the model's longest row.
        median_ns: float64 ``[R, L]``, C-contiguous, changed in place, never replaced; grows along
            both axes.
        upper_ns: Likewise; at least ``median_ns``.
        observations: Batches it has learnt from, in this process.

    Args:
        lane: Decides the prior.
        tokens_max: Longest row.
    """

    def __init__(self, lane: LaneKind, tokens_max: int = TOKENS_MAX) -> None:
        self._lengths = axis_to(tokens_max)
        self.lane = lane
        self.row_points = np.array(ROW_POINTS, np.int32)
        self.length_points = np.array(self._lengths.points, np.int32)
        self.median_ns = prior_ns(lane, self.row_points, self.length_points)
        self.upper_ns = self.median_ns.copy()
        self._learner = TableLearner(ROW_POINTS, self._lengths.points, self.median_ns, self.upper_ns)
        self._sizes: dict[int, BatchSizes] = {}
        # Reading an element of a memory view takes a third of the time of reading one of the array.
        self._medians = self.median_ns.data
        self._uppers = self.upper_ns.data

    @property
    def observations(self) -> int:
        """Batches it has learnt from in this process."""
        return self._learner.observations

    @property
    def drift(self) -> float:
        """How much slower the lane has become as a whole since the table was made; 1 for not at all."""
        return self._learner.drift

    def predict(self, rows: int, padded_length: int) -> Cost:
        """Predicts the cost of a batch; about a microsecond.

        Bilinear between grid points, linear beyond the last ones, constant below the first.

        Args:
            rows: At least 1.
            padded_length: Tokens of the longest row.
        """
        row, x = _ROWS.locate(rows)
        column, y = self._lengths.locate(padded_length)
        xy = x * y
        w10, w01, w00 = x - xy, y - xy, 1.0 - x - y + xy
        m, u = self._medians, self._uppers
        below, right = row + 1, column + 1
        cost = Cost(
            w00 * m[row, column] + w01 * m[row, right] + w10 * m[below, column] + xy * m[below, right],
            w00 * u[row, column] + w01 * u[row, right] + w10 * u[below, column] + xy * u[below, right],
        )
        if x <= 1.0 and y <= 1.0:
            return cost
        # Straight lines in both directions may fall together, but a larger batch never costs less.
        last = self.predict(min(rows, ROW_POINTS[-1]), min(padded_length, self._lengths.points[-1]))
        return Cost(max(cost.median_ns, last.median_ns), max(cost.upper_ns, last.upper_ns))

    def observe(self, rows: int, padded_length: int, duration_ns: int) -> None:
        """Learns from a batch that has run; about 20 microseconds.

        Args:
            rows: Rows of the batch, at least 1.
            padded_length: Tokens of its longest row.
            duration_ns: What it cost; a duration of 0 or less is no measurement and is passed over.
        """
        if duration_ns <= 0:
            return
        if self.observations % _SIZES_RENEWED_AFTER == 0:
            self._sizes.clear()
        surprise = math.log(duration_ns / self.predict(rows, padded_length).median_ns)
        self._learner.observe(_ROWS.locate(rows), self._lengths.locate(padded_length), surprise)

    def seed(self, runs_ns: Mapping[tuple[int, int], Sequence[float]]) -> None:
        """Takes what a sweep has measured.

        The whole table is scaled to it first; then each shape that ran often enough gets its own median.

        Args:
            runs_ns: Runs of each shape, in nanoseconds, by rows and padded length; at least one.
        """
        medians = {shape: median(runs) for shape, runs in runs_ns.items()}
        self._sizes.clear()
        self._learner.scale(median(ns / self.predict(*shape).median_ns for shape, ns in medians.items()))
        measured = {shape: ns for shape, ns in medians.items() if len(runs_ns[shape]) >= _SWEEP_RUNS_MIN}
        # Places move each other a little until they are known.
        for worth in (0.0, 0.0, _SWEEP_WORTH):
            for (rows, length), ns in measured.items():
                surprise = math.log(ns / self.predict(rows, length).median_ns)
                self._learner.settle(_ROWS.locate(rows), self._lengths.locate(length), surprise, worth)

    def efficient_points(self, length: int) -> tuple[int, ...]:
        """Row counts that no smaller batch of rows of ``length`` tokens beats in throughput, increasing.

        The first is 1. A batch between two of them gains too little for the time it takes.
        """
        return self._sizes_of(length).efficient

    def best_rows(self, length: int) -> int:
        """The best row count; see `batch_sizes`."""
        return self._sizes_of(length).best

    def best_tokens(self, length: int) -> int:
        """Padded tokens of the best batch."""
        return self.best_rows(length) * length

    def rows_within(self, length: int, most_ns: float) -> int:
        """About the most rows of a batch whose median cost is no more; 0 if a single one costs more."""
        count = bisect_right(self._sizes_of(length).costs_ns, most_ns)
        return ROW_POINTS[count - 1] if count else 0

    def full_batch(self, length: int, cap_ns: float = math.inf) -> int:
        """Rows that a full batch has: the best size, or the largest efficient one below it under a cap.

        Args:
            length: Padded tokens of each row.
            cap_ns: The batch's upper cost must not exceed this, but for a single row's.
        """
        sizes = self._sizes_of(length)
        if cap_ns == math.inf:
            return sizes.best
        for rows in reversed(sizes.efficient):
            if rows <= sizes.best and self.predict(rows, length).upper_ns <= cap_ns:
                return rows
        return 1

    def ns_per_token(self, length: int = _TYPICAL_LENGTH) -> float:
        """Median cost of a token in a full batch of rows of ``length`` tokens."""
        rows = self.best_rows(length)
        return self.predict(rows, length).median_ns / (rows * length)

    def state(self) -> TableState:
        """What a later process needs to go on from here."""
        return self._learner.state()

    def restore(self, state: TableState) -> bool:
        """Goes on from an earlier process's state; changes nothing and returns False if it does not fit."""
        self._sizes.clear()
        return self._learner.restore(state)

    def _sizes_of(self, length: int) -> BatchSizes:
        """The efficient batches of a length, from a memory that is renewed every some batches."""
        found = self._sizes.get(length)
        if found is None:
            column, y = self._lengths.locate(length)
            if y <= 1.0:
                # All rows of the grid at once: 5.4 microseconds, 19 by so many predictions (2026-11-27).
                medians = self.median_ns[:, column] * (1.0 - y) + self.median_ns[:, column + 1] * y
                costs: list[float] = medians.tolist()
            else:
                costs = [self.predict(rows, length).median_ns for rows in ROW_POINTS]
            found = self._sizes[length] = batch_sizes(zip(ROW_POINTS, costs, strict=True), self.lane)
        return found


class CostModels:
    """The cost tables of a server: one for each model version and kind of lane, made when first asked for."""

    def __init__(self) -> None:
        self._tables: dict[tuple[ModelKey, LaneKind], CostTable] = {}

    def add(self, model: ModelKey, tokens_max: int) -> None:
        """Makes a model version's tables as long as its rows can be; tables there are stay as they are."""
        for lane in LaneKind:
            self._tables.setdefault((model, lane), CostTable(lane, tokens_max))

    def table(self, model: ModelKey, lane: LaneKind) -> CostTable:
        """The table of a model version on a kind of lane; a prior where nothing is known."""
        found = self._tables.get((model, lane))
        if found is None:
            found = self._tables[model, lane] = CostTable(lane)
        return found

    def tables(self) -> Iterator[tuple[ModelKey, LaneKind, CostTable]]:
        """All tables there are."""
        for (model, lane), table in self._tables.items():
            yield model, lane, table


def prior_ns(
    lane: LaneKind, row_points: NDArray[np.int32], length_points: NDArray[np.int32]
) -> NDArray[np.float64]:
    """What is believed before anything has run: MiniLM's shape, which the first batches then scale."""
    tokens = np.multiply.outer(row_points.astype(np.float64), length_points.astype(np.float64))
    shape = _PRIOR_BATCH_NS + tokens * (_PRIOR_TOKEN_NS + _PRIOR_PAIR_NS * length_points)
    return np.ascontiguousarray(shape / _PRIOR_SPEED[lane], np.float64)
