"""The dispatcher tells the scheduler of batches that fail, so that a free lane is free on paper."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest

from penstock_server.domain.errors import EngineFailed
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.work import BatchPlan, BatchTimes
from penstock_server.runtime.dispatcher import Dispatcher
from penstock_server.runtime.lanes import BatchResult, LaneLost
from penstock_server.scheduling.limits import SchedulerLimits
from penstock_server.scheduling.scheduler import Scheduler
from tests.support.costs import FixedCosts
from tests.support.work import make_work

MS = 1_000_000
LIMITS = SchedulerLimits(
    10_000,
    10_000,
    10_000,
    live_batch_tokens_max=100,
    bulk_batch_tokens=100,
    lookahead_rows=8,
    live_margin_ns=0,
)


class StillClock:
    def now_ns(self) -> int:
        return MS


@dataclass
class FailingLane:
    """Fails its batches with what the test says, and notes how long the scheduler thinks it is busy."""

    scheduler: Scheduler
    failures: list[Exception]
    name: str = "test"
    kind: LaneKind = LaneKind.LIVE
    slots: int = 1
    busy_ns: list[int] = field(default_factory=list[int])

    async def prepare(self, manifest: ModelManifest) -> None:
        raise AssertionError("not used here")

    async def run(self, plan: BatchPlan, *, alone: bool = False) -> BatchResult:
        self.busy_ns.append(free_ns(self.scheduler) - MS)
        if self.failures:
            raise self.failures.pop(0)
        return BatchResult(np.zeros((plan.rows, 1), np.float32), BatchTimes(MS, MS, 1))

    async def close(self) -> None:
        return


def free_ns(scheduler: Scheduler) -> int:
    return scheduler._live.free_ns(MS)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("failures", "busy_ns"),
    [
        # Four rows of 25 tokens take 3,000 ns, two 2,500, one 2,250.
        ([EngineFailed("poison")], [3000, 5000, 2500]),
        ([LaneLost("gone")], [3000, 3000]),
        ([MemoryError()] * 3, [3000, 5000, 7000, 4750, 2500]),
        ([EngineFailed("poison")] * 7, [3000, 5000, 7000, 4750, 2500, 4500, 2250]),
    ],
)
async def test_lane_is_as_long_busy_as_batches_of_a_failed_one_run_again(
    failures: list[Exception], busy_ns: list[int]
) -> None:
    scheduler = Scheduler(LIMITS, FixedCosts(2000.0, 10.0))
    lane = FailingLane(scheduler, list(failures))
    dispatcher = Dispatcher(scheduler, [lane], StillClock())
    dispatcher.start()
    work, sink = make_work([25] * 4)
    dispatcher.submit(work)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(sink.outputs) + len(sink.errors) == 4
    assert free_ns(scheduler) == MS
    assert lane.busy_ns == busy_ns
    await dispatcher.close()
