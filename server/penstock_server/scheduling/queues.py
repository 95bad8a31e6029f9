"""Queues of work: earliest deadline first, bounded in tokens."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.model import ModelKey
from penstock_server.domain.work import Work

NEVER_NS = 1 << 62


@dataclass(eq=False, slots=True)
class QueuedWork:
    """A Work with the part of it that is not in a batch yet.

    ``order`` holds its row indices, longest first, and ``lengths`` their token counts in the same order, so
    that neighbours pad each other least. ``next_row`` is the first of them that still waits.
    """

    work: Work
    order: NDArray[np.int32]
    lengths: NDArray[np.int32]
    next_row: int
    tokens_left: int

    @classmethod
    def of(cls, work: Work) -> QueuedWork:
        """Sorts the work's rows by length; O(rows log rows)."""
        lengths = work.tokens.lengths[work.rows]
        by_length = np.argsort(-lengths, kind="stable")
        order = np.ascontiguousarray(work.rows[by_length], dtype=np.int32)
        sorted_lengths = np.ascontiguousarray(lengths[by_length], dtype=np.int32)
        return cls(work, order, sorted_lengths, 0, int(lengths.sum()))

    @property
    def rows_left(self) -> int:
        """Rows that still wait."""
        return len(self.order) - self.next_row

    def take(self, rows: int) -> NDArray[np.int32]:
        """Removes the next ``rows`` rows and returns their indices."""
        end = self.next_row + rows
        taken = self.order[self.next_row : end]
        self.tokens_left -= int(self.lengths[self.next_row : end].sum())
        self.next_row = end
        return taken


class DeadlineQueue:
    """Work of one urgency for one model version: earliest deadline first, then order of arrival.

    Cancelled and finished work is dropped when it reaches the head: O(log n) an operation.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, QueuedWork]] = []
        self._arrivals = 0

    def push(self, queued: QueuedWork) -> None:
        """Adds work."""
        deadline_ns = queued.work.deadline_ns
        self._arrivals += 1
        key = NEVER_NS if deadline_ns is None else deadline_ns
        heapq.heappush(self._heap, (key, self._arrivals, queued))

    def head(self) -> QueuedWork | None:
        """Returns the most urgent work that still has rows, without removing it."""
        while self._heap:
            queued = self._heap[0][2]
            if queued.rows_left and not queued.work.cancelled:
                return queued
            heapq.heappop(self._heap)
        return None

    def pop(self) -> None:
        """Removes the head."""
        heapq.heappop(self._heap)

    def in_order(self, count: int) -> Iterator[QueuedWork]:
        """Yields up to ``count`` waiting works, most urgent first; O(count log n)."""
        for _, _, queued in heapq.nsmallest(count, self._heap):
            if queued.rows_left and not queued.work.cancelled:
                yield queued


class ClassQueue:
    """All work of one urgency, by model version, with a bound on waiting tokens."""

    def __init__(self, tokens_max: int) -> None:
        self.tokens_max = tokens_max
        self.tokens = 0
        self.rows = 0
        self._by_model: dict[ModelKey, DeadlineQueue] = {}
        self._waiting: dict[Work, QueuedWork] = {}

    def has_room(self, tokens: int) -> bool:
        """Whether ``tokens`` more may wait. A queue that is empty takes a work of any size."""
        return self.tokens == 0 or self.tokens + tokens <= self.tokens_max

    def push(self, work: Work) -> None:
        """Adds work, which must have at least one row."""
        queued = QueuedWork.of(work)
        self._by_model.setdefault(work.model, DeadlineQueue()).push(queued)
        self._waiting[work] = queued
        self._account(queued.rows_left, queued.tokens_left)

    def take(self, queued: QueuedWork, rows: int) -> NDArray[np.int32]:
        """Removes rows from a work for a batch."""
        tokens_before = queued.tokens_left
        taken = queued.take(rows)
        self._account(-rows, queued.tokens_left - tokens_before)
        if not queued.rows_left:
            del self._waiting[queued.work]
        return taken

    def drop(self, work: Work) -> NDArray[np.int32]:
        """Removes all rows of a work that still wait, and returns them."""
        queued = self._waiting.get(work)
        if queued is None:
            return np.empty(0, dtype=np.int32)
        return self.take(queued, queued.rows_left)

    def most_urgent_model(self) -> ModelKey | None:
        """The model version whose head has the earliest deadline; the earliest arrival among equals."""
        best: tuple[int, int, ModelKey] | None = None
        for model, queue in self._by_model.items():
            head = queue.head()
            if head is None:
                continue
            deadline_ns = NEVER_NS if head.work.deadline_ns is None else head.work.deadline_ns
            key = (deadline_ns, head.work.arrival_ns, model)
            best = key if best is None else min(best, key)
        return None if best is None else best[2]

    def of_model(self, model: ModelKey) -> DeadlineQueue:
        """The queue of one model version."""
        return self._by_model[model]

    def _account(self, rows: int, tokens: int) -> None:
        self.rows += rows
        self.tokens += tokens
