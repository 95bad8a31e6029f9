"""Small simulated worlds whose durations are round numbers, for tests of the simulator and by it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from penstock_server.domain.tasks import RequestClass
from penstock_server.scheduling.cost import ROW_POINTS
from penstock_server.scheduling.scheduler import Scheduler
from penstock_server.simulation.adapter import LearntTables, learnt_tables
from penstock_server.simulation.arrivals import Call
from penstock_server.simulation.checkers import check
from penstock_server.simulation.costs import DurationTable, LaneCosts, TrueDurations
from penstock_server.simulation.runner import OURS, Run, Setting, is_peer, prepare, rules_of, run_policy
from penstock_server.simulation.scenario import (
    NS_PER_MS,
    BulkJob,
    BulkTraffic,
    Limits,
    LiveTraffic,
    Machine,
    Noise,
    Scenario,
    TenantMix,
)

# The table is the truth, to the nanosecond.
EXACT = Noise(sigma=0.0, drift_sigma=0.0, stalls_per_s=0.0)
# A token takes a millisecond of one thread: a batch takes a millisecond, and one for each padded token.
BATCH_MS, TOKEN_MS = 1.0, 1.0
# The scheduler's own grid, so that its tables can be exact as well.
_ROWS = np.array(ROW_POINTS, np.float64)
_LENGTHS = np.array([8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512], np.float64)


def straight_costs(live_cores: float = 2.0) -> LaneCosts:
    """Durations on a straight line from 8 tokens on; the live lane is faster by the number of its cores."""

    def table(speed: float) -> DurationTable:
        tokens = np.multiply.outer(_ROWS, _LENGTHS)
        return DurationTable(_ROWS, _LENGTHS, (BATCH_MS + TOKEN_MS * tokens) * NS_PER_MS / speed)

    return LaneCosts(table(live_cores), table(1.0))


def write_cost_table(path: Path, costs: LaneCosts) -> Path:
    """Writes a cost table as `penstock simulate --cost-table` reads it."""

    def fields(table: DurationTable) -> dict[str, Any]:
        return {
            "row_points": table.row_points.astype(int).tolist(),
            "length_points": table.length_points.astype(int).tolist(),
            "median_ns": table.median_ns.tolist(),
        }

    path.write_text(json.dumps({"live": fields(costs.live), "bulk": fields(costs.bulk)}))
    return path


def call(
    at_ms: float,
    lengths: Sequence[int] = (10,),
    *,
    deadline_ms: float | None = None,
    request_class: RequestClass = RequestClass.LIVE,
    tenant: str = "",
    weight: float = 1.0,
    cancel_ms: float | None = None,
) -> Call:
    """A call; times are milliseconds from the start, the deadline is counted from the arrival."""
    arrival_ns = round(at_ms * NS_PER_MS)
    return Call(
        arrival_ns=arrival_ns,
        request_class=request_class,
        lengths=np.array(lengths, np.int32),
        tenant=tenant,
        weight=weight,
        deadline_ns=None if deadline_ms is None else arrival_ns + round(deadline_ms * NS_PER_MS),
        cancel_ns=None if cancel_ms is None else round(cancel_ms * NS_PER_MS),
    )


def world(
    calls: Iterable[Call],
    *,
    bulk: bool = False,
    duration_s: float = 2.0,
    noise: Noise = EXACT,
    machine: Machine | None = None,
    limits: Limits | None = None,
    costs: LaneCosts | None = None,
) -> Setting:
    """A world with just these calls, whose weights are their tenants'."""
    found_calls = tuple(sorted(calls, key=lambda each: each.arrival_ns))
    weights = {each.tenant: each.weight for each in found_calls} or {"": 1.0}
    tenants = tuple(TenantMix(name=name, weight=weight) for name, weight in weights.items())
    scenario = Scenario(
        duration_s=duration_s,
        live=LiveTraffic(tenants=tenants),
        bulk=BulkTraffic(jobs=(BulkJob(),) if bulk else (), window_rows=256),
        machine=machine or Machine(live_gap_us=0.0, bulk_gap_us=0.0, answer_us=0.0, call_us=0.0),
        noise=noise,
        limits=limits or Limits(),
    )
    found_costs = straight_costs() if costs is None else costs
    learnt = _known() if costs is None else learnt_tables(TrueDurations(costs, EXACT, 1), 1.0)
    return Setting(scenario, found_costs, found_calls, None, learnt, 0.0, scenario.duration_ns)


@cache
def _known() -> LearntTables:
    """Learning takes a twentieth of a second, which would be most of a small world's time."""
    return learnt_tables(TrueDurations(straight_costs(), EXACT, 1), 1.0)


def drawn(**values: Any) -> Setting:
    """A scenario over the measured table, changed at its top level."""
    return prepare(msgspec.structs.replace(Scenario(live=LiveTraffic(), duration_s=10.0), **values))


def faults(run: Run, **rules: Any) -> dict[str, list[str]]:
    """What the checkers found: texts by checker, of those that found something.

    Args:
        run: A run.
        rules: Values of `Rules` other than the run's.
    """
    verdicts = check(run.record, replace(rules_of(run), **rules), peer=is_peer(run.policy))
    return {each.checker: [finding.text for finding in each.told] for each in verdicts if each.count}


def run_ours(setting: Setting, scheduler: type[Scheduler] = Scheduler) -> Run:
    """Runs the production scheduler, or a broken one."""
    return run_policy(OURS, setting, scheduler=scheduler)
