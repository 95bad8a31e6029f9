"""Profiles a model without a server: sweeps its engine over rows and lengths, as each lane would run it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelManifest
from penstock_server.engines.cpu import own_cpus, staying_on
from penstock_server.engines.factory import EngineKind, build_engine
from penstock_server.runtime.cost_sweep import Shape, runner, sweep
from penstock_server.scheduling.cost import BatchSizes, CostTable, batch_sizes


@dataclass(frozen=True, slots=True)
class ProfilePoint:
    """What batches of one shape cost.

    Attributes:
        rows: Rows of the batch.
        length: Tokens of each row.
        runs: How often it ran.
        median_ns: Half of the runs took longer.
        worst_ns: The longest run.
    """

    rows: int
    length: int
    runs: int
    median_ns: float
    worst_ns: float

    @property
    def tokens_per_s(self) -> float:
        """Padded tokens a second, if one such batch follows the other."""
        return self.rows * self.length * 1e9 / self.median_ns


@dataclass(frozen=True, slots=True)
class LaneProfile:
    """What a model costs on one kind of lane.

    Attributes:
        lane: The kind of lane.
        threads: Threads of its engine.
        runs_ns: Every run, by rows and length.
    """

    lane: LaneKind
    threads: int
    runs_ns: dict[Shape, list[int]]

    def lengths(self) -> list[int]:
        """The lengths, increasing."""
        return sorted({length for _, length in self.runs_ns})

    def points(self, length: int) -> list[ProfilePoint]:
        """The shapes of one length, by rows."""
        shapes = sorted(shape for shape in self.runs_ns if shape[1] == length)
        return [
            ProfilePoint(*shape, len(runs), median(runs), max(runs))
            for shape, runs in ((shape, self.runs_ns[shape]) for shape in shapes)
        ]

    def sizes(self, length: int) -> BatchSizes:
        """Which of the row counts of one length are efficient."""
        return batch_sizes(((point.rows, point.median_ns) for point in self.points(length)), self.lane)

    def table(self, tokens_max: int) -> CostTable:
        """The cost table that follows from the profile."""
        table = CostTable(self.lane, tokens_max)
        table.seed(self.runs_ns)
        return table


def profile_lane(
    manifest: ModelManifest,
    lane: LaneKind,
    threads: int,
    shapes: Sequence[Shape],
    seconds: float,
    kind: EngineKind = "onnxruntime",
) -> LaneProfile:
    """Builds the engine that a lane has and sweeps it; blocking.

    Args:
        manifest: The model.
        lane: Live lanes are timed by the time that passes, bulk lanes by the CPU time of their one thread,
            as in the server.
        threads: Threads of the engine.
        shapes: Rows and lengths, at least one.
        seconds: Time for the sweep; what does not fit is left out.
        kind: What computes.

    Raises:
        EngineFailed: The engine failed on a batch.
        ModelBroken: The engine cannot be built.
    """
    clock_ns = time.thread_time_ns if lane is LaneKind.BULK else time.monotonic_ns
    cpus = own_cpus(threads)
    engine = build_engine(manifest, threads=threads, cpus=cpus, kind=kind)
    try:
        with staying_on(cpus):
            return LaneProfile(lane, threads, sweep(runner(engine, manifest, clock_ns), shapes, seconds))
    finally:
        engine.close()
