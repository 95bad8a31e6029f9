"""A serial lane gets its next batch near the end of the one that runs, and never two of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from penstock_server.domain.errors import DeadlineUnmeetable, Draining, EngineFailed
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPlan, BatchTimes, Work
from penstock_server.runtime.dispatcher import Dispatcher
from penstock_server.runtime.lanes import BatchResult
from penstock_server.scheduling.limits import SchedulerLimits, SerialLimits
from penstock_server.scheduling.scheduler import Scheduler
from tests.support.costs import FixedCosts
from tests.support.work import RecordingSink, make_work

US = 1000
# A batch takes 1 ms and 10 us for each token: one row of 100 tokens 2 ms.
COSTS = (1000.0 * US, 10.0 * US)
ROW_US = 2000
LIMITS = SchedulerLimits(
    10_000,
    10_000,
    10_000,
    live_batch_tokens_max=100,
    bulk_batch_tokens=100,
    lookahead_rows=8,
    live_margin_ns=0,
    serial=SerialLimits(block_ns=3000 * US, fill_ns_max=6000 * US, bind_ahead_ns=300 * US),
)


class HandTimer:
    def __init__(self, when_ns: int, call: Callable[[], None]) -> None:
        self.when_ns = when_ns
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class HandClock:
    """A clock that tests turn, and that calls back when they do."""

    def __init__(self) -> None:
        self.time_ns = 0
        self.timers: list[HandTimer] = []

    def now_ns(self) -> int:
        return self.time_ns

    def call_at(self, when_ns: int, call: Callable[[], None]) -> HandTimer:
        timer = HandTimer(when_ns, call)
        self.timers.append(timer)
        return timer

    async def turn_to(self, time_us: int) -> None:
        self.time_ns = time_us * US
        due = [timer for timer in self.timers if timer.when_ns <= self.time_ns]
        self.timers = [timer for timer in self.timers if timer.when_ns > self.time_ns]
        for timer in due:
            if not timer.is_cancelled:
                timer.call()
        await settle()


class HandLane:
    """Ends its batches, in their order, when the test says so."""

    kind = LaneKind.LIVE
    slots = 2
    name = "serial-0"

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.batches: list[BatchPlan] = []
        self._ends: list[asyncio.Future[int]] = []

    async def prepare(self, manifest: ModelManifest) -> None:
        raise AssertionError("not used here")

    async def run(self, plan: BatchPlan, *, alone: bool = False) -> BatchResult:
        end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.batches.append(plan)
        self._ends.append(end)
        end_ns = await end
        return BatchResult(np.ones((plan.rows, 1), np.float32), BatchTimes(end_ns - 1, end_ns, 1))

    async def close(self) -> None:
        return

    @property
    def in_lane(self) -> int:
        return len(self._ends)

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for its batches any more."""
        return all(end.cancelled() for end in self._ends)

    def works(self) -> list[list[Work]]:
        return [[part.work for part in plan.parts] for plan in self.batches]

    async def end(self, failure: Exception | None = None) -> None:
        end = self._ends.pop(0)
        if failure is None:
            end.set_result(self._clock.time_ns)
        else:
            end.set_exception(failure)
        await settle()


async def settle() -> None:
    """Lets every task that can go on do so."""
    for _ in range(50):
        await asyncio.sleep(0)


class Bench:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.lane = HandLane(self.clock)
        self.scheduler = Scheduler(LIMITS, FixedCosts(*COSTS))
        self.dispatcher = Dispatcher(
            self.scheduler, [self.lane], self.clock, shares_rows=False, serial_clock=self.clock
        )

    async def submit(
        self,
        lengths: list[int],
        request_class: RequestClass = RequestClass.LIVE,
        deadline_us: int | None = None,
    ) -> tuple[Work, RecordingSink]:
        deadline_ns = None if deadline_us is None else deadline_us * US
        work, sink = make_work(
            lengths, request_class=request_class, deadline_ns=deadline_ns, arrival_ns=self.clock.time_ns
        )
        self.dispatcher.submit(work)
        await settle()
        return work, sink


@asynccontextmanager
async def benched() -> AsyncGenerator[Bench]:
    bench = Bench()
    bench.dispatcher.start()
    try:
        yield bench
    finally:
        await bench.dispatcher.close()


async def test_the_next_batch_is_chosen_just_before_the_end_of_the_one_that_runs() -> None:
    async with benched() as bench:
        await bench.submit([100] * 3, RequestClass.BULK)
        assert bench.lane.in_lane == 1
        await bench.clock.turn_to(ROW_US - 301)
        assert bench.lane.in_lane == 1
        await bench.clock.turn_to(ROW_US - 300)
        assert bench.lane.in_lane == 2


async def test_a_live_call_that_comes_before_the_choice_goes_before_bulk() -> None:
    async with benched() as bench:
        bulk, _ = await bench.submit([100] * 3, RequestClass.BULK)
        await bench.clock.turn_to(ROW_US - 400)
        live, _ = await bench.submit([100])
        assert bench.lane.in_lane == 1
        await bench.clock.turn_to(ROW_US - 300)
        assert bench.lane.works() == [[bulk], [live]]


async def test_work_that_comes_after_the_moment_of_choice_goes_behind_the_running_batch_at_once() -> None:
    async with benched() as bench:
        first, _ = await bench.submit([100])
        await bench.clock.turn_to(ROW_US - 300)
        assert bench.lane.in_lane == 1
        second, _ = await bench.submit([100])
        assert bench.lane.works() == [[first], [second]]


async def test_no_more_than_one_batch_waits_however_late_the_running_one_is() -> None:
    async with benched() as bench:
        await bench.submit([100] * 4, RequestClass.BULK)
        await bench.clock.turn_to(100 * ROW_US)
        await bench.clock.turn_to(200 * ROW_US)
        assert len(bench.lane.batches) == 2
        await bench.lane.end()
        # The one behind begins now, and the third is chosen at its end.
        assert len(bench.lane.batches) == 2
        await bench.clock.turn_to(201 * ROW_US - 300)
        assert len(bench.lane.batches) == 3


async def test_a_batch_that_ends_early_is_followed_at_once() -> None:
    async with benched() as bench:
        await bench.submit([100] * 2, RequestClass.BULK)
        await bench.clock.turn_to(ROW_US // 2)
        assert bench.lane.in_lane == 1
        await bench.lane.end()
        assert bench.lane.in_lane == 1
        assert len(bench.lane.batches) == 2


async def test_bulk_rows_ride_in_a_live_batch() -> None:
    async with benched() as bench:
        await bench.submit([100])
        bulk, _ = await bench.submit([25] * 2, RequestClass.BULK)
        live, _ = await bench.submit([25], deadline_us=100_000)
        await bench.clock.turn_to(ROW_US)
        assert {*bench.lane.works()[1]} == {live, bulk}


async def test_rows_of_a_batch_that_fails_run_behind_the_one_that_was_waiting() -> None:
    async with benched() as bench:
        first, first_sink = await bench.submit([50, 50])
        await bench.clock.turn_to(ROW_US)
        second, second_sink = await bench.submit([100])
        await bench.lane.end(EngineFailed("poison"))
        assert bench.lane.works() == [[first], [second], [first]]
        # The lane is as long busy as what is in it takes, and the half that follows.
        now_ns = bench.clock.time_ns
        assert bench.scheduler.choice_ns(now_ns) == now_ns + (ROW_US + 2 * 1500 - 300) * US
        await bench.lane.end()
        assert bench.scheduler.choice_ns(now_ns) == now_ns + (2 * 1500 - 300) * US
        await bench.lane.end(EngineFailed("poison"))
        await bench.lane.end()
        assert list(second_sink.outputs) == [0]
        assert (list(first_sink.errors), list(first_sink.outputs)) == ([0], [1])
        assert bench.lane.in_lane == 0
        assert bench.scheduler.choice_ns(now_ns) == now_ns


async def test_work_that_is_cancelled_before_the_choice_is_not_computed() -> None:
    async with benched() as bench:
        first, _ = await bench.submit([100])
        second, sink = await bench.submit([100])
        bench.dispatcher.cancel(second)
        await bench.clock.turn_to(ROW_US)
        assert bench.lane.works() == [[first]]
        assert not sink.outputs
        assert not sink.errors


async def test_a_deadline_that_passes_while_a_batch_is_late_fails_the_rows() -> None:
    async with benched() as bench:
        await bench.submit([100] * 2, RequestClass.BULK)
        await bench.clock.turn_to(ROW_US)
        _, sink = await bench.submit([100], deadline_us=4 * ROW_US)
        await bench.clock.turn_to(5 * ROW_US)
        assert not sink.errors
        await bench.lane.end()
        await bench.lane.end()
        assert isinstance(sink.errors[0], DeadlineUnmeetable)
        assert len(bench.lane.batches) == 2


async def test_a_closed_dispatcher_leaves_no_batch_and_no_timer_behind() -> None:
    async with benched() as bench:
        await bench.submit([100] * 5, RequestClass.BULK)
        await bench.dispatcher.close()
        assert bench.lane.is_left
        assert all(timer.is_cancelled for timer in bench.clock.timers)
        assert bench.clock.timers
        with pytest.raises(Draining):
            await bench.submit([100])
