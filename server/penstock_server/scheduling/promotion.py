"""FLEX and BULK work with deadlines, until it is time to compute it on the live lane."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.work import Work
from penstock_server.scheduling.cost import CostModels
from penstock_server.scheduling.queues import tokens_of

# Upper costs against median ones, and what padding and small last batches add: rather early than late.
_CAUTION = 1.5
# Work is promoted this much before its latest start: about the longest batch that may run then.
_AHEAD_NS = 50_000_000
# A work that does not fit is offered again after this much, or a quarter of the time that it has left.
_AGAIN_NS = 5_000_000
# Works that have left stay in the heap until they are half of it, and this many at least.
_DEAD_MAX = 64


@dataclass(slots=True)
class _Waiting:
    """Works of a model version by latest start; none is offered before ``held_ns``."""

    heap: list[tuple[int, int, Work]] = field(default_factory=list[tuple[int, int, Work]])
    held_ns: int = 0


class Promotions:
    """Waiting work by its latest start on a live lane that has nothing else to do."""

    def __init__(self, costs: CostModels, margin_ns: int) -> None:
        self._costs = costs
        self._margin_ns = margin_ns
        self._models: dict[ModelKey, _Waiting] = {}
        self._works = 0
        self._pushed = 0

    def __len__(self) -> int:
        return self._works

    def add(self, work: Work) -> None:
        """Takes work; nothing happens if it has no deadline."""
        if work.deadline_ns is None:
            return
        tokens = tokens_of(work)
        table = self._costs.table(work.model, LaneKind.LIVE)
        cost_ns = round(_CAUTION * tokens * table.ns_per_token(max(1, tokens // len(work.rows))))
        self._push(work.deadline_ns - self._margin_ns - cost_ns - _AHEAD_NS, work)

    def again(self, work: Work, now_ns: int, queue_ns: int) -> None:
        """Takes work back that did not fit behind ``queue_ns`` of waiting live work.

        What comes after it would not fit either, so nothing of its model version is offered for a while.
        """
        assert work.deadline_ns is not None
        self._push(now_ns + queue_ns + max(_AGAIN_NS, (work.deadline_ns - now_ns) // 4), work)
        self._models[work.model].held_ns = now_ns + _AGAIN_NS

    def pop(self, now_ns: int, queue_ns: int) -> Work | None:
        """The next work whose time has come, if the live lane is busy for ``queue_ns`` with what waits."""
        for waiting in self._models.values():
            heap = waiting.heap
            if heap and waiting.held_ns <= now_ns and heap[0][0] <= now_ns + queue_ns:
                self._works -= 1
                return heapq.heappop(heap)[2]
        return None

    def tidy(self, waits: Callable[[Work], bool], waiting: int) -> None:
        """Frees works that wait no more, if only ``waiting`` of all do still."""
        if self._works > 2 * waiting + _DEAD_MAX:
            for each in self._models.values():
                each.heap = [entry for entry in each.heap if waits(entry[2])]
                heapq.heapify(each.heap)
            self._works = sum(len(each.heap) for each in self._models.values())

    def _push(self, start_ns: int, work: Work) -> None:
        self._pushed += 1
        self._works += 1
        waiting = self._models.get(work.model)
        if waiting is None:
            waiting = self._models[work.model] = _Waiting()
        heapq.heappush(waiting.heap, (start_ns, self._pushed, work))
