"""The one place that knows how the production scheduler is called."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_kernels import TokenRows
from penstock_server.config import LaneConfig, QueueLimits
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import OverloadPolicy
from penstock_server.domain.work import BatchPlan, BatchTimes, RowSink, Work
from penstock_server.scheduling.cost import CostModels, CostTable
from penstock_server.scheduling.cost_learning import TableState
from penstock_server.scheduling.limits import SchedulerLimits, SerialLimits, TenantPolicy
from penstock_server.scheduling.scheduler import Decision, Scheduler
from penstock_server.simulation.arrivals import Call
from penstock_server.simulation.costs import TrueDurations
from penstock_server.simulation.scenario import Scenario

MODEL = ModelKey("simulated", "1")
LearntTables: TypeAlias = dict[LaneKind, TableState]
# Runs of each shape that the scheduler knows of when a simulation begins. Chosen: as many as a sweep makes.
_SWEEP_RUNS = 5


def scheduler_limits(scenario: Scenario) -> SchedulerLimits:
    """The server's limits, with those that the scenario sets and the weights of its tenants."""
    queues, lanes = QueueLimits(), LaneConfig()
    tenants = scenario.live.tenants if scenario.live is not None else ()
    limits = SchedulerLimits(
        live_tokens_max=queues.live_tokens_max,
        flex_tokens_max=queues.flex_tokens_max,
        bulk_tokens_max=queues.bulk_tokens_max,
        live_batch_tokens_max=lanes.live_batch_tokens_max,
        bulk_batch_tokens=lanes.bulk_batch_tokens,
        bulk_short_ns=lanes.bulk_short_us * 1000,
        lookahead_rows=lanes.lookahead_rows,
        serial=SerialLimits() if scenario.machine.kind == "serial" else None,
        tenants={tenant.name: TenantPolicy(weight=tenant.weight) for tenant in tenants},
    )
    given = {
        name: value for name, value in msgspec.structs.asdict(scenario.limits).items() if value is not None
    }
    return replace(limits, **given)


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
        tenant=call.tenant,
        flow=call.flow,
        weight=call.weight,
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

    def __init__(self, scheduler: Scheduler, *, is_serial: bool = False) -> None:
        self.scheduler = scheduler
        self._is_serial = is_serial

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

    def choice_ns(self, now_ns: int) -> int | None:
        """See `Scheduler.choice_ns`."""
        return self.scheduler.choice_ns(now_ns) if self._is_serial else None

    def wake_ns(self, now_ns: int) -> int | None:
        """The scheduler never waits while there is work."""
        return None


def production_policy(scheduler: type[Scheduler], scenario: Scenario, costs: CostModels) -> ProductionPolicy:
    """The scheduler of the server, as its composition root makes it.

    Args:
        scheduler: The class, or a broken one in tests.
        scenario: Says which limits hold.
        costs: What it knows of costs at first.
    """
    limits = scheduler_limits(scenario)
    return ProductionPolicy(scheduler(limits, costs), is_serial=limits.serial is not None)


def learnt_tables(durations: TrueDurations, table_error: float) -> LearntTables:
    """What the scheduler knows of costs when a simulation begins: a sweep, and batches that ran before.

    Args:
        durations: What is measured.
        table_error: Factor of what was measured against the truth.
    """
    tables: LearntTables = {}
    for lane in LaneKind:
        truth = durations.costs.of(lane)
        table = CostTable(lane, int(truth.length_points[-1]))
        shapes = [(int(rows), int(length)) for rows in truth.row_points for length in truth.length_points]
        runs = {shape: durations.sample(lane, *shape, _SWEEP_RUNS) * table_error for shape in shapes}
        table.seed({shape: found.tolist() for shape, found in runs.items()})
        for run in range(_SWEEP_RUNS):
            for shape in shapes:
                table.observe(*shape, round(float(runs[shape][run])))
        tables[lane] = table.state()
    return tables


def cost_models(learnt: LearntTables) -> CostModels:
    """The scheduler's own tables, as a server restores those that it has stored."""
    models = CostModels()
    models.add(MODEL, learnt[LaneKind.LIVE].length_points[-1])
    for lane, state in learnt.items():
        assert models.table(MODEL, lane).restore(state)
    return models
