"""How other servers choose batches, as their sources say; see docs/simulation.md.

All of them run their lanes non-preemptively, know neither costs nor lengths when they choose, and leave out
rows whose callers have gone, as gRPC's deadlines make them go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from penstock_server.domain.errors import Overloaded
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan, BatchTimes, Work
from penstock_server.scheduling.scheduler import Decision
from penstock_server.simulation.scenario import NS_PER_MS, PeerLimits

_RETRY_S = 1.0


@dataclass(slots=True, eq=False)
class Entry:
    """A row that waits: peers queue rows or small requests, never windows."""

    work: Work
    row: int
    length: int
    arrival_ns: int


class RowQueue:
    """Rows in order of arrival."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def oldest_ns(self) -> int | None:
        """When the first row came."""
        return self._entries[0].arrival_ns if self._entries else None

    def push(self, work: Work, now_ns: int) -> None:
        """Adds the rows of a work."""
        lengths = work.tokens.lengths
        for row in work.rows.tolist():
            self._entries.append(Entry(work, row, int(lengths[row]), now_ns))

    def drop_expired(self, now_ns: int) -> list[Entry]:
        """Takes out the rows whose deadlines have passed."""
        expired = [entry for entry in self._entries if _is_late(entry, now_ns)]
        if expired:
            self._entries = deque(entry for entry in self._entries if not _is_late(entry, now_ns))
        return expired

    def drop(self, work: Work) -> None:
        """Takes out the rows of a work."""
        self._entries = deque(entry for entry in self._entries if entry.work is not work)

    def take_while(self, fits: Callable[[Entry], bool]) -> list[Entry]:
        """Takes rows from the front as long as they fit."""
        taken: list[Entry] = []
        while self._entries and fits(self._entries[0]):
            taken.append(self._entries.popleft())
        return taken


class Choice(Protocol):
    """How a peer picks rows; ``queues`` are live and low, or the only one."""

    queues: int

    def choose(self, queues: Sequence[RowQueue], now_ns: int) -> list[Entry]:
        """Takes the rows of the next batch; none if there are none, or none yet."""
        ...

    def wake_ns(self, queues: Sequence[RowQueue]) -> int | None:
        """When to ask again though nothing arrives."""
        ...


class PeerPolicy:
    """What the peers share: bounded queues, rows whose callers have gone, batches of rows."""

    def __init__(self, choice: Choice, limits: PeerLimits) -> None:
        self._choice = choice
        self._rows_max = limits.queue_rows_max
        self._queues = [RowQueue() for _ in range(choice.queues)]

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy) -> None:
        """Queues rows, up to the bound on rows that wait."""
        queue = self._queues[min(len(self._queues) - 1, int(work.request_class > RequestClass.LIVE))]
        if len(queue) and len(queue) + len(work.rows) > self._rows_max:
            raise Overloaded("The queue is full; try again later.", retry_after_s=_RETRY_S)
        queue.push(work, now_ns)

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        """A batch for the one lane, which asks for live work first."""
        late = [entry for queue in self._queues for entry in queue.drop_expired(now_ns)]
        entries = self._choice.choose(self._queues, now_ns) if lane is LaneKind.LIVE else []
        batch = _plan_of(entries) if entries else None
        return Decision(batch, tuple(_parts_of(late)))

    def complete(self, lane: LaneKind, plan: BatchPlan, times: BatchTimes) -> None:
        """Learns nothing."""

    def cancel(self, work: Work) -> None:
        """Drops the rows that wait."""
        work.cancelled = True
        for queue in self._queues:
            queue.drop(work)

    def choice_ns(self, now_ns: int) -> int | None:
        """Once the lane is idle."""
        return None

    def wake_ns(self, now_ns: int) -> int | None:
        """When the choice wants to be asked again."""
        return self._choice.wake_ns(self._queues)


class FifoChoice:
    """Text Embeddings Inference: one queue in order of arrival, batches up to a budget of padded tokens."""

    queues = 1

    def __init__(self, limits: PeerLimits) -> None:
        self._budget = limits.batch_tokens_max

    def choose(self, queues: Sequence[RowQueue], now_ns: int) -> list[Entry]:
        """Takes from the front what fits into the budget."""
        rows, longest = 0, 0

        def fits(entry: Entry) -> bool:
            nonlocal rows, longest
            if rows and (rows + 1) * max(longest, entry.length) > self._budget:
                return False
            rows, longest = rows + 1, max(longest, entry.length)
            return True

        return queues[0].take_while(fits)

    def wake_ns(self, queues: Sequence[RowQueue]) -> int | None:
        """Never waits."""
        return None


class TritonChoice:
    """Triton with two priority levels: live rows first, then bulk rows in the same batch up to its size."""

    queues = 2

    def __init__(self, limits: PeerLimits) -> None:
        self._rows_max = limits.batch_rows_max

    def choose(self, queues: Sequence[RowQueue], now_ns: int) -> list[Entry]:
        """Takes rows level by level."""
        chosen: list[Entry] = []
        for queue in queues:
            chosen += _take_rows(queue, self._rows_max - len(chosen))
        return chosen

    def wake_ns(self, queues: Sequence[RowQueue]) -> int | None:
        """Never waits: a queue delay of 0, its default."""
        return None


class TfServingChoice:
    """TF Serving: a batch is ready when it is full or old; live batches are padded with low-priority rows."""

    queues = 2

    def __init__(self, limits: PeerLimits) -> None:
        self._rows_max = limits.batch_rows_max
        self._timeout_ns = round(limits.batch_timeout_ms * NS_PER_MS)

    def choose(self, queues: Sequence[RowQueue], now_ns: int) -> list[Entry]:
        """Takes a ready live batch with padding, or a ready low-priority one while no live row waits."""
        live, low = queues
        if self._is_ready(live, now_ns):
            chosen = _take_rows(live, self._rows_max)
            return chosen + _take_rows(low, self._rows_max - len(chosen))
        if not len(live) and self._is_ready(low, now_ns):
            return _take_rows(low, self._rows_max)
        return []

    def wake_ns(self, queues: Sequence[RowQueue]) -> int | None:
        """When the oldest rows have waited long enough; low ones count where no live row waits."""
        oldest_ns = next((queue.oldest_ns for queue in queues if queue.oldest_ns is not None), None)
        return None if oldest_ns is None else oldest_ns + self._timeout_ns

    def _is_ready(self, queue: RowQueue, now_ns: int) -> bool:
        if queue.oldest_ns is None:
            return False
        return len(queue) >= self._rows_max or now_ns - queue.oldest_ns >= self._timeout_ns


def _take_rows(queue: RowQueue, most: int) -> list[Entry]:
    left = most

    def fits(_: Entry) -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    return queue.take_while(fits)


def _is_late(entry: Entry, now_ns: int) -> bool:
    deadline_ns = entry.work.deadline_ns
    return deadline_ns is not None and deadline_ns <= now_ns


def _parts_of(entries: Iterable[Entry]) -> list[BatchPart]:
    rows: dict[Work, list[int]] = {}
    for entry in entries:
        rows.setdefault(entry.work, []).append(entry.row)
    return [BatchPart(work, np.array(found, np.int32)) for work, found in rows.items()]


def _plan_of(entries: list[Entry]) -> BatchPlan:
    parts = _parts_of(entries)
    for part in parts:
        part.work.started = True
    lengths = [entry.length for entry in entries]
    return BatchPlan(parts[0].work.model, tuple(parts), len(entries), max(lengths), sum(lengths))
