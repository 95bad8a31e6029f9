"""A checker that cannot fail proves nothing: each of these schedulers is broken in one way, and is caught."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.work import BatchPart, BatchPlan, Work
from penstock_server.scheduling.scheduler import Decision, Scheduler
from penstock_server.simulation.runner import Setting
from penstock_server.simulation.scenario import BulkJob, BulkTraffic, LiveTraffic, Noise
from tests.support.simulation import drawn, faults, run_ours

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
