"""A run's record as moments: what waited, and which lanes worked, from one event to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import NamedTuple

from penstock_server.domain.tasks import RequestClass
from penstock_server.simulation.record import BatchRecord, PartRecord, Record, WorkRecord

# Ends come before what happens at the same time because of them.
_END_ORDER = -1


@dataclass(slots=True)
class Moment:
    """How things stand from ``at_ns`` until ``until_ns``.

    Attributes:
        at_ns: When something happened.
        until_ns: When the next thing happens.
        waiting: Rows that wait, by class.
        waiting_live: LIVE_CRITICAL and LIVE rows that wait, by tenant.
        waiting_flows: BULK rows that wait, by job.
        hurried_rows: FLEX and BULK rows with a deadline that wait.
        busy: Batches that each lane was given and whose ends the policy has not heard of.
        ended: Batches of whose ends it heard at ``at_ns``.
    """

    at_ns: int
    until_ns: int
    waiting: Counter[RequestClass]
    waiting_live: Counter[str]
    waiting_flows: Counter[str]
    busy: Counter[str]
    hurried_rows: int = 0
    ended: list[BatchRecord] = field(default_factory=list[BatchRecord])

    @property
    def live_rows(self) -> int:
        """Live rows that wait."""
        return self.waiting[RequestClass.LIVE_CRITICAL] + self.waiting[RequestClass.LIVE]

    @property
    def bulk_rows(self) -> int:
        """FLEX and BULK rows that wait."""
        return self.waiting[RequestClass.FLEX] + self.waiting[RequestClass.BULK]

    @property
    def patient_rows(self) -> int:
        """Those of them without a deadline."""
        return self.bulk_rows - self.hurried_rows


class _Event(NamedTuple):
    at_ns: int
    order: int
    apply: Callable[[Moment], None]


def moments(record: Record) -> Iterator[Moment]:
    """Yields how things stand between events. The same object each time, changed in place."""
    events = sorted(_events(record), key=lambda event: event[:2])
    state = Moment(0, 0, Counter(), Counter(), Counter(), Counter())
    times = [(at_ns, list(group)) for at_ns, group in groupby(events, key=lambda event: event.at_ns)]
    for index, (at_ns, group) in enumerate(times):
        state.at_ns = at_ns
        state.until_ns = times[index + 1][0] if index + 1 < len(times) else at_ns
        state.ended.clear()
        for event in group:
            event.apply(state)
        yield state


def waiting_before(record: Record) -> Iterator[tuple[BatchRecord, Moment]]:
    """Yields each batch with how things stood when it was planned, its own rows still waiting."""
    state = Moment(0, 0, Counter(), Counter(), Counter(), Counter())
    planned = {batch.order: batch for batch in record.batches}
    for event in sorted(_events(record), key=lambda event: event[:2]):
        batch = planned.get(event.order)
        if batch is not None:
            state.at_ns = event.at_ns
            yield batch, state
        event.apply(state)


def _events(record: Record) -> Iterator[_Event]:
    left: dict[WorkRecord, int] = {}
    for work in record.works:
        if work.is_admitted:
            left[work] = work.rows
            yield _Event(work.submitted_ns, work.order, partial(_wait, work=work, rows=work.rows))
    for batch in record.batches:
        yield _Event(batch.planned_ns, batch.order, partial(_plan, batch=batch, left=left))
        if batch.is_done:
            yield _Event(max(batch.end_ns, batch.heard_ns), _END_ORDER, partial(_end, batch=batch))
    for failure in record.failures:
        yield _Event(failure.at_ns, failure.order, partial(_take, part=failure.part, left=left))
    for work in record.works:
        if work.cancelled_ns is not None and work.cancelled_order is not None:
            yield _Event(work.cancelled_ns, work.cancelled_order, partial(_cancel, work=work, left=left))


def _wait(state: Moment, work: WorkRecord, rows: int) -> None:
    assert work.served_class is not None
    state.waiting[work.served_class] += rows
    if work.is_live:
        state.waiting_live[work.call.tenant] += rows
    elif work.call.deadline_ns is not None:
        state.hurried_rows += rows
    if work.served_class is RequestClass.BULK:
        state.waiting_flows[work.call.flow] += rows


def _plan(state: Moment, batch: BatchRecord, left: dict[WorkRecord, int]) -> None:
    state.busy[batch.lane] += 1
    for part in batch.parts:
        _take(state, part, left)


def _take(state: Moment, part: PartRecord, left: dict[WorkRecord, int]) -> None:
    # More rows than are left are a fault that `exactly once` reports; here they are none.
    rows = min(len(part.rows), left.get(part.work, 0))
    left[part.work] = left.get(part.work, 0) - rows
    _wait(state, part.work, -rows)


def _cancel(state: Moment, work: WorkRecord, left: dict[WorkRecord, int]) -> None:
    _wait(state, work, -left.get(work, 0))
    left[work] = 0


def _end(state: Moment, batch: BatchRecord) -> None:
    state.busy[batch.lane] -= 1
    state.ended.append(batch)
