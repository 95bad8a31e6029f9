"""The guarantees G1, G2, G4 and G5 of docs/simulation.md, checked on the record of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import RequestClass
from penstock_server.simulation.record import BatchRecord, Record, WorkRecord
from penstock_server.simulation.rules import Finding, Rules
from penstock_server.simulation.timeline import moments, waiting_before

# Promises are about predicted costs; true ones may exceed them by this in all.
_PREDICTION_SLACK = 1.25
# Lengths within this ratio are alike: a row more in the batch costs less than a batch of its own.
_ALIKE = 1.25


def check_live_is_not_blocked(record: Record, rules: Rules) -> Iterator[Finding]:
    """G1: on a lane that runs live batches no bulk batch starts while live rows wait, but for its share.

    The share: bulk batches that went first cost at most share / (1 - share) of the live batches so far, and
    one batch.
    """
    part = rules.bulk_share / (1 - rules.bulk_share)
    live_ns = first_ns = largest_ns = 0.0
    for batch, moment in waiting_before(record):
        if not _runs_live(record, batch):
            continue
        if not batch.is_bulk:
            live_ns += batch.busy_ns
        elif moment.live_rows and not _has_deadlines(batch):
            first_ns += batch.busy_ns
            largest_ns = max(largest_ns, batch.busy_ns) if part else 0.0
            if first_ns > (part * live_ns + largest_ns) * _PREDICTION_SLACK:
                yield Finding(
                    batch.planned_ns, f"a bulk batch went before {moment.live_rows} waiting live rows"
                )


def check_two_units(record: Record, rules: Rules) -> Iterator[Finding]:
    """G2: a call is answered within two of the largest batches if all that is ahead of it fits into one.

    In general within one batch more than those ahead of it, and a bulk batch that is due. Ahead of it: live
    rows that wait when it comes. Checked where calls cannot overtake each other and have like lengths; what
    fits into a batch is then what the smallest batch had that left rows waiting.
    """
    live = [batch for batch in record.batches if _runs_live(record, batch)]
    works = [work for work in record.works if work.is_live]
    if not any(not batch.is_bulk for batch in live) or not _come_in_order(works):
        return
    unit_ns = max(batch.end_ns - batch.start_ns for batch in live if not batch.is_bulk) + rules.gap_ns
    due_ns = max((batch.end_ns - batch.start_ns for batch in live if batch.is_bulk), default=0) + rules.gap_ns
    full_rows = _rows_of_full_batches(record)
    planned = _last_planned(record)
    ahead: list[WorkRecord] = []
    for work in works:
        ahead = [*(other for other in ahead if planned.get(other, -1) > work.order), work]
        batches = 1 + max(1, math.ceil(sum(other.rows for other in ahead) / full_rows))
        took_ns = (work.done_ns or 0) - work.submitted_ns
        if work.cancelled_ns is None and took_ns > batches * unit_ns + batches * due_ns:
            told = f"call {work.number} took {took_ns:,} ns with {batches - 1} batches ahead"
            yield Finding(work.submitted_ns, f"{told}; a batch takes {unit_ns:,} at most")


def check_serial_bounds(record: Record, rules: Rules) -> Iterator[Finding]:
    """G2 on a serial lane: bulk batches are as short as they must be, and filled ones leave time for two.

    A live batch with bulk rows takes at most half of the time that its callers have allowed, so that a call
    that comes just after it has begun is in time with the next. A single row may take longer; rows with
    deadlines of their own may be there because those came near.
    """
    if rules.block_ns is None:
        return
    for batch in record.batches:
        bulk = [part for part in batch.parts if not part.work.is_live]
        if not bulk or any(part.work.call.deadline_ns is not None for part in bulk):
            continue
        allowed_ns = float(rules.block_ns) if batch.is_bulk else _half_of_patience_ns(batch, rules)
        if batch.rows > 1 and batch.live_cost_ns > allowed_ns * _PREDICTION_SLACK:
            what = "bulk" if batch.is_bulk else "filled"
            told = f"a {what} batch takes {batch.live_cost_ns:,.0f} ns"
            yield Finding(batch.planned_ns, f"{told}; {allowed_ns:,.0f} may be")


def check_late_binding(record: Record, rules: Rules) -> Iterator[Finding]:
    """A batch for a serial lane is chosen just before the one that runs there ends, not when that starts.

    Before its likely end, that is: it may take longer than that.
    """
    if rules.block_ns is None:
        return
    ran = sorted((batch for batch in record.batches if batch.is_done), key=lambda batch: batch.start_ns)
    for before, batch in pairwise(ran):
        longer_ns = max(0.0, before.busy_ns - before.live_cost_ns / _PREDICTION_SLACK)
        allowed_ns = rules.bind_ahead_ns + rules.gap_ns + longer_ns
        if batch.start_ns - batch.planned_ns > allowed_ns:
            told = f"a batch was chosen {batch.start_ns - batch.planned_ns:,} ns before it began"
            yield Finding(batch.planned_ns, f"{told}; {allowed_ns:,.0f} may be")


def _half_of_patience_ns(batch: BatchRecord, rules: Rules) -> float:
    calls = [part.work.call for part in batch.parts if part.work.is_live]
    patience_ns = [call.deadline_ns - call.arrival_ns for call in calls if call.deadline_ns is not None]
    return (min(patience_ns) - rules.margin_ns) / 2 if patience_ns else math.inf


def _rows_of_full_batches(record: Record) -> float:
    """Rows of the smallest live batch that left live rows waiting; infinite if none did."""
    full = math.inf
    for batch, moment in waiting_before(record):
        if not batch.is_bulk and moment.live_rows > batch.rows:
            full = min(full, batch.rows)
    return full


def _come_in_order(works: list[WorkRecord]) -> bool:
    """Whether no call can overtake another: one class, tenant and time until the deadline, like lengths."""
    lengths = np.concatenate([work.call.lengths for work in works])
    kinds = {
        (work.served_class, work.call.tenant, (work.call.deadline_ns or 0) - work.call.arrival_ns)
        for work in works
    }
    is_alike = bool(lengths.max() <= _ALIKE * lengths.min())
    return len(kinds) == 1 and works[0].call.deadline_ns is not None and is_alike


def check_bulk_share(record: Record, rules: Rules) -> Iterator[Finding]:
    """G4: while bulk work waits it gets its share of the live lane's time.

    What bulk batches cost, by the live lane's table, never falls behind share x time by more than one batch
    that is due, one that is under way, and the share of the live batch before it.
    """
    if not rules.bulk_share:
        return
    live_ns = max((batch.live_cost_ns for batch in record.batches if not batch.is_bulk), default=0.0)
    slack_ns = (2 * rules.bulk_unit_ns + rules.bulk_share * live_ns) * _PREDICTION_SLACK
    lead_ns = best_ns = 0.0
    for moment in moments(record):
        lead_ns += sum(batch.live_cost_ns * (1 - batch.live_part) for batch in moment.ended)
        best_ns = max(best_ns, lead_ns)
        if not moment.bulk_rows:
            lead_ns = best_ns = 0.0
            continue
        lead_ns -= rules.bulk_share * (moment.until_ns - moment.at_ns)
        if best_ns - lead_ns > slack_ns:
            yield Finding(
                moment.at_ns, f"bulk work waits and is {best_ns - lead_ns:,.0f} ns behind its share"
            )
            lead_ns = best_ns = 0.0


@dataclass(slots=True)
class _Tenants:
    """By how much the first of two tenants was served more than the second since both wait, by weight."""

    ahead_ns: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])

    def keep(self, waiting: set[str]) -> None:
        """Forgets pairs of which one does not wait any more, and begins those that now do."""
        pairs = combinations(sorted(waiting), 2)
        self.ahead_ns = {names: self.ahead_ns.get(names, 0.0) for names in pairs}

    def serve(self, tenant: str, cost_ns: float) -> Iterator[tuple[str, str]]:
        """Counts service; yields pairs in which that tenant now is further ahead than it was behind."""
        for names, ahead_ns in self.ahead_ns.items():
            if tenant in names:
                after_ns = ahead_ns + (cost_ns if tenant == names[0] else -cost_ns)
                self.ahead_ns[names] = after_ns
                if abs(after_ns) > abs(ahead_ns):
                    yield names


def check_tenants_share(record: Record, rules: Rules) -> Iterator[Finding]:
    """G5: of two tenants that wait, none gets ahead of the other by more than it may.

    The scheduler lets a tenant be ahead by the quantum and a batch, over its weight; since both wait that may
    be twice as much, as it may have been behind before. LIVE_CRITICAL goes before all others, so tenants
    who have some are left out; so are batches without which a call would be late that was admitted.
    """
    critical = {work.call.tenant for work in record.works if work.served_class is RequestClass.LIVE_CRITICAL}
    weights = {
        work.call.tenant: work.call.weight
        for work in record.works
        if not work.call.flow and work.call.tenant not in critical
    }
    live = [batch for batch in record.batches if not batch.is_bulk]
    if len(weights) < 2 or not live:
        return
    full_ns = max(batch.live_cost_ns for batch in live)
    bound_ns = 2 * (rules.quantum_ns + full_ns / min(weights.values())) * _PREDICTION_SLACK
    tenants = _Tenants()
    for batch, moment in waiting_before(record):
        tenants.keep({tenant for tenant, rows in moment.waiting_live.items() if rows and tenant in weights})
        for tenant, cost_ns in _costs_by_tenant(batch).items():
            for names in tenants.serve(tenant, cost_ns / weights.get(tenant, 1.0)):
                ahead_ns = abs(tenants.ahead_ns[names])
                if ahead_ns > bound_ns and _least_slack_ns(record, batch) > bound_ns:
                    told = f"of {names[0]!r} and {names[1]!r}, who both wait, one is {ahead_ns:,.0f} ns ahead"
                    yield Finding(batch.planned_ns, f"{told}; {bound_ns:,.0f} may be")


def _least_slack_ns(record: Record, chosen: BatchRecord) -> float:
    """By how much the tightest live call that waits would be early, if all ran in order of deadlines.

    Calls cost what they were predicted to in the batches that they came into.
    """
    left: dict[WorkRecord, float] = {}
    for batch in record.batches:
        if batch.order >= chosen.order and batch.kind is LaneKind.LIVE:
            for part in batch.parts:
                cost_ns = max(batch.predicted_ns or 0, batch.live_cost_ns) * part.tokens / batch.tokens
                left[part.work] = left.get(part.work, 0.0) + cost_ns
    due_ns, least_ns = float(chosen.planned_ns), math.inf
    waiting = (work for work in left if work.is_live and work.order < chosen.order)
    for work in sorted(waiting, key=lambda work: work.call.deadline_ns or math.inf):
        due_ns += left[work]
        least_ns = min(least_ns, (work.call.deadline_ns or math.inf) - due_ns)
    return least_ns


def _costs_by_tenant(batch: BatchRecord) -> dict[str, float]:
    """What tenants' calls cost the live lane, FLEX ones that were promoted included, jobs not."""
    costs: dict[str, float] = {}
    for part in batch.parts:
        call = part.work.call
        if batch.kind is LaneKind.LIVE and not call.flow:
            cost_ns = batch.live_cost_ns * part.tokens / batch.tokens
            costs[call.tenant] = costs.get(call.tenant, 0.0) + cost_ns
    return costs


def _runs_live(record: Record, batch: BatchRecord) -> bool:
    return any(lane.name == batch.lane and LaneKind.LIVE in lane.kinds for lane in record.lanes)


def _has_deadlines(batch: BatchRecord) -> bool:
    """Whether it is work that is promoted when its deadline comes near."""
    return all(part.work.call.deadline_ns is not None for part in batch.parts)


def _last_planned(record: Record) -> dict[WorkRecord, int]:
    """When the last rows of each work were put into a batch."""
    return {part.work: batch.order for batch in record.batches for part in batch.parts}
