"""Decides which rows make the next batch on a lane.

Synchronous and deterministic: time is an argument, nothing awaits, nothing is read from outside. The
dispatcher of the server and a simulator on a virtual clock run the same code.

Live lanes take LIVE_CRITICAL before LIVE, earliest deadline first, under a token budget. Bulk lanes take
FLEX before BULK; on a CPU they run at idle priority, so the kernel gives them just the cycles that live lanes
leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock_server.domain.errors import DeadlineUnmeetable, InvalidRequest, Overloaded
from penstock_server.domain.lane import LaneKind as LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan, BatchTimes, Work
from penstock_server.scheduling.cost import CostModels
from penstock_server.scheduling.queues import ClassQueue, DeadlineQueue, QueuedWork

# Delays that a caller can use.
_RETRY_AFTER_MIN_S = 0.05
_RETRY_AFTER_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Bounds of the queues and batches, in tokens.

    A batch's tokens are counted with padding: rows times the longest row. A single row may exceed the budget.

    Attributes:
        live_tokens_max: LIVE_CRITICAL and LIVE tokens that may wait, each.
        flex_tokens_max: FLEX tokens that may wait.
        bulk_tokens_max: BULK tokens that may wait.
        live_batch_tokens_max: Most tokens of a live batch.
        bulk_batch_tokens: Most tokens of a bulk batch.
        lookahead_rows: How many works past the head are looked at to fill a batch.
    """

    live_tokens_max: int
    flex_tokens_max: int
    bulk_tokens_max: int
    live_batch_tokens_max: int
    bulk_batch_tokens: int
    lookahead_rows: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What a lane does next, and which rows are given up because their deadline has passed."""

    batch: BatchPlan | None
    expired: tuple[BatchPart, ...]


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What waits in one class."""

    rows: int
    tokens: int


_CLASSES_BY_LANE = {
    LaneKind.LIVE: (RequestClass.LIVE_CRITICAL, RequestClass.LIVE),
    LaneKind.BULK: (RequestClass.FLEX, RequestClass.BULK),
}
_DEMOTIONS = {
    OverloadPolicy.REJECT: (),
    OverloadPolicy.DEMOTE_TO_FLEX: (RequestClass.FLEX,),
    OverloadPolicy.DEMOTE_TO_BULK: (RequestClass.BULK,),
}


class Scheduler:
    """Queues of work, and the choice of the next batch. Owned by one thread."""

    def __init__(self, limits: SchedulerLimits, costs: CostModels) -> None:
        self._limits = limits
        self._costs = costs
        self._queues = {
            RequestClass.LIVE_CRITICAL: ClassQueue(limits.live_tokens_max),
            RequestClass.LIVE: ClassQueue(limits.live_tokens_max),
            RequestClass.FLEX: ClassQueue(limits.flex_tokens_max),
            RequestClass.BULK: ClassQueue(limits.bulk_tokens_max),
        }

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy = OverloadPolicy.REJECT) -> None:
        """Queues work, possibly in a lower class.

        Args:
            work: At least one row; its ``request_class`` is lowered if it is demoted.
            now_ns: The time.
            overload: What may happen if the class's queue is full.

        Raises:
            DeadlineUnmeetable: The deadline has passed.
            InvalidRequest: The work is larger than the whole queue of its class and may not be demoted.
            Overloaded: The queue is full and demotion is not allowed or does not help.
        """
        if work.deadline_ns is not None and work.deadline_ns <= now_ns:
            raise DeadlineUnmeetable(
                "The deadline had passed when the request was admitted; allow more time."
            )
        tokens = int(work.tokens.lengths[work.rows].sum())
        for request_class in (work.request_class, *_DEMOTIONS[overload]):
            queue = self._queues[request_class]
            if request_class >= work.request_class and queue.has_room(tokens):
                work.request_class = request_class
                queue.push(work)
                return
        if tokens > self._queues[work.request_class].tokens_max:
            raise self._too_large(work.request_class, tokens)
        raise self._overloaded(work, tokens)

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        """Chooses the next batch of a lane and removes its rows from the queues.

        Cancelled rows are skipped, expired rows are returned and never computed.
        """
        expired: list[BatchPart] = []
        for request_class in _CLASSES_BY_LANE[lane]:
            queue = self._queues[request_class]
            self._expire_heads(queue, now_ns, expired)
            model = queue.most_urgent_model()
            if model is not None:
                batch = self._fill(lane, queue, model, now_ns, expired)
                return Decision(batch, tuple(expired))
        return Decision(None, tuple(expired))

    def complete(self, lane: LaneKind, plan: BatchPlan, times: BatchTimes) -> None:
        """Learns from a batch that has run."""
        self._costs.table(plan.model, lane).observe(plan.rows, plan.padded_length, times.cpu_ns)

    def cancel(self, work: Work) -> None:
        """Drops the rows of a work that are not in a batch yet. No effect the second time."""
        work.cancelled = True
        self._queues[work.request_class].drop(work)

    def depth(self, request_class: RequestClass) -> QueueDepth:
        """What waits in one class now."""
        queue = self._queues[request_class]
        return QueueDepth(queue.rows, queue.tokens)

    def _expire_heads(self, queue: ClassQueue, now_ns: int, expired: list[BatchPart]) -> None:
        """Gives up all work whose deadline has passed; the heads are the earliest."""
        while (model := queue.most_urgent_model()) is not None:
            head = queue.of_model(model).head()
            if head is None or not is_expired(head.work, now_ns):
                return
            expired.append(BatchPart(head.work, queue.drop(head.work)))

    def _fill(
        self, lane: LaneKind, queue: ClassQueue, model: ModelKey, now_ns: int, expired: list[BatchPart]
    ) -> BatchPlan:
        """Fills a batch from the head on, looking past works that do not fit."""
        budget = (
            self._limits.live_batch_tokens_max if lane is LaneKind.LIVE else self._limits.bulk_batch_tokens
        )
        draft = _Draft(budget)
        by_deadline = queue.of_model(model)
        with by_deadline.most_urgent(self._lookahead(by_deadline)) as candidates:
            for queued in candidates:
                # A head without a deadline may stand before work whose deadline has passed.
                if is_expired(queued.work, now_ns):
                    expired.append(BatchPart(queued.work, queue.drop(queued.work)))
                    continue
                self._take_what_fits(queue, queued, draft)
                if draft.is_full:
                    break
        for part in draft.parts:
            part.work.started = True
        return BatchPlan(model, tuple(draft.parts), draft.rows, draft.padded_length, draft.tokens)

    def _lookahead(self, by_deadline: DeadlineQueue) -> int:
        """How many works to look at: one, if it has rows enough to fill any batch by itself."""
        head = by_deadline.head()
        is_wide = head is not None and head.rows_left >= self._limits.lookahead_rows
        return 1 if is_wide else self._limits.lookahead_rows

    @staticmethod
    def _take_what_fits(queue: ClassQueue, queued: QueuedWork, draft: _Draft) -> None:
        rows = draft.rows_that_fit(queued)
        if rows:
            first_length = int(queued.lengths[queued.next_row])
            tokens_before = queued.tokens_left
            taken = queue.take(queued, rows)
            draft.add(BatchPart(queued.work, taken), first_length, tokens_before - queued.tokens_left)

    def _too_large(self, request_class: RequestClass, tokens: int) -> InvalidRequest:
        """A request that would shut all others of its class out, however long its caller waits."""
        return InvalidRequest.of_field(
            "inputs",
            f"hold {tokens:,} tokens; a {request_class.name} request may hold "
            f"{self._queues[request_class].tokens_max:,}. Split it, or send it as FLEX, BULK or a job",
        )

    def _overloaded(self, work: Work, tokens: int) -> Overloaded:
        request_class = work.request_class
        queue = self._queues[request_class]
        lane = LaneKind.LIVE if request_class <= RequestClass.LIVE else LaneKind.BULK
        excess = queue.tokens + tokens - queue.tokens_max
        retry_after_s = excess * self._costs.table(work.model, lane).ns_per_token() / 1e9
        return Overloaded(
            f"The {request_class.name} queue is full ({queue.tokens:,} of {queue.tokens_max:,} tokens wait). "
            "Try again after the delay in RetryInfo, or allow the request to be demoted to FLEX or BULK.",
            retry_after_s=min(_RETRY_AFTER_MAX_S, max(_RETRY_AFTER_MIN_S, retry_after_s)),
            request_class=request_class.name,
        )


def is_expired(work: Work, now_ns: int) -> bool:
    """Whether nobody can use the work's answer any more."""
    return work.deadline_ns is not None and work.deadline_ns <= now_ns


class _Draft:
    """A batch being filled: padded tokens stay within the budget, but for a first row longer than it."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.parts: list[BatchPart] = []
        self.rows = 0
        self.padded_length = 0
        self.tokens = 0

    @property
    def is_full(self) -> bool:
        """Whether not even a row of the present length fits any more."""
        return self.rows > 0 and (self.rows + 1) * self.padded_length > self.budget

    def rows_that_fit(self, queued: QueuedWork) -> int:
        """How many of the work's next rows fit. They come longest first, so the first decides the padding."""
        padded = max(self.padded_length, int(queued.lengths[queued.next_row]))
        fit = self.budget // max(padded, 1) - self.rows
        if self.rows == 0:
            fit = max(fit, 1)
        return int(np.clip(fit, 0, queued.rows_left))

    def add(self, part: BatchPart, first_length: int, tokens: int) -> None:
        self.parts.append(part)
        self.rows += len(part.rows)
        self.padded_length = max(self.padded_length, first_length)
        self.tokens += tokens
