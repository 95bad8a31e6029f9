"""A checker that cannot fail proves nothing: each of these schedulers is broken in one way, and is caught."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan, BatchTimes, Work
from penstock_server.scheduling.cost import CostModels
from penstock_server.scheduling.limits import SchedulerLimits, SerialLimits
from penstock_server.scheduling.scheduler import Decision, Scheduler
from penstock_server.simulation.runner import Setting
from penstock_server.simulation.scenario import (
    NS_PER_S,
    BulkJob,
    BulkTraffic,
    Limits,
    LiveTraffic,
    Machine,
    Noise,
    TenantMix,
)
from tests.support.simulation import EXACT, drawn, faults, run_ours

BUSY = LiveTraffic(rate=60.0, lengths="sentences", cancel_share=0.2, deadline_ms=150.0)
ONE_JOB = BulkTraffic(jobs=(BulkJob(lengths="sentences"),))


class BulkGoesFirst(Scheduler):
    """Gives the live lane bulk work although live work waits."""

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        decision = super().plan(LaneKind.BULK, now_ns)
        return decision if decision.batch is not None else super().plan(lane, now_ns)


class ComputesCancelled(Scheduler):
    """Forgets to drop the rows of callers who have gone."""

    def cancel(self, work: Work) -> None:
        pass


class ComputesExpired(Scheduler):
    """Never looks at the clock."""

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        return super().plan(lane, 0)


class DeliversTwice(Scheduler):
    """Puts every tenth batch's rows into the next batch as well."""

    planned: ClassVar[int] = 0

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        decision = super().plan(lane, now_ns)
        type(self).planned += 1
        batch = decision.batch
        if batch is None or self.planned % 10:
            return decision
        twice = replace(batch, parts=batch.parts * 2, rows=batch.rows * 2, tokens=batch.tokens * 2)
        return replace(decision, batch=twice)


class LosesRows(Scheduler):
    """Drops the last row of a batch on its way to the lane."""

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        decision = super().plan(lane, now_ns)
        batch = decision.batch
        if batch is None or batch.rows < 2:
            return decision
        return replace(decision, batch=without_last_row(batch))


class ExpiresSilently(Scheduler):
    """Gives rows up and tells nobody."""

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        return replace(super().plan(lane, now_ns), expired=())


class Dawdles(Scheduler):
    """Leaves a lane idle every now and then."""

    asked: ClassVar[int] = 0

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        type(self).asked += 1
        return Decision(None, ()) if self.asked % 7 == 0 else super().plan(lane, now_ns)


class Pads(Scheduler):
    """Says that a batch is shorter than its longest row."""

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        decision = super().plan(lane, now_ns)
        batch = decision.batch
        return decision if batch is None else replace(decision, batch=replace(batch, padded_length=1))


class StarvesBulk(Scheduler):
    """Never gives bulk lanes anything."""

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        return Decision(None, ()) if lane is LaneKind.BULK else super().plan(lane, now_ns)


class AdmitsEverything(Scheduler):
    """Asks whether a call fits as if it had all the time in the world."""

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy = OverloadPolicy.REJECT) -> None:
        deadline_ns, work.deadline_ns = work.deadline_ns, now_ns + 100 * NS_PER_S
        super().admit(work, now_ns, overload)
        work.deadline_ns = deadline_ns


class Optimist(Scheduler):
    """Believes that batches take half of what they take, whatever it sees."""

    def __init__(self, limits: SchedulerLimits, costs: CostModels) -> None:
        for _, _, table in costs.tables():
            table.median_ns[:] *= 0.5
            table.upper_ns[:] *= 0.5
        super().__init__(limits, costs)

    def complete(self, lane: LaneKind, plan: BatchPlan, times: BatchTimes) -> None:
        now_ns = times.start_ns + plan.predicted_ns
        self._live.ended(plan, min(now_ns, times.end_ns))


class Miser(Scheduler):
    """Gives bulk work nothing but idle cycles."""

    def __init__(self, limits: SchedulerLimits, costs: CostModels) -> None:
        serial = None if limits.serial is None else SerialLimits(fill_ns_max=0)
        super().__init__(replace(limits, bulk_share=0.0, serial=serial), costs)


class Spender(Scheduler):
    """Gives bulk work a third of the live lane."""

    def __init__(self, limits: SchedulerLimits, costs: CostModels) -> None:
        super().__init__(replace(limits, bulk_share=0.33), costs)


class KnowsNoTenants(Scheduler):
    """Takes all calls for those of one tenant."""

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy = OverloadPolicy.REJECT) -> None:
        work.tenant = ""
        super().admit(work, now_ns, overload)


class LastComeFirstServed(Scheduler):
    """Serves the latest call first."""

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy = OverloadPolicy.REJECT) -> None:
        deadline_ns, work.deadline_ns = work.deadline_ns, 1000 * NS_PER_S - now_ns
        super().admit(work, now_ns, overload)
        work.deadline_ns = deadline_ns


class Overfills(Scheduler):
    """Fills live batches with bulk rows as long as there are some."""

    def __init__(self, limits: SchedulerLimits, costs: CostModels) -> None:
        serial = SerialLimits(fill_ns_max=1000 * NS_PER_S)
        super().__init__(replace(limits, live_batch_tokens_max=4096, serial=serial), costs)

    def _room_ns(self, batch: BatchPlan, now_ns: int) -> float:
        return math.inf


class BlocksLong(Scheduler):
    """Takes bulk batches on a serial lane as large as bulk lanes do."""

    def __init__(self, limits: SchedulerLimits, costs: CostModels) -> None:
        super().__init__(replace(limits, serial=SerialLimits(block_ns=NS_PER_S)), costs)


class BindsAtOnce(Scheduler):
    """Chooses the next batch when the one before begins."""

    def choice_ns(self, now_ns: int) -> int:
        return now_ns


class ForgetsBulkThatRuns(Scheduler):
    """Admits live calls as if no bulk batch were on the serial lane."""

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        decision = super().plan(lane, now_ns)
        batch = decision.batch
        if batch is not None and all(part.work.request_class > RequestClass.LIVE for part in batch.parts):
            self._live.ended(batch, now_ns)
        return decision


def without_last_row(batch: BatchPlan) -> BatchPlan:
    *parts, last = batch.parts
    if len(last.rows) > 1:
        parts.append(BatchPart(last.work, last.rows[:-1]))
    lengths = np.concatenate([part.work.tokens.lengths[part.rows] for part in parts])
    return replace(
        batch,
        parts=tuple(parts),
        rows=len(lengths),
        padded_length=int(lengths.max()),
        tokens=int(lengths.sum()),
    )


def busy() -> Setting:
    return drawn(live=BUSY, bulk=ONE_JOB, duration_s=5.0)


def stalling() -> Setting:
    """A world in which admitted calls expire, since nobody can foresee stalls."""
    return drawn(live=BUSY, noise=Noise(stalls_per_s=8.0, stall_ms=400.0), duration_s=5.0)


def test_scheduler_that_is_not_broken_is_not_blamed() -> None:
    assert faults(run_ours(busy())) == {}


@pytest.mark.parametrize(
    ("broken", "checker"),
    [
        (BulkGoesFirst, "G1 live is not blocked"),
        (ComputesCancelled, "wanted rows only"),
        (DeliversTwice, "exactly once"),
        (LosesRows, "exactly once"),
        (Dawdles, "G6 work conservation"),
        (StarvesBulk, "G6 work conservation"),
        (Pads, "shapes"),
    ],
)
def test_broken_scheduler_is_caught_by_its_checker(broken: type[Scheduler], checker: str) -> None:
    assert checker in faults(run_ours(busy(), broken))


@pytest.mark.parametrize(
    ("broken", "checker"), [(ComputesExpired, "wanted rows only"), (ExpiresSilently, "exactly once")]
)
def test_broken_expiry_is_caught_by_its_checker(broken: type[Scheduler], checker: str) -> None:
    assert checker not in faults(run_ours(stalling()))
    assert checker in faults(run_ours(stalling(), broken))


def overloaded(**values: Any) -> Setting:
    """A world in which calls come faster than they can be computed, beside a job."""
    live = LiveTraffic(overload=1.5, lengths="sentences", deadline_ms=400.0)
    return drawn(live=live, bulk=ONE_JOB, duration_s=4.0, **values)


def alike(rate: float) -> Setting:
    """Calls of one length and no noise, which cannot overtake each other."""
    live = LiveTraffic(rate=rate, lengths="sentences", deadline_ms=400.0)
    calls = tuple(replace(each, lengths=np.array([20], np.int32)) for each in drawn(live=live).calls)
    return replace(drawn(live=live, noise=EXACT, duration_s=5.0), calls=calls)


def flooded() -> Setting:
    """Two tenants without deadlines; one sends much more than its half."""
    tenants = (TenantMix(name="flood", share=10.0), TenantMix(name="small"))
    live = LiveTraffic(overload=1.5, lengths="sentences", deadline_ms=0.0, tenants=tenants)
    return drawn(live=live, limits=Limits(live_tokens_max=1 << 20), duration_s=3.0)


def test_promises_hold_where_the_broken_ones_break() -> None:
    for setting in (overloaded(), overloaded(limits=Limits(bulk_share=0.1)), alike(100.0), flooded()):
        assert faults(run_ours(setting)) == {}


@pytest.mark.parametrize("broken", [AdmitsEverything, Optimist])
def test_broken_admission_makes_calls_late(broken: type[Scheduler]) -> None:
    assert "G3 admitted in time" in faults(run_ours(overloaded(), broken))


def test_bulk_that_starves_is_missed() -> None:
    """On a serial lane: on a CPU, live batches leave a part of the cores, and bulk work gets its share."""
    setting = overloaded(limits=Limits(bulk_share=0.1), machine=Machine(kind="serial"))
    assert "G4 bulk share" not in faults(run_ours(setting))
    assert "G4 bulk share" in faults(run_ours(setting, Miser))


def test_bulk_that_gets_too_much_blocks_live_calls() -> None:
    assert "G1 live is not blocked" in faults(run_ours(overloaded(), Spender))


def hurried_on_a_serial_lane() -> Setting:
    """Calls in a hurry beside a job, on one lane, where batches cost what is predicted."""
    live = LiveTraffic(rate=40.0, lengths="sentences", deadline_ms=60.0)
    limits = Limits(live_batch_tokens_max=1024, bulk_batch_tokens=1024)
    machine = Machine(kind="serial", live_gap_us=0.0, answer_us=0.0, call_us=0.0)
    return drawn(live=live, bulk=ONE_JOB, machine=machine, limits=limits, noise=EXACT, duration_s=5.0)


def test_serial_lane_that_is_not_broken_is_not_blamed() -> None:
    run = run_ours(hurried_on_a_serial_lane())
    assert faults(run) == {}
    assert sum(0 < batch.live_part < 1 for batch in run.record.batches) > 10


@pytest.mark.parametrize(
    ("broken", "checker"),
    [
        (Overfills, "G2 serial lane"),
        (BlocksLong, "G2 serial lane"),
        (BindsAtOnce, "late binding"),
        (ForgetsBulkThatRuns, "G3 admitted in time"),
    ],
)
def test_broken_serial_lane_is_caught_by_its_checker(broken: type[Scheduler], checker: str) -> None:
    assert checker in faults(run_ours(hurried_on_a_serial_lane(), broken))


def test_tenant_that_is_not_told_apart_is_overrun() -> None:
    assert "G5 tenants share" in faults(run_ours(flooded(), KnowsNoTenants))


def test_call_that_later_ones_overtake_waits_too_long() -> None:
    assert "G2 two units" in faults(run_ours(alike(150.0), LastComeFirstServed))
