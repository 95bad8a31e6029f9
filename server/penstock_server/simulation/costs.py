"""True durations: what a cost table says, times noise, drift and stalls. All policies meet the same ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.work import BatchPlan
from penstock_server.simulation.arrivals import stream
from penstock_server.simulation.scenario import NS_PER_MS, NS_PER_S, Noise

# Steps of the drift within the time that it takes to forget itself.
_DRIFT_STEPS = 8
# Factors outside this are slips of the pen in a file of residuals.
_RESIDUAL_MIN, _RESIDUAL_MAX = 0.01, 1000.0


@dataclass(frozen=True, slots=True)
class DurationTable:
    """Median durations over a grid; bilinear between its points, straight on beyond the last.

    Attributes:
        row_points: Numbers of rows, ascending.
        length_points: Padded lengths, ascending.
        median_ns: float64 ``[rows, lengths]``.
    """

    row_points: NDArray[np.float64]
    length_points: NDArray[np.float64]
    median_ns: NDArray[np.float64]

    def duration_ns(self, rows: int, padded_length: int) -> float:
        """The median duration of a batch."""
        i, x = _place(self.row_points, rows)
        j, y = _place(self.length_points, padded_length)
        (a, b), (c, d) = self.median_ns[i : i + 2, j : j + 2].tolist()
        return max(1.0, float((a * (1 - y) + b * y) * (1 - x) + (c * (1 - y) + d * y) * x))

    def cheapest_row_ns(self, padded_length: int, tokens_max: int) -> float:
        """What a row of this length costs in the batch where it is cheapest, of those within a budget."""
        most = max(1, tokens_max // padded_length)
        return min(
            self.duration_ns(rows, padded_length) / rows for rows in _row_counts(self.row_points, most)
        )

    def scaled(self, factor: float) -> DurationTable:
        """The same with all durations times a factor."""
        return DurationTable(self.row_points, self.length_points, self.median_ns * factor)


@dataclass(frozen=True, slots=True)
class LaneCosts:
    """Durations on a live lane, over all cores, and on a bulk lane of one thread; both on an idle machine."""

    live: DurationTable
    bulk: DurationTable

    def of(self, lane: LaneKind) -> DurationTable:
        """The table of a kind of lane."""
        return self.live if lane is LaneKind.LIVE else self.bulk


class TrueDurations:
    """Draws how long each batch takes. The same batches on a lane take the same under every policy."""

    def __init__(self, costs: LaneCosts, noise: Noise, seed: int) -> None:
        self.costs = costs
        self._noise = noise
        self._seed = seed
        self._residuals = None if noise.residuals is None else _read_residuals(noise.residuals)
        self._streams: dict[str, np.random.Generator] = {}
        self._drift = _Drift(noise, stream(seed, "drift"))

    def draw(self, lane: str, kind: LaneKind, plan: BatchPlan, now_ns: int) -> int:
        """How long a batch computes that starts now on a lane with nothing beside it."""
        random = self._streams.setdefault(lane, stream(self._seed, "lane", lane))
        median_ns = self.costs.of(kind).duration_ns(plan.rows, plan.padded_length)
        noisy_ns = median_ns * self._residual(random, kind) * self._drift.factor(now_ns)
        stalls = random.random() < self._noise.stalls_per_s * noisy_ns / NS_PER_S
        return max(1, round(noisy_ns + stalls * self._noise.stall_ms * NS_PER_MS))

    def sample(self, kind: LaneKind, rows: int, padded_length: int, count: int) -> NDArray[np.float64]:
        """Durations of a shape as a sweep measures them: with noise, without drift and stalls."""
        random = stream(self._seed, "sweep", kind.value, f"{rows}x{padded_length}")
        median_ns = self.costs.of(kind).duration_ns(rows, padded_length)
        return median_ns * np.array([self._residual(random, kind) for _ in range(count)])

    def _residual(self, random: np.random.Generator, kind: LaneKind) -> float:
        if self._residuals is None or kind is LaneKind.BULK:
            return math.exp(self._noise.sigma * float(random.standard_normal()))
        return float(self._residuals[random.integers(0, len(self._residuals))])


class _Drift:
    """A factor whose logarithm is an autoregressive process over time, whoever asks when."""

    def __init__(self, noise: Noise, random: np.random.Generator) -> None:
        self._sigma = noise.drift_sigma
        self._step_ns = noise.drift_s * NS_PER_S / _DRIFT_STEPS
        self._random = random
        self._states = [float(random.standard_normal())]

    def factor(self, now_ns: int) -> float:
        if not self._sigma:
            return 1.0
        kept = math.exp(-1 / _DRIFT_STEPS)
        fresh = math.sqrt(1 - kept * kept)
        step = int(now_ns / self._step_ns)
        while len(self._states) <= step:
            self._states.append(kept * self._states[-1] + fresh * float(self._random.standard_normal()))
        return math.exp(self._sigma * self._states[step])


def _place(points: NDArray[np.float64], value: float) -> tuple[int, float]:
    """Which cell of a grid a value is in, and where between its ends; beyond 1 past the last point."""
    cell = int(np.clip(np.searchsorted(points, value, side="right") - 1, 0, len(points) - 2))
    low, high = float(points[cell]), float(points[cell + 1])
    return cell, max(0.0, (value - low) / (high - low))


def _row_counts(points: NDArray[np.float64], most: int) -> list[int]:
    return sorted({*(int(point) for point in points if point <= most), most})


def _read_residuals(path: Path) -> NDArray[np.float64]:
    try:
        found = np.array([float(line) for line in path.read_text().split()])
    except OSError as err:
        raise InvalidRequest(f"Cannot read the residuals {path}: {err.strerror}.") from err
    except ValueError as err:
        raise InvalidRequest(f"{path} must hold one factor a line: {err}.") from err
    if not len(found) or not ((found >= _RESIDUAL_MIN) & (found <= _RESIDUAL_MAX)).all():
        raise InvalidRequest(
            f"{path} must hold factors from {_RESIDUAL_MIN} to {_RESIDUAL_MAX:g}, one a line."
        )
    return found
