"""Runs a policy on a virtual clock, driving it as ``runtime.dispatcher.Dispatcher`` drives the scheduler."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.errors import DeadlineUnmeetable, PenstockError
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPlan, BatchTimes, Work
from penstock_server.simulation.adapter import work_of
from penstock_server.simulation.arrivals import Call
from penstock_server.simulation.costs import TrueDurations
from penstock_server.simulation.events import EventLoop, Timer
from penstock_server.simulation.lanes import SimulatedLane, SimulatedMachine
from penstock_server.simulation.policy import Policy
from penstock_server.simulation.record import BatchRecord, FailureRecord, PartRecord, Record, WorkRecord
from penstock_server.simulation.scenario import Machine

# One number a row: a row's output is of no interest here.
_OUTPUT_WIDTH = 1


class Simulator:
    """A machine under a policy. Give it calls, run the loop, read the record."""

    def __init__(
        self,
        policy: Policy,
        machine: Machine,
        durations: TrueDurations,
        loop: EventLoop,
        *,
        beside_bulk: float = 1.0,
    ) -> None:
        self.loop = loop
        self._policy = policy
        self._durations = durations
        self._edge_ns = round(machine.edge_us * 1000 / 2)
        self._call_ns = round(machine.call_us * 1000)
        self._answer_ns = round(machine.answer_us * 1000)
        self._machine = SimulatedMachine(machine, durations, loop, beside_bulk)
        self.record = Record(lanes=tuple(lane.about for lane in self._machine.lanes))
        make = _SerialDriver if policy.choice_ns(0) is not None else _Driver
        self._drivers = [make(self, lane) for lane in self._machine.lanes for _ in range(lane.about.slots)]
        self._works: dict[Work, WorkRecord] = {}

    def submit(self, call: Call, settled: Callable[[], None] | None = None) -> WorkRecord:
        """Submits a call now; ``settled`` is called once no row of it is under way."""
        record = WorkRecord(len(self.record.works), self.record.next_order(), call, self.loop.now_ns)
        self.record.works.append(record)
        sink = _Sink(record, self.record, self.loop, settled)
        work = work_of(call, sink, call.arrival_ns)
        try:
            self._policy.admit(work, self.loop.now_ns, call.overload)
        except PenstockError as err:
            record.refusal = err.reason
            record.done_ns = self.loop.now_ns
            if settled is not None:
                settled()
            return record
        record.served_class = work.request_class
        self._works[work] = record
        if record.is_live and self._call_ns:
            self._machine.interrupt(self._call_ns)
        sink.forget = lambda: self._works.pop(work, None)
        if call.cancel_ns is not None:
            self.loop.at(call.cancel_ns, lambda: self.cancel(work))
        for kind in LaneKind:
            self._wake(kind)
        return record

    def submit_at(self, call: Call, settled: Callable[[], None] | None = None) -> None:
        """Submits a call when it arrives, plus what it costs at the edge."""
        self.loop.at(call.arrival_ns + self._edge_ns, lambda: self._submit(call, settled))

    def _submit(self, call: Call, settled: Callable[[], None] | None) -> None:
        self.submit(call, settled)

    def cancel(self, work: Work) -> None:
        """The caller goes away; nothing happens if all rows are answered."""
        record = self._works.pop(work, None)
        if record is not None:
            record.cancelled_ns = self.loop.now_ns
            record.cancelled_order = self.record.next_order()
            self._policy.cancel(work)

    def cancel_all(self, wanted: Callable[[WorkRecord], bool]) -> None:
        """Cancels the works under way that a test picks."""
        for work, record in list(self._works.items()):
            if wanted(record):
                self.cancel(work)

    def plan(self, lane: SimulatedLane, kind: LaneKind) -> BatchPlan | None:
        """Asks the policy for a batch, and fails the rows that it gives up."""
        decision = self._policy.plan(kind, self.loop.now_ns)
        for part in decision.expired:
            part.work.sink.fail(
                part.rows, DeadlineUnmeetable("The deadline passed while the request waited.")
            )
        for kind in decision.wakes:
            self._wake(kind)
        return decision.batch

    def run(self, lane: SimulatedLane, kind: LaneKind, plan: BatchPlan, done: Callable[[], None]) -> None:
        """Runs a batch; its rows are answered at its end, before ``done`` is called."""
        is_bulk = all(part.work.request_class > RequestClass.LIVE for part in plan.parts)
        is_serial = len(lane.about.kinds) > 1
        batch = self._record_batch(lane, LaneKind.BULK if is_serial and is_bulk else kind, plan)

        def end() -> None:
            # The event loop hears of it, and answers, before it chooses the next one.
            self.loop.at(self.loop.now_ns + (0 if lane.is_preempted else self._answer_ns), finish)

        def finish() -> None:
            # As lanes report it: bulk threads what they computed, live lanes what passed.
            cost_ns = batch.busy_ns if lane.is_preempted else batch.end_ns - batch.start_ns
            times = BatchTimes(batch.start_ns, batch.end_ns, cost_ns)
            batch.heard_ns = self.loop.now_ns
            self._policy.complete(kind, plan, times)
            _deliver(plan, times)
            done()

        self._machine.run(lane, plan, batch, end)

    def choice_ns(self) -> int:
        """When a serial lane should ask for its next batch."""
        choice_ns = self._policy.choice_ns(self.loop.now_ns)
        assert choice_ns is not None
        return choice_ns

    def wake_ns(self) -> int | None:
        """When the policy wants to be asked again."""
        return self._policy.wake_ns(self.loop.now_ns)

    def _wake(self, kind: LaneKind) -> None:
        for driver in self._drivers:
            driver.wake(kind)

    def _record_batch(self, lane: SimulatedLane, kind: LaneKind, plan: BatchPlan) -> BatchRecord:
        parts = tuple(PartRecord(_record_of(part.work), part.rows) for part in plan.parts)
        batch = BatchRecord(
            lane=lane.about.name,
            kind=kind,
            planned_ns=self.loop.now_ns,
            order=self.record.next_order(),
            parts=parts,
            rows=plan.rows,
            padded_length=plan.padded_length,
            tokens=plan.tokens,
            predicted_ns=plan.predicted_ns or None,
            live_cost_ns=self._durations.costs.live.duration_ns(plan.rows, plan.padded_length),
        )
        self.record.batches.append(batch)
        return batch


class _Driver:
    """One slot of a lane: plans, runs, plans again; waits while there is nothing."""

    def __init__(self, simulator: Simulator, lane: SimulatedLane) -> None:
        self._simulator = simulator
        self._lane = lane
        self._is_idle = True
        self._timer: Timer | None = None

    def wake(self, kind: LaneKind) -> None:
        """Hears of work for a kind of lane; plans in an event of its own, as a task of the server would."""
        if self._is_idle and kind in self._lane.about.kinds:
            self._ask_again()

    def _ask_again(self) -> None:
        if self._is_idle:
            self._is_idle = False
            self._simulator.loop.at(self._simulator.loop.now_ns, self._step)

    def _step(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for kind in self._lane.about.kinds:
            plan = self._simulator.plan(self._lane, kind)
            if plan is not None:
                self._simulator.run(self._lane, kind, plan, self._step)
                return
        self._is_idle = True
        wake_ns = self._simulator.wake_ns()
        if wake_ns is not None:
            self._timer = self._simulator.loop.at(wake_ns, self._ask_again)


class _SerialDriver:
    """A serial lane, which is given its next batch just before the one that runs ends."""

    def __init__(self, simulator: Simulator, lane: SimulatedLane) -> None:
        self._simulator = simulator
        self._lane = lane
        self._in_lane = 0
        self._timer: Timer | None = None

    def wake(self, kind: LaneKind) -> None:
        """Hears of work; plans in an event of its own, as a task of the server would."""
        if self._timer is None:
            self._ask_in_time()

    def _ask_in_time(self) -> None:
        """Asks when the next batch must be chosen; one that runs and one that follows it are enough."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._in_lane < 2:
            self._timer = self._simulator.loop.at(self._simulator.choice_ns(), self._ask)

    def _ask(self) -> None:
        self._timer = None
        plan = self._simulator.plan(self._lane, LaneKind.LIVE)
        if plan is not None:
            self._in_lane += 1
            self._simulator.run(self._lane, LaneKind.LIVE, plan, self._done)
            self._ask_in_time()

    def _done(self) -> None:
        self._in_lane -= 1
        self._ask_in_time()


class _Sink:
    """Counts what becomes of each row of a work."""

    def __init__(
        self, record: WorkRecord, run: Record, loop: EventLoop, settled: Callable[[], None] | None
    ) -> None:
        self.record = record
        self._run = run
        self.forget: Callable[[], object] = lambda: None
        self._loop = loop
        self._settled = settled
        self._rows_left = record.rows

    def deliver(self, rows: NDArray[np.int32], outputs: NDArray[np.float32], times: BatchTimes) -> None:
        """Counts answers."""
        np.add.at(self.record.answered, rows, 1)
        self._count(len(rows))

    def fail(self, rows: NDArray[np.int32], error: PenstockError) -> None:
        """Counts failures."""
        np.add.at(self.record.failed, rows, 1)
        part = PartRecord(self.record, rows)
        self._run.failures.append(FailureRecord(self._loop.now_ns, self._run.next_order(), part))
        self._count(len(rows))

    def _count(self, rows: int) -> None:
        self._rows_left -= rows
        self.record.done_ns = self._loop.now_ns
        if self._rows_left == 0:
            self.forget()
            if self._settled is not None:
                self._settled()


def _record_of(work: Work) -> WorkRecord:
    sink = work.sink
    assert isinstance(sink, _Sink)
    return sink.record


def _deliver(plan: BatchPlan, times: BatchTimes) -> None:
    for part in plan.parts:
        outputs = np.zeros((len(part.rows), _OUTPUT_WIDTH), np.float32)
        part.work.sink.deliver(part.rows, outputs, times)
