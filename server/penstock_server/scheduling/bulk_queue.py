"""Work that waits for idle cycles: tenants share the lanes by weight, rows of like length share batches."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.work import BatchPart, BatchPlan, Work
from penstock_server.scheduling.cost import CostModels, CostTable
from penstock_server.scheduling.fair_order import FairOrder, Turn
from penstock_server.scheduling.limits import SHORT_BATCH_BUDGETS
from penstock_server.scheduling.queues import DeadlineQueue, QueuedWork, urgency_ns

# Those that wait for nothing are forgotten beyond this many, or twice what was left the last time.
_IDLE_MAX = 1024
# Rows that fill a live batch may cost this much more there than in a batch of their own: noise of the table.
_FREE = 0.02
# Works that have left stay among the deadlines until they are half of them, and this many at least.
_DEAD_MAX = 64


@dataclass(eq=False, slots=True)
class Flow:
    """A job's windows, or a tenant's calls.

    Attributes:
        share: The tenant's.
        turn: Among the tenant's flows.
        by_model: Its works that wait, by model version.
    """

    share: Share
    turn: Turn
    by_model: dict[ModelKey, DeadlineQueue] = field(default_factory=dict[ModelKey, DeadlineQueue])

    def head(self) -> QueuedWork | None:
        """Its most urgent work."""
        if len(self.by_model) == 1:
            return next(iter(self.by_model.values())).head()
        best: QueuedWork | None = None
        for queue in self.by_model.values():
            head = queue.head()
            if head is not None and (best is None or _order(head) < _order(best)):
                best = head
        return best


@dataclass(eq=False, slots=True)
class Share:
    """All that waits of one tenant.

    Attributes:
        turn: Among tenants.
        order: Of its flows.
        flows: They, by job; its calls have no job.
        tokens: Their tokens that wait.
        flows_max: When to forget those that wait for nothing.
    """

    turn: Turn
    order: FairOrder[Flow]
    flows: dict[str, Flow] = field(default_factory=dict[str, Flow])
    tokens: int = 0
    flows_max: int = _IDLE_MAX


class _Waiting(NamedTuple):
    queued: QueuedWork
    flow: Flow


def _order(queued: QueuedWork) -> tuple[int, int, ModelKey]:
    return urgency_ns(queued.work), queued.work.arrival_ns, queued.work.model


class BulkQueue:
    """All work of one class that waits for idle cycles, with a bound on its tokens.

    Tenants share by weight, and so do the flows of a tenant: a tenant has no more for having more jobs. The
    most urgent work of those within ``quantum_ns`` of the last one goes next. O(log n) for each work that is
    looked at.

    Args:
        tokens_max: Tokens that may wait.
        batch_tokens_max: Most tokens of a batch, with padding.
        lookahead: Works of all flows that are looked at to fill a batch, and as many flows and tenants.
        quantum_ns: How far ahead of the last flow or tenant another one may be.
        costs: What batches cost.
    """

    def __init__(
        self,
        tokens_max: int,
        batch_tokens_max: int,
        lookahead: int,
        quantum_ns: int,
        costs: CostModels,
        short_ns: int = 0,
    ) -> None:
        self.tokens_max = tokens_max
        self.tokens = 0
        self.rows = 0
        self._batch_tokens_max = batch_tokens_max
        self._lookahead = lookahead
        self._quantum_ns = quantum_ns
        self._costs = costs
        self._short_ns = short_ns
        self._order: FairOrder[Share] = FairOrder(quantum_ns)
        self._shares: dict[str, Share] = {}
        self._shares_max = _IDLE_MAX
        self._waiting: dict[Work, _Waiting] = {}
        self._deadlines: list[tuple[int, int, Work]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, work: Work) -> bool:
        return work in self._waiting

    def has_room(self, tokens: int) -> bool:
        """Whether ``tokens`` more may wait."""
        return self.tokens + tokens <= self.tokens_max

    def push(self, work: Work, tenant: str, weight: float) -> None:
        """Adds work.

        Args:
            work: Has at least one row.
            tenant: Whose share it takes.
            weight: The tenant's against other tenants; the job's against its other jobs is the work's own.
        """
        queued = QueuedWork.of(work)
        flow = self._flow_of(work, tenant, weight)
        flow.by_model.setdefault(work.model, DeadlineQueue()).push(queued)
        self._waiting[work] = _Waiting(queued, flow)
        self._account(flow, queued.rows_left, queued.tokens_left)
        self._settle(flow)
        if work.deadline_ns is not None:
            self._watch(work.deadline_ns, work)

    def drop(self, work: Work) -> NDArray[np.int32]:
        """Removes all rows of a work that still wait, and returns them."""
        waiting = self._waiting.get(work)
        if waiting is None:
            return np.empty(0, dtype=np.int32)
        queued, flow = waiting
        rows = self._take(flow, queued, queued.rows_left)
        flow.by_model[work.model].note_dead()
        self._settle(flow)
        return rows

    def expire(self, now_ns: int) -> list[BatchPart]:
        """Removes all work whose deadline has passed."""
        expired: list[BatchPart] = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            work = heapq.heappop(self._deadlines)[2]
            if work in self._waiting:
                expired.append(BatchPart(work, self.drop(work)))
        return expired

    def tokens_of(self, tenant: str) -> int:
        """Tokens of a tenant that wait."""
        share = self._shares.get(tenant)
        return 0 if share is None else share.tokens

    def waiting_rows(self, work: Work) -> NDArray[np.int32]:
        """Indices of a work's rows that wait, longest first."""
        queued = self._waiting[work].queued
        return queued.order[queued.next_row :]

    def head(self) -> QueuedWork | None:
        """The work that the next batch begins with."""
        share = self._order.choose()
        flow = None if share is None else share.order.choose()
        return None if flow is None else flow.head()

    def unit_ns(self, lane: LaneKind, cap_ns: float = math.inf) -> int:
        """Upper cost of about the next batch, if it ran on a lane of this kind; 0 if nothing waits."""
        head = self.head()
        if head is None:
            return 0
        table = self._costs.table(head.work.model, lane)
        rows = min(self._draft(table, cap_ns).rows_full(head.next_length), head.rows_left)
        # Never less than such a batch costs, or it would not fit where this is the cap.
        return math.ceil(table.predict(rows, head.next_length).upper_ns)

    def take(self, lane: LaneKind, cap_ns: float = math.inf) -> BatchPlan | None:
        """Removes the next batch; None if nothing waits.

        Args:
            lane: The kind of lane that will run it.
            cap_ns: Its upper cost must not exceed this, but for a single row's.
        """
        head = self.head()
        if head is None:
            return None
        model = head.work.model
        draft = self._draft(self._costs.table(model, lane), cap_ns)
        left = self._lookahead
        with closing(self._flows_in_turn(model)) as flows:
            for flow in flows:
                left -= self._take_from(flow, model, draft, left)
                if draft.is_full or left <= 0:
                    break
        self._charge(draft.taken, draft.upper_ns)
        return draft.plan(model)

    def fill(self, batch: BatchPlan, lane: LaneKind, cap_ns: float, tokens_max: int) -> BatchPlan:
        """Adds rows to a batch that cost no more there than in the best batch of their own.

        They are no longer than its longest row. Flows take their turns, and pay what their rows add.

        Args:
            batch: Of the same model version.
            lane: The kind of lane that will run it.
            cap_ns: Most upper cost of the batch.
            tokens_max: Most tokens of the batch, with padding.
        """
        filler = _Filler(self._costs.table(batch.model, lane), batch, cap_ns, tokens_max)
        left = self._lookahead
        with closing(self._flows_in_turn(batch.model)) as flows:
            for flow in flows:
                most = min(left, self._works_looked_at(flow, batch.model))
                with flow.by_model[batch.model].most_urgent(most) as works:
                    for queued in works:
                        self._fill_from(flow, queued, filler)
                        left -= 1
                if filler.is_full or left <= 0:
                    break
        filled = filler.plan()
        self._charge(filler.taken, filled.predicted_ns - batch.predicted_ns)
        return filled

    def _draft(self, table: CostTable, cap_ns: float) -> _Draft:
        short_ns = self._short_ns if table.lane is LaneKind.BULK else 0
        return _Draft(table, self._batch_tokens_max, cap_ns, short_ns)

    def _fill_from(self, flow: Flow, queued: QueuedWork, filler: _Filler) -> None:
        fitting = queued.shorter_than(filler.padded_length)
        skipped = queued.rows_left - fitting
        rows = filler.rows_worth(queued.lengths[queued.next_row + skipped :])
        if rows:
            tokens_before = queued.tokens_left
            part = BatchPart(queued.work, self._take(flow, queued, rows, skipped))
            filler.add(_Taken(part, flow, tokens_before - queued.tokens_left))

    def _flows_in_turn(self, model: ModelKey) -> Generator[Flow]:
        """Flows with work for a model version whose turn it is, the one that goes next first."""
        with closing(self._order.in_turn(self._lookahead)) as shares:
            for share in shares:
                if len(share.flows) == 1:
                    (only,) = share.flows.values()
                    if model in only.by_model and only.by_model[model].head() is not None:
                        yield only
                    continue
                with closing(share.order.in_turn(self._lookahead)) as flows:
                    for flow in flows:
                        if model in flow.by_model and flow.by_model[model].head() is not None:
                            yield flow

    def _works_looked_at(self, flow: Flow, model: ModelKey) -> int:
        """How many works to look at: one, if it has rows enough to fill any batch by itself."""
        head = flow.by_model[model].head()
        return 1 if head is not None and head.rows_left >= self._lookahead else self._lookahead

    def _take_from(self, flow: Flow, model: ModelKey, draft: _Draft, most: int) -> int:
        """Takes rows of a flow; returns how many of its works were looked at."""
        queue = flow.by_model[model]
        if len(queue) == 1:
            head = queue.head()
            if head is not None:
                self._take_what_fits(flow, head, draft)
            return 1
        looked = 0
        with queue.most_urgent(min(most, self._works_looked_at(flow, model))) as candidates:
            for queued in candidates:
                self._take_what_fits(flow, queued, draft)
                looked += 1
                if draft.is_full:
                    break
        return looked

    def _take_what_fits(self, flow: Flow, queued: QueuedWork, draft: _Draft) -> None:
        first_length = queued.next_length
        rows = draft.rows_that_fit(first_length, queued.rows_left)
        if rows:
            tokens_before = queued.tokens_left
            part = BatchPart(queued.work, self._take(flow, queued, rows))
            draft.add(_Taken(part, flow, tokens_before - queued.tokens_left), first_length)

    def _take(self, flow: Flow, queued: QueuedWork, rows: int, skipped: int = 0) -> NDArray[np.int32]:
        """Takes a work's next rows, but for some, out of the sums; the flow must be settled afterwards."""
        tokens_before = queued.tokens_left
        taken = queued.take_last(skipped, rows)
        self._account(flow, -rows, queued.tokens_left - tokens_before)
        if not queued.rows_left:
            del self._waiting[queued.work]
        return taken

    def _charge(self, taken: Sequence[_Taken], cost_ns: float) -> None:
        """Charges a batch to the flows of its rows and their tenants, by tokens, and settles them."""
        a_token = cost_ns / max(sum([each.tokens for each in taken]), 1)
        tokens: dict[Flow, int] = {}
        for each in taken:
            tokens[each.flow] = tokens.get(each.flow, 0) + each.tokens
        for flow, of_flow in tokens.items():
            flow.share.order.charge(flow, a_token * of_flow)
            self._order.charge(flow.share, a_token * of_flow)
            self._settle_flow(flow)
        for share in {flow.share: None for flow in tokens}:
            self._settle_share(share)

    def _settle(self, flow: Flow) -> None:
        self._settle_flow(flow)
        self._settle_share(flow.share)

    @staticmethod
    def _settle_flow(flow: Flow) -> None:
        head = flow.head()
        flow.share.order.settle(flow, None if head is None else _order(head))

    def _settle_share(self, share: Share) -> None:
        flow = share.order.choose()
        self._order.settle(share, None if flow is None else flow.turn.urgency)

    def _flow_of(self, work: Work, tenant: str, weight: float) -> Flow:
        share = self._share_of(tenant, weight)
        flow = share.flows.get(work.flow)
        if flow is None:
            if len(share.flows) >= share.flows_max:
                share.flows = {name: each for name, each in share.flows.items() if not _is_idle(each, share)}
                share.flows_max = max(_IDLE_MAX, 2 * len(share.flows))
            flow = share.flows[work.flow] = Flow(share, Turn(work.weight))
        flow.turn.weight = work.weight
        return flow

    def _share_of(self, tenant: str, weight: float) -> Share:
        share = self._shares.get(tenant)
        if share is None:
            if len(self._shares) >= self._shares_max:
                self._shares = {name: each for name, each in self._shares.items() if not self._is_done(each)}
                self._shares_max = max(_IDLE_MAX, 2 * len(self._shares))
            share = self._shares[tenant] = Share(Turn(weight), FairOrder(self._quantum_ns))
        share.turn.weight = weight
        return share

    def _is_done(self, share: Share) -> bool:
        """Whether a tenant waits for nothing and is not ahead of the others."""
        return share.turn.urgency is None and share.turn.virtual_ns <= self._order.floor_ns

    def _watch(self, deadline_ns: int, work: Work) -> None:
        if len(self._deadlines) > 2 * len(self._waiting) + _DEAD_MAX:
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self._waiting]
            heapq.heapify(self._deadlines)
        self._pushed += 1
        heapq.heappush(self._deadlines, (deadline_ns, self._pushed, work))

    def _account(self, flow: Flow, rows: int, tokens: int) -> None:
        self.rows += rows
        self.tokens += tokens
        flow.share.tokens += tokens


def _is_idle(flow: Flow, share: Share) -> bool:
    """Whether a flow waits for nothing and is not ahead of the others."""
    return flow.turn.urgency is None and flow.turn.virtual_ns <= share.order.floor_ns


class _Taken(NamedTuple):
    """Rows that leave for a batch, with their flow and tokens."""

    part: BatchPart
    flow: Flow
    tokens: int


class _Draft:
    """A batch being filled: as many rows as pay, within the budget but for a first row longer than it."""

    def __init__(self, table: CostTable, budget: int, cap_ns: float, short_ns: int) -> None:
        self._table = table
        self._budget = budget
        self._cap_ns = cap_ns
        self._short_ns = short_ns
        self.taken: list[_Taken] = []
        self.rows = 0
        self.padded_length = 0
        self.tokens = 0
        # Rows of a full batch of the length that was asked for last; 0 if none was.
        self._full_length = self._full_rows = 0

    @property
    def is_full(self) -> bool:
        """Whether not even a row of the present length fits any more."""
        return self.rows > 0 and self.rows >= self.rows_full(self.padded_length)

    @property
    def upper_ns(self) -> float:
        """Predicted cost."""
        return self._table.predict(self.rows, self.padded_length).upper_ns

    def rows_full(self, padded_length: int) -> int:
        """Rows of a full batch; at least one."""
        if self._full_length != padded_length or not self._full_rows:
            length = max(padded_length, 1)
            allowed = self._budget // length
            if self._short_ns:
                short = self._table.rows_within(length, self._short_ns)
                allowed = max(allowed, min(short, SHORT_BATCH_BUDGETS * self._budget // length))
            most = min(self._table.full_batch(length, self._cap_ns), allowed)
            self._full_length, self._full_rows = padded_length, max(1, most)
        return self._full_rows

    def rows_that_fit(self, first_length: int, rows: int) -> int:
        """How many of some rows fit. They come longest first, so the first decides the padding."""
        padded_length = self.padded_length if self.padded_length > first_length else first_length
        free = self.rows_full(padded_length) - self.rows
        return max(0, free if free < rows else rows)

    def add(self, taken: _Taken, first_length: int) -> None:
        """Takes rows of a work."""
        self.taken.append(taken)
        self.rows += len(taken.part.rows)
        if first_length > self.padded_length:
            self.padded_length = first_length
        self.tokens += taken.tokens

    def plan(self, model: ModelKey) -> BatchPlan:
        """The batch."""
        return BatchPlan(
            model,
            tuple(each.part for each in self.taken),
            self.rows,
            self.padded_length,
            self.tokens,
            round(self.upper_ns),
        )


class _Filler:
    """A live batch that bulk rows are added to."""

    def __init__(self, table: CostTable, batch: BatchPlan, cap_ns: float, tokens_max: int) -> None:
        self._table = table
        self._batch = batch
        self._cap_ns = cap_ns
        self.padded_length = batch.padded_length
        self._rows_max = tokens_max // max(self.padded_length, 1)
        self._rows = batch.rows
        self.taken: list[_Taken] = []

    @property
    def is_full(self) -> bool:
        """Whether not even one row more fits."""
        return self._rows >= self._rows_max or self._upper_ns(self._rows + 1) > self._cap_ns

    def rows_worth(self, lengths: NDArray[np.int32]) -> int:
        """How many rows of these lengths, which fall, fit and cost no more here than among their like."""
        fitting = range(self._rows + 1, min(self._rows + len(lengths), self._rows_max) + 1)
        rows = bisect_right(fitting, self._cap_ns, key=self._upper_ns)
        here_ns = self._table.predict(self._rows, self.padded_length).median_ns
        while rows:
            added_ns = self._table.predict(self._rows + rows, self.padded_length).median_ns - here_ns
            shortest = max(1, lengths.item(rows - 1))
            best = self._table.best_rows(shortest)
            alone_ns = self._table.predict(best, shortest).median_ns / best
            if added_ns <= rows * alone_ns * (1 + _FREE):
                break
            rows -= max(1, rows // 4)
        return rows

    def add(self, taken: _Taken) -> None:
        """Takes rows of a work."""
        self.taken.append(taken)
        self._rows += len(taken.part.rows)

    def plan(self) -> BatchPlan:
        """The batch with its new rows."""
        if not self.taken:
            return self._batch
        return replace(
            self._batch,
            parts=(*self._batch.parts, *(each.part for each in self.taken)),
            rows=self._rows,
            tokens=self._batch.tokens + sum(each.tokens for each in self.taken),
            predicted_ns=max(self._batch.predicted_ns, round(self._upper_ns(self._rows))),
        )

    def _upper_ns(self, rows: int) -> float:
        return self._table.predict(rows, self.padded_length).upper_ns
