"""The one place that knows how the production scheduler is called."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import TokenRows
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import OverloadPolicy
from penstock_server.domain.work import BatchPlan, BatchTimes, RowSink, Work
from penstock_server.scheduling.cost import CostModels
from penstock_server.scheduling.scheduler import Decision, Scheduler, SchedulerLimits
from penstock_server.simulation.arrivals import Call
from penstock_server.simulation.costs import TrueDurations
from penstock_server.simulation.scenario import Limits

MODEL = ModelKey("simulated", "1")
# Runs of each shape that the scheduler knows of when a simulation begins. Chosen: as many as a sweep makes.
_SWEEP_RUNS = 5
# As in the server's configuration (`LaneConfig`, `QueueLimits`), which lies above this package.
_DEFAULT_LIMITS = {
    "live_tokens_max": 32_768,
    "flex_tokens_max": 1 << 20,
    "bulk_tokens_max": 1 << 24,
    "live_batch_tokens_max": 512,
    "bulk_batch_tokens": 256,
    "lookahead_rows": 64,
}


def scheduler_limits(limits: Limits) -> SchedulerLimits:
    """The server's limits, with those that the scenario sets."""
    chosen = {name: getattr(limits, name) for name in _DEFAULT_LIMITS}
    given = {name: value for name, value in chosen.items() if value is not None}
    return SchedulerLimits(**{**_DEFAULT_LIMITS, **given})


def batch_tokens_max(limits: SchedulerLimits) -> dict[LaneKind, int]:
    """Padded tokens of a batch of several rows, by the lane that asks for it."""
    return {LaneKind.LIVE: limits.live_batch_tokens_max, LaneKind.BULK: limits.bulk_batch_tokens}


def bulk_share(limits: SchedulerLimits) -> float:
    """Part of the live lane's time that waiting bulk work gets at least."""
    return float(getattr(limits, "bulk_share", 0.0))


def work_of(call: Call, sink: RowSink, arrival_ns: int) -> Work:
    """A call as the scheduler sees it; its token ids are zeros, which nothing reads."""
    return Work(
        model=MODEL,
        request_class=call.request_class,
        tokens=rows_of(call.lengths),
        rows=np.arange(len(call.lengths), dtype=np.int32),
        sink=sink,
        arrival_ns=arrival_ns,
        deadline_ns=call.deadline_ns,
    )


def rows_of(lengths: NDArray[np.int32]) -> TokenRows:
    """Rows of the given lengths."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    tokens = int(starts[-1])
    none = np.zeros(len(lengths), np.bool_)
    return TokenRows(np.zeros(tokens, np.int32), np.zeros(tokens, np.uint8), starts, none, ~none)


class ProductionPolicy:
    """The scheduler of the server, called as its dispatcher calls it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy) -> None:
        """See `Scheduler.admit`."""
        self.scheduler.admit(work, now_ns, overload)

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        """See `Scheduler.plan`."""
        return self.scheduler.plan(lane, now_ns)

    def complete(self, lane: LaneKind, plan: BatchPlan, times: BatchTimes) -> None:
        """See `Scheduler.complete`."""
        self.scheduler.complete(lane, plan, times)

    def cancel(self, work: Work) -> None:
        """See `Scheduler.cancel`."""
        self.scheduler.cancel(work)

    def wake_ns(self, now_ns: int) -> int | None:
        """The scheduler never waits while there is work."""
        return None


def predicted_ns(plan: BatchPlan) -> int | None:
    """What the scheduler expects a batch to take at most, if it says so."""
    predicted = getattr(plan, "predicted_ns", None)
    return None if predicted is None else int(predicted)


def production_policy(scheduler: type[Scheduler], limits: Limits, costs: CostModels) -> ProductionPolicy:
    """The scheduler of the server, as its composition root makes it.

    Args:
        scheduler: The class, or a broken one in tests.
        limits: The scenario's.
        costs: What it knows of costs at first.
    """
    return ProductionPolicy(scheduler(scheduler_limits(limits), costs))


def cost_models(durations: TrueDurations, table_error: float) -> CostModels:
    """The scheduler's own tables, as a sweep seeds them and earlier batches have taught them.

    Args:
        durations: What is measured.
        table_error: Factor of what was measured against the truth.
    """
    models = CostModels()
    models.add(MODEL, int(durations.costs.live.length_points[-1]))
    for lane in LaneKind:
        table, truth = models.table(MODEL, lane), durations.costs.of(lane)
        shapes = [(int(rows), int(length)) for rows in truth.row_points for length in truth.length_points]
        runs = {shape: durations.sample(lane, *shape, _SWEEP_RUNS) * table_error for shape in shapes}
        table.seed({shape: found.tolist() for shape, found in runs.items()})
        for run in range(_SWEEP_RUNS):
            for shape in shapes:
                table.observe(*shape, round(float(runs[shape][run])))
    return models
