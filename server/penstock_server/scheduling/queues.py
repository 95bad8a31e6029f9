"""Queues of work: earliest deadline first."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.work import Work

# Work without a deadline is overtaken by work that arrives up to this much later. Chosen: longer than any
# live deadline that makes sense, shorter than a caller's patience.
IMPLIED_DEADLINE_NS = 10_000_000_000


def tokens_of(work: Work) -> int:
    """Tokens of a work's rows, which are distinct."""
    starts, rows = work.tokens.starts, work.rows
    if len(rows) == len(starts) - 1:
        return starts.item(-1) - starts.item(0)
    return int((starts[rows + 1] - starts[rows]).sum())


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
        starts = work.tokens.starts
        if len(work.rows) == 1:
            row = work.rows.item(0)
            length = starts.item(row + 1) - starts.item(row)
            return cls(work, work.rows, np.array([length], np.int32), 0, length)
        lengths = (starts[work.rows + 1] - starts[work.rows]).astype(np.int32)
        by_length = np.argsort(-lengths, kind="stable")
        order = np.ascontiguousarray(work.rows[by_length], dtype=np.int32)
        sorted_lengths = np.ascontiguousarray(lengths[by_length], dtype=np.int32)
        return cls(work, order, sorted_lengths, 0, int(lengths.sum()))

    @property
    def is_waiting(self) -> bool:
        """Whether rows wait that somebody still wants."""
        return self.next_row < len(self.order) and not self.work.cancelled

    @property
    def rows_left(self) -> int:
        """Rows that still wait."""
        return len(self.order) - self.next_row

    @property
    def next_length(self) -> int:
        """Tokens of the longest row that waits."""
        return self.lengths.item(self.next_row)

    def take(self, rows: int) -> NDArray[np.int32]:
        """Removes the next ``rows`` rows and returns their indices."""
        end = self.next_row + rows
        taken = self.order[self.next_row : end]
        self.tokens_left -= self.next_length if rows == 1 else int(self.lengths[self.next_row : end].sum())
        self.next_row = end
        return taken

    def shorter_than(self, length: int) -> int:
        """How many of the rows that wait are at most this long; they are the last ones. O(log rows)."""
        return (
            self.rows_left
            - bisect_left(self.lengths, -length, lo=self.next_row, key=_negated)
            + self.next_row
        )

    def take_last(self, skipped: int, rows: int) -> NDArray[np.int32]:
        """Removes ``rows`` rows after the next ``skipped``, and returns their indices; O(rows that wait)."""
        if not skipped:
            return self.take(rows)
        first = self.next_row + skipped
        taken = self.order[first : first + rows]
        self.tokens_left -= int(self.lengths[first : first + rows].sum())
        left = np.r_[self.next_row : first, first + rows : len(self.order)]
        self.order, self.lengths, self.next_row = self.order[left], self.lengths[left], 0
        return taken


def _negated(length: np.int32) -> int:
    return -int(length)


def urgency_ns(work: Work) -> int:
    """When work becomes the most urgent: its deadline, or one that is implied so that it never starves."""
    return work.arrival_ns + IMPLIED_DEADLINE_NS if work.deadline_ns is None else work.deadline_ns


class DeadlineQueue:
    """Work of one flow for one model version: earliest deadline first, then order of arrival.

    Work without a deadline is ordered as if it had one some time after its arrival; it never expires.
    Cancelled and finished work is dropped when it reaches the head, or when it makes up half of the heap.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, QueuedWork]] = []
        self._arrivals = 0
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, queued: QueuedWork) -> None:
        """Adds work; O(log n)."""
        self._arrivals += 1
        heapq.heappush(self._heap, (urgency_ns(queued.work), self._arrivals, queued))

    def head(self) -> QueuedWork | None:
        """Returns the most urgent work that still has rows, without removing it; O(log n) amortised."""
        while self._heap:
            queued = self._heap[0][2]
            if queued.is_waiting:
                return queued
            heapq.heappop(self._heap)
            self._dead = max(0, self._dead - 1)
        return None

    @contextmanager
    def most_urgent(self, count: int) -> Generator[Iterator[QueuedWork]]:
        """Lends up to ``count`` waiting works, most urgent first; those with rows left go back afterwards.

        O(log n) for each that is asked for.
        """
        lent: list[tuple[int, int, QueuedWork]] = []

        def lend() -> Iterator[QueuedWork]:
            while len(lent) < count and self.head() is not None:
                lent.append(heapq.heappop(self._heap))
                yield lent[-1][2]

        try:
            yield lend()
        finally:
            for entry in lent:
                if entry[2].is_waiting:
                    heapq.heappush(self._heap, entry)

    def note_dead(self) -> None:
        """Hears that a work in the heap was cancelled; frees all such works once they are half of it."""
        self._dead += 1
        if self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].is_waiting]
            heapq.heapify(self._heap)
            self._dead = 0
