"""The scheduler's promises, each checked on the record of a run. docs/simulation.md says what each means.

A checker reads the record alone: it shares no code with the scheduler that could be wrong in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import RequestClass
from penstock_server.simulation.metrics import is_late
from penstock_server.simulation.promises import (
    check_bulk_share,
    check_late_binding,
    check_live_is_not_blocked,
    check_serial_bounds,
    check_tenants_share,
    check_two_units,
)
from penstock_server.simulation.record import BatchRecord, Record, WorkRecord
from penstock_server.simulation.rules import Finding, Rules
from penstock_server.simulation.timeline import moments

# Of one kind of fault, this many are told; the others are counted.
_TOLD_MAX = 5

Checker = Callable[[Record, Rules], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a checker found.

    Attributes:
        checker: Its name.
        count: How many faults.
        told: The first of them.
    """

    checker: str
    count: int
    told: tuple[Finding, ...]


def check(record: Record, rules: Rules, *, peer: bool = False) -> list[Verdict]:
    """Runs the checkers; peers promise no more than that each row is answered once.

    Returns:
        One verdict for each checker, faults or none.
    """
    found: list[Verdict] = []
    for name, checker in (PEER_CHECKERS if peer else CHECKERS).items():
        faults = list(checker(record, rules))
        found.append(Verdict(name, len(faults), tuple(faults[:_TOLD_MAX])))
    return found


def check_exactly_once(record: Record, rules: Rules) -> Iterator[Finding]:
    """Every row is computed, and answered or failed, exactly once; rows of cancelled work at most once."""
    planned = {work: np.zeros(work.rows, np.int32) for work in record.works}
    for batch in record.batches:
        for part in batch.parts:
            np.add.at(planned[part.work], part.rows, 1)
    for work in record.works:
        outcomes = work.answered + work.failed
        least = int(work.is_admitted and work.cancelled_ns is None)
        if (outcomes > 1).any():
            yield _of_work(work, f"{int((outcomes > 1).sum())} rows were answered or failed more than once")
        if (outcomes < least).any():
            yield _of_work(work, f"{int((outcomes == 0).sum())} rows were neither answered nor failed")
        if (planned[work] > 1).any():
            yield _of_work(work, f"{int((planned[work] > 1).sum())} rows were computed more than once")
        if not work.is_admitted and (outcomes.any() or planned[work].any()):
            yield _of_work(work, "it was refused, and computed all the same")


def check_wanted_only(record: Record, rules: Rules) -> Iterator[Finding]:
    """No row is put into a batch that is cancelled, or whose deadline has passed."""
    for batch in record.batches:
        for part in batch.parts:
            work, deadline_ns = part.work, part.work.call.deadline_ns
            if work.cancelled_order is not None and work.cancelled_order < batch.order:
                yield _of_batch(batch, f"rows of call {work.number} were computed after it was cancelled")
            if deadline_ns is not None and deadline_ns <= batch.planned_ns:
                yield _of_batch(batch, f"rows of call {work.number} were computed after their deadline")


def check_shapes(record: Record, rules: Rules) -> Iterator[Finding]:
    """A batch has the shape that its plan says, and stays within its budget unless it is a single row."""
    for batch in record.batches:
        lengths = np.concatenate([part.work.call.lengths[part.rows] for part in batch.parts])
        shape = (len(lengths), int(lengths.max()), int(lengths.sum()))
        if shape != (batch.rows, batch.padded_length, batch.tokens):
            yield _of_batch(batch, f"its rows, length and tokens are {shape}")
        budget = rules.batch_tokens_max.get(batch.kind)
        if budget is not None and batch.rows > 1 and batch.rows * batch.padded_length > budget:
            yield _of_batch(batch, f"it has {batch.rows * batch.padded_length} tokens of {budget} at most")


def check_lanes(record: Record, rules: Rules) -> Iterator[Finding]:
    """A lane runs one batch at a time, live lanes live batches, and every batch ends."""
    for lane in record.lanes:
        free_ns = 0
        for batch in record.batches:
            if batch.lane != lane.name:
                continue
            if not batch.is_done or batch.start_ns < free_ns:
                yield _of_batch(
                    batch, f"it ran from {batch.start_ns} to {batch.end_ns} ns beside another one"
                )
            free_ns = batch.end_ns
            if batch.kind is LaneKind.BULK and not batch.is_bulk:
                yield _of_batch(batch, "live rows ran on a bulk lane")


def check_work_conservation(record: Record, rules: Rules) -> Iterator[Finding]:
    """G6: no lane is idle while work waits that it may run.

    FLEX and BULK work with a deadline waits for bulk lanes or, once that comes near, for the live lane: that
    it waits is only a fault if both are idle.
    """
    for moment in moments(record):
        if moment.until_ns == moment.at_ns:
            continue
        idle = [lane for lane in record.lanes if moment.busy[lane.name] < lane.slots]
        hurried = (
            moment.hurried_rows if {kind for lane in idle for kind in lane.kinds} == set(LaneKind) else 0
        )
        for lane in idle:
            rows = moment.live_rows if LaneKind.LIVE in lane.kinds else 0
            rows += hurried + (moment.patient_rows if LaneKind.BULK in lane.kinds else 0)
            if rows:
                idle_ns = moment.until_ns - moment.at_ns
                yield Finding(moment.at_ns, f"{lane.name} idle for {idle_ns:,} ns while {rows:,} rows waited")


def check_admitted_in_time(record: Record, rules: Rules) -> Iterator[Finding]:
    """G3: live calls that were admitted are answered by their deadlines, but for the share agreed on."""
    kept = [
        work
        for work in record.works
        if work.is_live and work.cancelled_ns is None and work.call.deadline_ns is not None
    ]
    late = [work for work in kept if is_late(work, rules.edge_ns)]
    if len(late) > rules.late_share_max * len(kept):
        told = f"{len(late)} of {len(kept)} admitted calls were late, {rules.late_share_max:.2%} may be"
        yield Finding(late[0].submitted_ns, f"{told}; the first is call {late[0].number}")


def check_critical_first(record: Record, rules: Rules) -> Iterator[Finding]:
    """A call of LIVE_CRITICAL starts before LIVE calls that came later."""
    started: dict[WorkRecord, int] = {}
    for batch in record.batches:
        for part in batch.parts:
            started.setdefault(part.work, batch.order)
    critical = [work for work in record.works if work.served_class is RequestClass.LIVE_CRITICAL]
    for work in critical:
        for other in record.works[work.number + 1 :]:
            if other.order > started.get(work, 0):
                break
            if other.served_class is RequestClass.LIVE and started.get(other, 1 << 62) < started.get(work, 0):
                yield _of_work(work, f"call {other.number}, which came later and is not critical, went first")


def _of_work(work: WorkRecord, text: str) -> Finding:
    return Finding(work.submitted_ns, f"call {work.number}: {text}")


def _of_batch(batch: BatchRecord, text: str) -> Finding:
    return Finding(batch.planned_ns, f"batch on {batch.lane}: {text}")


PEER_CHECKERS: dict[str, Checker] = {
    "exactly once": check_exactly_once,
    "wanted rows only": check_wanted_only,
    "lanes": check_lanes,
}
CHECKERS: dict[str, Checker] = {
    **PEER_CHECKERS,
    "shapes": check_shapes,
    "critical first": check_critical_first,
    "G1 live is not blocked": check_live_is_not_blocked,
    "G2 two units": check_two_units,
    "G2 serial lane": check_serial_bounds,
    "late binding": check_late_binding,
    "G3 admitted in time": check_admitted_in_time,
    "G4 bulk share": check_bulk_share,
    "G5 tenants share": check_tenants_share,
    "G6 work conservation": check_work_conservation,
}
