from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_server.domain.errors import DeadlineUnmeetable, Draining, EngineFailed
from penstock_server.domain.explanation import BatchRun
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPlan, BatchTimes
from penstock_server.runtime.dispatcher import Dispatcher, split
from penstock_server.runtime.lanes import BatchResult, LaneLost
from penstock_server.scheduling.scheduler import LaneKind, Scheduler, SchedulerLimits
from tests.support.costs import FixedCosts
from tests.support.work import RecordingSink, make_work

LIMITS = SchedulerLimits(
    10_000,
    10_000,
    10_000,
    live_batch_tokens_max=100,
    bulk_batch_tokens=100,
    lookahead_rows=8,
    live_margin_ns=0,
)


class SteppedClock:
    def __init__(self) -> None:
        self.time_ns = 0

    def now_ns(self) -> int:
        return self.time_ns


class RowLane:
    """Computes [first id, length] for each row; fails as the test says."""

    kind = LaneKind.LIVE
    slots = 1
    name = "test"

    def __init__(self) -> None:
        self.poison: set[int] = set()
        self.killers: set[int] = set()
        self.lost_times = 0
        self.unsent_times = 0
        self.unforeseen_times = 0
        self.alone: list[bool] = []
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def prepare(self, manifest: ModelManifest) -> None:
        raise AssertionError("not used here")

    async def run(self, plan: BatchPlan, *, alone: bool = False) -> BatchResult:
        await self.gate.wait()
        self.alone.append(alone)
        ids = [
            int(part.work.tokens.ids[part.work.tokens.starts[row]])
            for part in plan.parts
            for row in part.rows
        ]
        self.batches.append(ids)
        if self.lost_times:
            self.lost_times -= 1
            raise LaneLost("gone")
        if self.unsent_times:
            self.unsent_times -= 1
            raise LaneLost("not there yet", is_suspect=False)
        if self.killers.intersection(ids):
            raise LaneLost("killed")
        if self.unforeseen_times:
            self.unforeseen_times -= 1
            raise MemoryError
        if self.poison.intersection(ids):
            raise EngineFailed("poison")
        return BatchResult(np.array([[value] for value in ids], np.float32), BatchTimes(1, 2, 1))

    async def close(self) -> None:
        return


@asynccontextmanager
async def dispatching(lane: RowLane, clock: SteppedClock | None = None) -> AsyncGenerator[Dispatcher]:
    dispatcher = Dispatcher(Scheduler(LIMITS, FixedCosts()), [lane], clock or SteppedClock())
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        await dispatcher.close()


async def settle() -> None:
    """Lets every task that can go on do so."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_outputs_reach_the_rows_they_belong_to() -> None:
    async with dispatching(RowLane()) as dispatcher:
        first, first_sink = make_work([30, 10, 20])
        second, second_sink = make_work([10, 40])
        dispatcher.submit(first)
        dispatcher.submit(second)
        await settle()
    assert first_sink.outputs == {0: [1000.0], 1: [1001.0], 2: [1002.0]}
    assert second_sink.outputs == {0: [1000.0], 1: [1001.0]}


async def test_who_asks_is_told_which_batches_computed_the_rows() -> None:
    lane = RowLane()
    lane.gate.clear()
    async with dispatching(lane) as dispatcher:
        blocking, _ = make_work([100])
        dispatcher.submit(blocking)
        await settle()
        work, _ = make_work([30, 10])
        work.runs = []
        other, _ = make_work([20])
        dispatcher.submit(work)
        dispatcher.submit(other)
        lane.gate.set()
        await settle()
    cost_ns = round(2 + 0.01 * 90)
    assert work.runs == [
        BatchRun("test", 3, 2, 60, 90, ((RequestClass.LIVE, 3),), 1, 2, predicted_ns=cost_ns)
    ]
    assert other.runs is None


async def test_row_that_fails_the_batch_fails_alone() -> None:
    lane = RowLane()
    lane.poison = {1003}
    async with dispatching(lane) as dispatcher:
        work, sink = make_work([5] * 9)
        dispatcher.submit(work)
        await settle()
    assert sorted(sink.outputs) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert list(sink.errors) == [3]
    assert isinstance(sink.errors[3], EngineFailed)


async def test_batch_runs_again_when_its_lane_dies_once() -> None:
    lane = RowLane()
    lane.lost_times = 1
    async with dispatching(lane) as dispatcher:
        work, sink = make_work([5, 5])
        dispatcher.submit(work)
        await settle()
    assert len(sink.outputs) == 2
    assert lane.batches == [[1000, 1001], [1000, 1001]]


async def test_deadline_that_passes_in_the_queue_fails_the_rows_without_compute() -> None:
    lane, clock = RowLane(), SteppedClock()
    lane.gate.clear()
    async with dispatching(lane, clock) as dispatcher:
        running, running_sink = make_work([60])
        waiting, waiting_sink = make_work([61], deadline_ns=100)
        dispatcher.submit(running)
        await settle()
        dispatcher.submit(waiting)
        clock.time_ns = 101
        lane.gate.set()
        await settle()
    assert list(running_sink.outputs) == [0]
    assert isinstance(waiting_sink.errors[0], DeadlineUnmeetable)
    assert len(lane.batches) == 1


async def test_closed_dispatcher_refuses_work() -> None:
    async with dispatching(RowLane()) as dispatcher:
        await dispatcher.close()
        with pytest.raises(Draining):
            dispatcher.submit(make_work([5])[0])


async def test_row_that_kills_the_process_fails_alone_and_its_neighbours_are_answered() -> None:
    lane = RowLane()
    lane.killers = {1002}
    async with dispatching(lane) as dispatcher:
        work, sink = make_work([5] * 6)
        dispatcher.submit(work)
        await settle()
    assert sorted(sink.outputs) == [0, 1, 3, 4, 5]
    assert list(sink.errors) == [2]
    # Whoever was there when the process died runs again with nothing beside it.
    assert lane.alone[0] is False
    assert all(lane.alone[1:])


async def test_a_row_that_was_never_sent_to_the_lane_is_no_suspect() -> None:
    lane = RowLane()
    lane.unsent_times = 2
    async with dispatching(lane) as dispatcher:
        work, sink = make_work([5])
        dispatcher.submit(work)
        await settle()
    assert list(sink.outputs) == [0]
    assert lane.alone == [False] * 3


async def test_a_suspect_that_is_not_sent_stays_a_suspect_and_whole() -> None:
    lane = RowLane()
    lane.lost_times, lane.unsent_times = 1, 2
    async with dispatching(lane) as dispatcher:
        work, sink = make_work([5])
        dispatcher.submit(work)
        await settle()
    assert list(sink.outputs) == [0]
    assert lane.alone == [False, True, True, True]


async def test_unforeseen_exception_fails_no_row_that_runs_well_by_itself() -> None:
    lane = RowLane()
    lane.unforeseen_times = 1
    async with dispatching(lane) as dispatcher:
        first, first_sink = make_work([5, 5])
        dispatcher.submit(first)
        await settle()
        second, second_sink = make_work([5])
        dispatcher.submit(second)
        await settle()
    assert sorted(first_sink.outputs) == [0, 1]
    assert sorted(second_sink.outputs) == [0]


async def test_sink_that_fails_leaves_the_other_owners_their_outputs() -> None:
    class BrokenSink(RecordingSink):
        def deliver(self, rows: NDArray[np.int32], outputs: NDArray[np.float32], times: BatchTimes) -> None:
            raise RuntimeError("broken owner")

    async with dispatching(RowLane()) as dispatcher:
        broken, _ = make_work([5])
        broken.sink = BrokenSink()
        sound, sink = make_work([5])
        dispatcher.submit(broken)
        dispatcher.submit(sound)
        await settle()
    assert list(sink.outputs) == [0]


async def test_rows_cancelled_meanwhile_are_not_tried_again() -> None:
    lane = RowLane()
    lane.poison = {1000}
    lane.gate.clear()
    async with dispatching(lane) as dispatcher:
        work, sink = make_work([5, 5])
        dispatcher.submit(work)
        await settle()
        dispatcher.cancel(work)
        lane.gate.set()
        await settle()
    assert len(lane.batches) == 1
    assert not sink.outputs


def test_split_keeps_every_row_and_measures_both_halves() -> None:
    first, _ = make_work([30, 10, 20])
    second, _ = make_work([40, 5])
    scheduler = Scheduler(SchedulerLimits(10_000, 1, 1, 10_000, 1, 8), FixedCosts())
    scheduler.admit(first, 0)
    scheduler.admit(second, 0)
    plan = scheduler.plan(LaneKind.LIVE, 0).batch
    assert plan is not None
    halves = split(plan)
    assert [half.rows for half in halves] == [2, 3]
    assert sum(half.tokens for half in halves) == plan.tokens == 105
    assert [half.padded_length for half in halves] == [30, 40]
