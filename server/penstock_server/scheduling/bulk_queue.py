"""Work that waits for idle cycles: flows share the lanes by weight, rows of like length share batches."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.work import BatchPart, BatchPlan, Work
from penstock_server.scheduling.cost import CostModels, CostTable
from penstock_server.scheduling.queues import DeadlineQueue, QueuedWork, urgency_ns

# Flows that wait for nothing are forgotten beyond this many.
_FLOWS_MAX = 1024
# Works that have left stay among the deadlines until they are half of them, and this many at least.
_DEAD_MAX = 64


@dataclass(eq=False, slots=True)
class Flow:
    """A tenant's calls, or a job's windows.

    Attributes:
        name: The tenant or the job.
        weight: Its share against other flows.
        virtual_ns: Cost of what it has had, over its weight.
        works: How many of its works wait.
        tokens: Their tokens.
        by_model: They, by model version.
    """

    name: str
    weight: float
    virtual_ns: float
    works: int = 0
    tokens: int = 0
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


def _order(queued: QueuedWork) -> tuple[int, int, ModelKey]:
    return urgency_ns(queued.work), queued.work.arrival_ns, queued.work.model


class BulkQueue:
    """All work of one class that waits for idle cycles, with a bound on its tokens.

    Flows share by weight: a flow's virtual time grows with the cost of its rows over its weight, and the most
    urgent work of the flows within ``quantum_ns`` of the least one goes next.

    Args:
        tokens_max: Tokens that may wait.
        batch_tokens_max: Most tokens of a batch, with padding.
        lookahead: Works of a flow that are looked at to fill a batch.
        quantum_ns: How far ahead of the last flow another one may be.
        costs: What batches cost.
    """

    def __init__(
        self, tokens_max: int, batch_tokens_max: int, lookahead: int, quantum_ns: int, costs: CostModels
    ) -> None:
        self.tokens_max = tokens_max
        self.tokens = 0
        self.rows = 0
        self._batch_tokens_max = batch_tokens_max
        self._lookahead = lookahead
        self._quantum_ns = quantum_ns
        self._costs = costs
        self._flows: dict[str, Flow] = {}
        self._waiting: dict[Work, QueuedWork] = {}
        self._deadlines: list[tuple[int, int, Work]] = []
        self._pushed = 0
        self._virtual_floor_ns = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, work: Work) -> bool:
        return work in self._waiting

    def has_room(self, tokens: int) -> bool:
        """Whether ``tokens`` more may wait."""
        return self.tokens + tokens <= self.tokens_max

    def push(self, work: Work) -> None:
        """Adds work, which must have at least one row."""
        queued = QueuedWork.of(work)
        flow = self._flow_of(work)
        if not flow.works:
            # Whoever has had nothing to do has no claim to the time that it did not want.
            flow.virtual_ns = max(flow.virtual_ns, self._virtual_floor_ns)
        flow.works += 1
        flow.tokens += queued.tokens_left
        flow.weight = work.weight
        flow.by_model.setdefault(work.model, DeadlineQueue()).push(queued)
        self._waiting[work] = queued
        self._account(queued.rows_left, queued.tokens_left)
        if work.deadline_ns is not None:
            self._watch(work.deadline_ns, work)

    def drop(self, work: Work) -> NDArray[np.int32]:
        """Removes all rows of a work that still wait, and returns them."""
        queued = self._waiting.get(work)
        if queued is None:
            return np.empty(0, dtype=np.int32)
        rows = self._take(queued, queued.rows_left)
        self._flows[flow_name(work)].by_model[work.model].note_dead()
        return rows

    def expire(self, now_ns: int) -> list[BatchPart]:
        """Removes all work whose deadline has passed."""
        expired: list[BatchPart] = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            work = heapq.heappop(self._deadlines)[2]
            if work in self._waiting:
                expired.append(BatchPart(work, self.drop(work)))
        return expired

    def tokens_of(self, flow: str) -> int:
        """Tokens of a flow that wait."""
        known = self._flows.get(flow)
        return 0 if known is None else known.tokens

    def waiting_rows(self, work: Work) -> NDArray[np.int32]:
        """Indices of a work's rows that wait, longest first."""
        queued = self._waiting[work]
        return queued.order[queued.next_row :]

    def head(self) -> QueuedWork | None:
        """The work that the next batch begins with."""
        anchor = self._choose()
        return None if anchor is None else anchor[1]

    def unit_ns(self, lane: LaneKind) -> int:
        """Upper cost of about the next batch, if it ran on a lane of this kind; 0 if nothing waits."""
        head = self.head()
        if head is None:
            return 0
        table = self._costs.table(head.work.model, lane)
        rows = min(_Draft(table, self._batch_tokens_max).rows_full(head.next_length), head.rows_left)
        return round(table.predict(rows, head.next_length).upper_ns)

    def take(self, lane: LaneKind) -> BatchPlan | None:
        """Removes the next batch; None if nothing waits."""
        anchor = self._choose()
        if anchor is None:
            return None
        first, head = anchor
        model = head.work.model
        draft = _Draft(self._costs.table(model, lane), self._batch_tokens_max)
        for flow in self._fill_order(first, model):
            with flow.by_model[model].most_urgent(self._works_looked_at(flow, model)) as candidates:
                for queued in candidates:
                    self._take_what_fits(queued, draft)
                    if draft.is_full:
                        break
            if draft.is_full:
                break
        self._charge(draft)
        return draft.plan(model)

    def _watch(self, deadline_ns: int, work: Work) -> None:
        if len(self._deadlines) > 2 * len(self._waiting) + _DEAD_MAX:
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self._waiting]
            heapq.heapify(self._deadlines)
        self._pushed += 1
        heapq.heappush(self._deadlines, (deadline_ns, self._pushed, work))

    def _choose(self) -> tuple[Flow, QueuedWork] | None:
        """The most urgent work among the flows whose turn it is, with its flow."""
        waiting = [flow for flow in self._flows.values() if flow.works]
        if not waiting:
            return None
        least = min(flow.virtual_ns for flow in waiting)
        self._virtual_floor_ns = max(self._virtual_floor_ns, least)
        heads = [
            (_order(head), flow, head)
            for flow in waiting
            if flow.virtual_ns <= least + self._quantum_ns and (head := flow.head()) is not None
        ]
        _, flow, head = min(heads, key=itemgetter(0))
        return flow, head

    def _fill_order(self, first: Flow, model: ModelKey) -> Iterator[Flow]:
        """The flow whose turn it is, then others that are not ahead of their share, by virtual time."""
        yield first
        limit = first.virtual_ns + self._quantum_ns
        others = [
            flow
            for flow in self._flows.values()
            if flow.works and flow is not first and model in flow.by_model and flow.virtual_ns <= limit
        ]
        yield from sorted(others, key=lambda flow: flow.virtual_ns)

    def _works_looked_at(self, flow: Flow, model: ModelKey) -> int:
        """How many works to look at: one, if it has rows enough to fill any batch by itself."""
        head = flow.by_model[model].head()
        return 1 if head is not None and head.rows_left >= self._lookahead else self._lookahead

    def _take_what_fits(self, queued: QueuedWork, draft: _Draft) -> None:
        rows = draft.rows_that_fit(queued)
        if rows:
            first_length, tokens_before = queued.next_length, queued.tokens_left
            taken = self._take(queued, rows)
            draft.add(BatchPart(queued.work, taken), first_length, tokens_before - queued.tokens_left)

    def _take(self, queued: QueuedWork, rows: int) -> NDArray[np.int32]:
        tokens_before = queued.tokens_left
        taken = queued.take(rows)
        self._account(-rows, queued.tokens_left - tokens_before)
        flow = self._flows[flow_name(queued.work)]
        flow.tokens += queued.tokens_left - tokens_before
        if not queued.rows_left:
            del self._waiting[queued.work]
            flow.works -= 1
        return taken

    def _charge(self, draft: _Draft) -> None:
        """Charges a batch to the flows of its rows, by their tokens."""
        a_token = draft.upper_ns / max(draft.tokens, 1)
        for part, tokens in zip(draft.parts, draft.tokens_by_part, strict=True):
            flow = self._flows[flow_name(part.work)]
            flow.virtual_ns += a_token * tokens / flow.weight

    def _flow_of(self, work: Work) -> Flow:
        name = flow_name(work)
        flow = self._flows.get(name)
        if flow is None:
            if len(self._flows) >= _FLOWS_MAX:
                self._flows = {each.name: each for each in self._flows.values() if each.works}
            flow = self._flows[name] = Flow(name, work.weight, self._virtual_floor_ns)
        return flow

    def _account(self, rows: int, tokens: int) -> None:
        self.rows += rows
        self.tokens += tokens


def flow_name(work: Work) -> str:
    """Whose turn a work takes: its job's or its tenant's."""
    return work.flow or work.tenant


class _Draft:
    """A batch being filled: as many rows as pay, within the budget but for a first row longer than it."""

    def __init__(self, table: CostTable, budget: int) -> None:
        self._table = table
        self._budget = budget
        self.parts: list[BatchPart] = []
        self.tokens_by_part: list[int] = []
        self.rows = 0
        self.padded_length = 0
        self.tokens = 0
        self._full: tuple[int, int] = (0, 0)

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
        length = max(padded_length, 1)
        if self._full[0] != length:
            self._full = (length, max(1, min(self._table.full_batch(length), self._budget // length)))
        return self._full[1]

    def rows_that_fit(self, queued: QueuedWork) -> int:
        """How many of the work's next rows fit. They come longest first, so the first decides the padding."""
        free = self.rows_full(max(self.padded_length, queued.next_length)) - self.rows
        return min(max(free, 0), queued.rows_left)

    def add(self, part: BatchPart, first_length: int, tokens: int) -> None:
        """Takes rows of a work."""
        self.parts.append(part)
        self.tokens_by_part.append(tokens)
        self.rows += len(part.rows)
        self.padded_length = max(self.padded_length, first_length)
        self.tokens += tokens

    def plan(self, model: ModelKey) -> BatchPlan:
        """The batch."""
        return BatchPlan(
            model, tuple(self.parts), self.rows, self.padded_length, self.tokens, round(self.upper_ns)
        )
