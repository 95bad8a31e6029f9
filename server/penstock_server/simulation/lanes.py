"""The simulated machine: lanes that take batches in turn, and cores that live batches take from bulk ones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.work import BatchPlan
from penstock_server.simulation.costs import TrueDurations
from penstock_server.simulation.events import EventLoop, Timer
from penstock_server.simulation.record import BatchRecord, LaneRecord
from penstock_server.simulation.scenario import Machine

_NS_PER_US = 1000


@dataclass(slots=True, eq=False)
class _Running:
    """A batch that computes: how much is left of it, and how fast it gets on."""

    plan: BatchPlan
    batch: BatchRecord
    done: Callable[[], None]
    left_ns: float = 0.0
    speed: float = 1.0


@dataclass(slots=True, eq=False)
class SimulatedLane:
    """One serial executor.

    Attributes:
        about: Its name and what it runs.
        cost_kind: Which cost table its batches follow.
        gap_ns: What passes between the choice of a batch and its start, on an idle lane.
        is_preempted: Whether it gets only the cores that other lanes leave.
    """

    about: LaneRecord
    cost_kind: LaneKind
    gap_ns: int
    is_preempted: bool
    waiting: deque[_Running] = field(default_factory=deque[_Running])
    running: _Running | None = None


class SimulatedMachine:
    """Runs batches on lanes in virtual time.

    A lane over all cores that is not preempted computes at full speed. Preempted lanes share the cores that
    it leaves, each at most one.
    """

    def __init__(
        self, machine: Machine, durations: TrueDurations, loop: EventLoop, beside_bulk: float
    ) -> None:
        self.lanes = _lanes_of(machine)
        self._cores = machine.cores
        # Threads that wait for each other within a batch spin.
        self._live_cores = float(machine.live_threads or machine.cores)
        self._durations = durations
        self._loop = loop
        self._beside_bulk = beside_bulk
        self._settled_ns = 0
        self._next: Timer | None = None

    def run(self, lane: SimulatedLane, plan: BatchPlan, batch: BatchRecord, done: Callable[[], None]) -> None:
        """Runs a batch once the lane is free; ``done`` is called at its end."""
        running = _Running(plan, batch, done)

        def arrive() -> None:
            lane.waiting.append(running)
            self._settle()

        self._loop.at(self._loop.now_ns + lane.gap_ns, arrive)

    def interrupt(self, cpu_ns: int) -> None:
        """Takes processor time from what is preempted and runs."""
        self._settle()
        running = [lane.running for lane in self.lanes if lane.is_preempted and lane.running is not None]
        for each in running:
            each.left_ns += cpu_ns / len(running)
        self._await_next()

    def _settle(self) -> None:
        """Brings all batches up to now, ends and starts what is due, and waits for the next end."""
        now_ns = self._loop.now_ns
        ended = [running for lane in self.lanes if (running := self._advance(lane, now_ns)) is not None]
        self._settled_ns = now_ns
        for lane in self.lanes:
            if lane.running is None and lane.waiting:
                self._start(lane, now_ns)
        self._set_speeds()
        self._await_next()
        for running in ended:
            running.done()

    def _advance(self, lane: SimulatedLane, now_ns: int) -> _Running | None:
        """Lets a lane's batch get on until now; returns it if that was its end."""
        running = lane.running
        if running is None:
            return None
        running.left_ns -= (now_ns - self._settled_ns) * running.speed
        # Half a nanosecond: what rounding of the wake-up time may leave.
        if running.left_ns > 0.5:
            return None
        running.batch.end_ns = now_ns
        lane.running = None
        return running

    def _start(self, lane: SimulatedLane, now_ns: int) -> None:
        running = lane.waiting.popleft()
        duration_ns = self._durations.draw(lane.about.name, lane.cost_kind, running.plan, now_ns)
        running.left_ns = float(duration_ns)
        running.batch.start_ns = now_ns
        running.batch.busy_ns = duration_ns
        if not lane.is_preempted:
            running.batch.cores = self._live_cores
        lane.running = running

    def _set_speeds(self) -> None:
        bulk = [lane.running for lane in self.lanes if lane.is_preempted and lane.running is not None]
        live = [lane.running for lane in self.lanes if not lane.is_preempted and lane.running is not None]
        free = max(0.0, self._cores - sum(running.batch.cores for running in live))
        for running in bulk:
            running.speed = min(1.0, free / len(bulk))
        for running in live:
            running.speed = 1 / self._beside_bulk if bulk else 1.0

    def _await_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
        lefts = [
            lane.running.left_ns / lane.running.speed
            for lane in self.lanes
            if lane.running is not None and lane.running.speed > 0
        ]
        self._next = self._loop.at(self._loop.now_ns + math.ceil(min(lefts)), self._settle) if lefts else None


def _lanes_of(machine: Machine) -> tuple[SimulatedLane, ...]:
    live_gap_ns = round(machine.live_gap_us * _NS_PER_US)
    bulk_gap_ns = round(machine.bulk_gap_us * _NS_PER_US)
    if machine.kind == "serial":
        about = LaneRecord("lane-0", (LaneKind.LIVE, LaneKind.BULK), 1)
        return (SimulatedLane(about, LaneKind.LIVE, live_gap_ns, is_preempted=False),)
    live = SimulatedLane(
        LaneRecord("live-0", (LaneKind.LIVE,), 1), LaneKind.LIVE, live_gap_ns, is_preempted=False
    )
    count = machine.bulk_lanes or machine.cores
    bulk = [LaneRecord(f"bulk-{index}", (LaneKind.BULK,), machine.bulk_slots) for index in range(count)]
    return (live, *(SimulatedLane(each, LaneKind.BULK, bulk_gap_ns, is_preempted=True) for each in bulk))
