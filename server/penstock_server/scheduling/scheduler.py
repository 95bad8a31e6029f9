"""Decides which rows make the next batch on a lane, and which work may be promised an answer in time.

Synchronous and deterministic: time is an argument, nothing awaits, nothing is read from outside. The
dispatcher of the server and a simulator on a virtual clock run the same code.

Live work waits in a schedule that is kept feasible (`penstock_server.scheduling.live_lane`). FLEX goes before
BULK but for a minimum share; both get the cycles that live work leaves, a minimum share of the live lane, and
the live lane itself when a deadline of theirs comes near. Decision record 0009 has the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from penstock_server.domain.errors import PenstockError
from penstock_server.domain.lane import LaneKind as LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan, BatchTimes, Work
from penstock_server.scheduling.admission import Refusals, already_late, too_large
from penstock_server.scheduling.bulk_queue import BulkQueue
from penstock_server.scheduling.cost import CostModels
from penstock_server.scheduling.credit import BulkCredit
from penstock_server.scheduling.limits import SchedulerLimits as SchedulerLimits
from penstock_server.scheduling.limits import TenantPolicy as TenantPolicy
from penstock_server.scheduling.live_lane import LiveLane, Verdict
from penstock_server.scheduling.promotion import Promotions
from penstock_server.scheduling.queues import tokens_of
from penstock_server.scheduling.tenants import Tenant, Tenants


@dataclass(frozen=True, slots=True)
class Decision:
    """What a lane does next, and which rows are given up because their deadline has passed.

    Attributes:
        batch: The lane's next batch, if there is work for it.
        expired: Rows that nobody can use any more.
        wakes: Kinds of lanes that have something to do since this decision, and should ask if they are idle.
    """

    batch: BatchPlan | None
    expired: tuple[BatchPart, ...] = ()
    wakes: tuple[LaneKind, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What waits in one class."""

    rows: int
    tokens: int


# Works that are offered to the live lane in one plan: about a batch. More would hold up the lane that asks.
_OFFERED_MAX = 8
# Works that are looked at for it; most of them may have left since.
_DUE_MAX = 64

# Why work is refused, in words if anybody is told them.
Refusal: TypeAlias = Callable[[], PenstockError]

_DEMOTIONS = {
    OverloadPolicy.REJECT: None,
    OverloadPolicy.DEMOTE_TO_FLEX: RequestClass.FLEX,
    OverloadPolicy.DEMOTE_TO_BULK: RequestClass.BULK,
}


class Scheduler:
    """Queues of work, and the choice of the next batch. Owned by one thread.

    Args:
        limits: Bounds and weights.
        costs: What batches cost; it learns from those that run.
    """

    def __init__(self, limits: SchedulerLimits, costs: CostModels) -> None:
        self._limits = limits
        self._costs = costs
        self._credit = BulkCredit(limits.bulk_share)
        self._live = LiveLane(limits, costs, self._credit.rate)
        live = self._live.queue
        self._tenants = Tenants(
            limits, add_index=live.add_tenant, reuse_index=live.set_weight, waits=self._waits_for_anything
        )
        self._flex = self._bulk_queue(limits.flex_tokens_max)
        self._jobs = self._bulk_queue(limits.bulk_tokens_max)
        self._bulk = {RequestClass.FLEX: self._flex, RequestClass.BULK: self._jobs}
        # What BULK has coming of what FLEX and BULK get.
        self._beside_flex = BulkCredit(limits.bulk_beside_flex)
        self._promotions = Promotions(costs, limits.live_margin_ns)
        self._refusals = Refusals()
        # About what the next bulk batch would cost the live lane.
        self._unit_ns = 0

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy = OverloadPolicy.REJECT) -> None:
        """Queues work, possibly in a lower class. O(log n).

        Args:
            work: At least one row; its ``request_class`` is lowered if it is demoted.
            now_ns: The time.
            overload: What may happen if it cannot be computed in time, or its queue is full.

        Raises:
            DeadlineUnmeetable: The deadline has passed, or not even an idle lane could make it.
            InvalidRequest: The work is larger than the whole queue of its class and may not be demoted.
            Overloaded: It would be late or make others late, its queue is full, or its tenant is at a limit.
        """
        if work.deadline_ns is not None and work.deadline_ns <= now_ns:
            raise already_late()
        tokens = tokens_of(work)
        tenant = self._tenants.find(work.tenant, now_ns)
        is_of_job = work.request_class is RequestClass.BULK
        if tenant.is_limited and not is_of_job:
            self._check_tenant(tenant, tokens, now_ns)
        refusal = self._place(work, work.request_class, tenant, tokens, now_ns)
        if refusal is not None:
            lower = _DEMOTIONS[overload]
            if lower is None or lower <= work.request_class:
                raise refusal()
            if self._place(work, lower, tenant, tokens, now_ns) is not None:
                raise refusal()
            work.request_class = lower
        if tenant.is_limited and not is_of_job:
            self._tenants.take(tenant, tokens)

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        """Chooses the next batch of a lane and removes its rows from the queues.

        Cancelled rows are skipped, expired rows are returned and never computed.
        """
        expired = self._live.expire(now_ns)
        for queue in self._bulk.values():
            expired += queue.expire(now_ns)
        promoted = self._promote(now_ns)
        batch = self._plan_live(now_ns) if lane is LaneKind.LIVE else self._take_bulk(lane)
        if batch is not None:
            for part in batch.parts:
                part.work.started = True
        return Decision(batch, tuple(expired), (LaneKind.LIVE,) if promoted else ())

    def choice_ns(self, now_ns: int) -> int:
        """When the next batch of a serial lane must be chosen, so that the lane does not wait for it.

        A little before the likely end of what runs and of what has been chosen after it; now if nothing runs.
        Chosen earlier, a bulk batch would make live calls wait that come meanwhile.
        """
        serial = self._limits.serial
        ahead_ns = 0 if serial is None else serial.bind_ahead_ns
        return max(now_ns, self._live.likely_end_ns(now_ns) - ahead_ns)

    def complete(self, lane: LaneKind, plan: BatchPlan, times: BatchTimes) -> None:
        """Learns from a batch that has run."""
        table = self._costs.table(plan.model, lane)
        table.observe(plan.rows, plan.padded_length, times.cpu_ns)
        is_bulk = plan.parts[0].work.request_class > RequestClass.LIVE
        if lane is LaneKind.LIVE:
            self._live.ended(plan, times.end_ns)
            self._live.reprice(plan.model)
            if not is_bulk and self._bulk_waits():
                self._credit.grow(_live_part_ns(plan, times.cpu_ns), self._unit_ns)
        elif is_bulk and self._credit.rate:
            live_cost = self._costs.table(plan.model, LaneKind.LIVE).predict(plan.rows, plan.padded_length)
            self._credit.fall(round(live_cost.upper_ns))

    def failed(self, lane: LaneKind, plan: BatchPlan, now_ns: int, again: Sequence[BatchPlan] = ()) -> None:
        """Hears that a batch has no outputs, and which batches of its rows run in its place, one by one.

        Each of those is completed or fails as well; so does one of which nothing is wanted any more.
        """
        if lane is LaneKind.LIVE:
            self._live.ended(plan, now_ns, again)

    def cancel(self, work: Work) -> None:
        """Drops the rows of a work that are not in a batch yet. No effect the second time."""
        work.cancelled = True
        if not self._live.queue.cancel(work) and work.request_class in self._bulk:
            self._bulk[work.request_class].drop(work)

    def depth(self, request_class: RequestClass) -> QueueDepth:
        """What waits in one class now."""
        live = self._live.queue
        rows, tokens = live.waiting_rows(request_class), live.waiting_tokens(request_class)
        queue = self._bulk.get(request_class)
        return (
            QueueDepth(rows, tokens)
            if queue is None
            else QueueDepth(rows + queue.rows, tokens + queue.tokens)
        )

    def bulk_ns_per_token(self, model: ModelKey) -> float:
        """About what a token of bulk work costs a lane, in nanoseconds."""
        lane = LaneKind.BULK if self._limits.serial is None else LaneKind.LIVE
        return self._costs.table(model, lane).ns_per_token()

    def _place(
        self, work: Work, request_class: RequestClass, tenant: Tenant, tokens: int, now_ns: int
    ) -> Refusal | None:
        """Queues work in a class, or says why not."""
        if request_class in self._bulk:
            return self._place_bulk(work, request_class, tenant, tokens)
        waiting, most = self._live.queue.waiting_tokens(request_class), self._limits.live_tokens_max
        if waiting + tokens > most:
            return self._no_room(work, request_class, LaneKind.LIVE, tokens, waiting, most)
        shares = self._tenants.shares(tenant, now_ns)
        kept_ns = self._keep_for_bulk(work, now_ns)
        offer = self._live.offer(work, work.rows, tenant.index, now_ns, kept_ns=kept_ns, shares=shares)
        if offer.verdict is not Verdict.UNMEETABLE:
            self._tenants.use(tenant, offer.cost_ns, shares)
        return None if offer.verdict is Verdict.ADMITTED else partial(self._refusals.of_offer, offer, work)

    def _place_bulk(
        self, work: Work, request_class: RequestClass, tenant: Tenant, tokens: int
    ) -> Refusal | None:
        queue = self._bulk[request_class]
        if not queue.has_room(tokens):
            return self._no_room(work, request_class, LaneKind.BULK, tokens, queue.tokens, queue.tokens_max)
        queue.push(work, tenant.name, tenant.policy.weight)
        # Not a job's window: promised as a whole, it would leave live calls no room for as long as it takes.
        if request_class is RequestClass.FLEX or not work.flow:
            self._promotions.add(work)
        if not self._unit_ns:
            self._unit_ns = queue.unit_ns(LaneKind.LIVE)
        return None

    def _no_room(
        self, work: Work, request_class: RequestClass, lane: LaneKind, tokens: int, waiting: int, most: int
    ) -> Refusal:
        if tokens > most:
            return partial(too_large, request_class, tokens, most)
        drain_ns = (waiting + tokens - most) * self._costs.table(work.model, lane).ns_per_token()
        return partial(self._refusals.of_queue, request_class, waiting, most, drain_ns)

    def _keep_for_bulk(self, work: Work, now_ns: int) -> int:
        """Keeps waiting bulk work its share of each batch; returns what it may take beyond by a deadline."""
        bulk_waits = self._bulk_waits()
        self._live.reserve(is_wanted=bulk_waits)
        if not self._credit.rate or work.deadline_ns is None or not bulk_waits:
            return 0
        return self._credit.due_within(work.deadline_ns - now_ns, self._unit_ns)

    def _plan_live(self, now_ns: int) -> BatchPlan | None:
        serial = self._limits.serial
        if len(self._live.queue):
            batch = self._share_batch(now_ns) or self._take_live(now_ns)
        elif serial is not None:
            batch = self._take_bulk(LaneKind.LIVE, serial.block_ns)
            self._credit.fall(0 if batch is None else batch.predicted_ns)
        else:
            return None
        if batch is not None:
            self._live.started(batch, now_ns)
        return batch

    def _take_live(self, now_ns: int) -> BatchPlan | None:
        """The next live batch; on a serial lane, filled up with bulk rows."""
        batch = self._live.take(now_ns)
        serial = self._limits.serial
        if batch is None or serial is None or not self._bulk_waits():
            return batch
        cap_ns = min(float(serial.fill_ns_max), self._room_ns(batch, now_ns))
        tokens_max = max(self._limits.live_batch_tokens_max, self._limits.bulk_batch_tokens)
        first = self._next_bulk(LaneKind.LIVE)
        for queue in sorted(self._bulk.values(), key=lambda queue: queue is not first):
            filled = queue.fill(batch, LaneKind.LIVE, cap_ns, tokens_max)
            added_ns = filled.predicted_ns - batch.predicted_ns
            self._credit.fall(added_ns)
            if queue is self._jobs:
                self._beside_flex.fall(added_ns)
            elif added_ns and self._jobs.rows:
                self._beside_flex.grow(added_ns, self._jobs.unit_ns(LaneKind.LIVE))
            batch = filled
        return batch

    def _room_ns(self, batch: BatchPlan, now_ns: int) -> float:
        """How long a live batch may take with bulk rows in it.

        Half of the time that its callers have allowed: what comes just after it has begun waits that long and
        is in time with a batch of its own. And no longer than its rows and all that waits can bear.
        """
        free_ns, margin_ns = self._live.free_ns(now_ns), self._limits.live_margin_ns
        room_ns = batch.predicted_ns + float(self._live.queue.least_slack(free_ns + batch.predicted_ns))
        for part in batch.parts:
            deadline_ns = part.work.deadline_ns
            if deadline_ns is not None:
                half_ns = (deadline_ns - part.work.arrival_ns - margin_ns) / 2
                room_ns = min(room_ns, half_ns, deadline_ns - margin_ns - free_ns)
        return room_ns

    def _share_batch(self, now_ns: int) -> BatchPlan | None:
        """A bulk batch for the live lane, if bulk work has one coming and no promise is broken by it."""
        if not self._credit.rate:
            return None
        queue = self._next_bulk(LaneKind.LIVE)
        if queue is None:
            self._credit.clear()
            self._unit_ns = 0
            return None
        serial = self._limits.serial
        block_ns = math.inf if serial is None else serial.block_ns
        self._unit_ns = queue.unit_ns(LaneKind.LIVE, block_ns)
        free_ns = self._live.free_ns(now_ns)
        if not self._credit.covers(self._unit_ns) or self._live.queue.least_slack(free_ns) < self._unit_ns:
            return None
        # No more than was asked for: other works may fill the head's batch up.
        batch = self._take_bulk(LaneKind.LIVE, cap_ns=self._unit_ns)
        if batch is not None:
            self._credit.fall(batch.predicted_ns)
        return batch

    def _promote(self, now_ns: int) -> bool:
        """Offers bulk work whose deadline comes near to the live lane; whether it took any."""
        if not self._promotions:
            return False
        self._promotions.tidy(self._waits_for_idle, sum(map(len, self._bulk.values())))
        queue_ns = self._live.queue.cost()
        offered = promoted = 0
        for _ in range(_DUE_MAX):
            # What is popped must be offered: it would not be thought of again.
            if offered == _OFFERED_MAX or (work := self._promotions.pop(now_ns, queue_ns)) is None:
                break
            if self._waits_for_idle(work):
                offered += 1
                promoted += self._promote_work(work, now_ns, queue_ns)
        return promoted > 0

    def _promote_work(self, work: Work, now_ns: int, queue_ns: int) -> bool:
        queue = self._bulk[work.request_class]
        tenant = self._tenants.find(work.tenant, now_ns)
        offer = self._live.offer(work, queue.waiting_rows(work).copy(), tenant.index, now_ns)
        if offer.verdict is Verdict.ADMITTED:
            queue.drop(work)
            return True
        if offer.verdict is not Verdict.UNMEETABLE:
            self._promotions.again(work, now_ns, queue_ns)
        return False

    def _waits_for_idle(self, work: Work) -> bool:
        return work in self._bulk[work.request_class]

    def _check_tenant(self, tenant: Tenant, tokens: int, now_ns: int) -> None:
        if tenant.policy.queue_tokens_max is not None:
            queued = self._live.queue.queued_tokens(tenant.index)
            queued += self._flex.tokens_of(tenant.name)
            self._tenants.check_queue(tenant, tokens, queued)
        self._tenants.check_rate(tenant, tokens, now_ns)

    def _waits_for_anything(self, tenant: Tenant) -> bool:
        bulk = any(queue.tokens_of(tenant.name) for queue in self._bulk.values())
        return bulk or self._live.queue.queued_cost(tenant.index) > 0

    def _bulk_waits(self) -> bool:
        return self._flex.rows > 0 or self._jobs.rows > 0

    def _next_bulk(self, lane: LaneKind) -> BulkQueue | None:
        """The queue whose turn it is: FLEX first, but for what BULK has coming; None if nothing waits."""
        flex, bulk = self._flex, self._jobs
        if flex.rows and bulk.rows:
            return bulk if self._beside_flex.covers(bulk.unit_ns(lane)) else flex
        return flex if flex.rows else bulk if bulk.rows else None

    def _take_bulk(self, lane: LaneKind, cap_ns: float = math.inf) -> BatchPlan | None:
        """The next batch of FLEX or BULK."""
        queue = self._next_bulk(lane)
        batch = None if queue is None else queue.take(lane, cap_ns)
        bulk = self._jobs
        if batch is None or queue is bulk:
            self._beside_flex.fall(0 if batch is None else batch.predicted_ns)
        elif bulk.rows:
            self._beside_flex.grow(batch.predicted_ns, bulk.unit_ns(lane))
        else:
            self._beside_flex.clear()
        return batch

    def _bulk_queue(self, tokens_max: int) -> BulkQueue:
        limits = self._limits
        return BulkQueue(
            tokens_max,
            limits.bulk_batch_tokens,
            limits.lookahead_rows,
            limits.quantum_ns,
            self._costs,
            limits.bulk_short_ns,
        )


def _live_part_ns(plan: BatchPlan, cpu_ns: int) -> int:
    """What of a batch's time its live rows took, by tokens: bulk rows may have filled it up."""
    if plan.parts[-1].work.request_class <= RequestClass.LIVE:
        return cpu_ns
    live = [part for part in plan.parts if part.work.request_class <= RequestClass.LIVE]
    tokens = sum(int(part.work.tokens.lengths[part.rows].sum()) for part in live)
    return cpu_ns * tokens // plan.tokens
