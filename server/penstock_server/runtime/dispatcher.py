"""Drives the scheduler and the lanes: asks for plans, runs them, hands outputs to the owners of the rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import structlog

from penstock_server.domain.errors import DeadlineUnmeetable, Draining, EngineFailed
from penstock_server.domain.tasks import OverloadPolicy
from penstock_server.domain.work import BatchPart, BatchPlan, Work
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.lanes import BatchResult, Lane, LaneLost
from penstock_server.scheduling.scheduler import LaneKind, Scheduler

# How often a batch is tried on a lane that dies under it before its rows are tried apart. Chosen: a worker
# that was killed from outside deserves one more try; a row that kills it will do so again.
_TRIES_BEFORE_SPLIT = 2

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Owns the scheduler; one driver task for each slot of each lane."""

    def __init__(self, scheduler: Scheduler, lanes: Sequence[Lane], clock: Clock) -> None:
        self._scheduler = scheduler
        self._lanes = tuple(lanes)
        self._clock = clock
        self._wake = {kind: asyncio.Event() for kind in LaneKind}
        self._drivers: list[asyncio.Task[None]] = []
        self._is_draining = False

    def start(self) -> None:
        """Starts the driver tasks."""
        for lane in self._lanes:
            for slot in range(lane.slots):
                self._drivers.append(asyncio.create_task(self._drive(lane), name=f"{lane.name}/{slot}"))

    def submit(self, work: Work, overload: OverloadPolicy = OverloadPolicy.REJECT) -> None:
        """Queues work for the lanes.

        Raises:
            Draining: The server is shutting down.
            Overloaded: The queue is full.
            DeadlineUnmeetable: The deadline has passed.
        """
        if self._is_draining:
            raise Draining("The server is shutting down; send the request to another one.")
        self._scheduler.admit(work, self._clock.now_ns(), overload)
        for event in self._wake.values():
            event.set()

    def cancel(self, work: Work) -> None:
        """Drops the rows of a work that are not in a batch yet; its sink hears no more of them."""
        self._scheduler.cancel(work)

    def drain(self) -> None:
        """Refuses new work from now on; work already queued is still computed."""
        self._is_draining = True

    async def close(self) -> None:
        """Stops the drivers; idempotent. Batches that run are waited for by closing their lanes."""
        self._is_draining = True
        for driver in self._drivers:
            driver.cancel()
        await asyncio.gather(*self._drivers, return_exceptions=True)
        self._drivers.clear()

    async def _drive(self, lane: Lane) -> None:
        """Runs one batch after another on a lane."""
        wake = self._wake[lane.kind]
        while True:
            decision = self._scheduler.plan(lane.kind, self._clock.now_ns())
            for part in decision.expired:
                error = DeadlineUnmeetable(
                    "The deadline passed while the request waited; nothing was computed."
                )
                part.work.sink.fail(part.rows, error)
            if decision.batch is None:
                wake.clear()
                await wake.wait()
            else:
                await self._run(lane, decision.batch)

    async def _run(self, lane: Lane, plan: BatchPlan) -> None:
        """Runs a batch; if it fails, tries its rows apart until those that fail are alone."""
        try:
            result = await self._run_again_if_lost(lane, plan)
        except (EngineFailed, LaneLost) as err:
            if plan.rows == 1:
                self._fail(lane, plan, err)
                return
            for half in split(plan):
                await self._run(lane, half)
            return
        self._scheduler.complete(lane.kind, plan, result.times.start_ns, result.times.end_ns)
        self._deliver(plan, result)

    async def _run_again_if_lost(self, lane: Lane, plan: BatchPlan) -> BatchResult:
        for _ in range(_TRIES_BEFORE_SPLIT - 1):
            try:
                return await lane.run(plan)
            except LaneLost:
                _log.warning("lane_lost", lane=lane.name, rows=plan.rows)
        return await lane.run(plan)

    def _deliver(self, plan: BatchPlan, result: BatchResult) -> None:
        first = 0
        for part in plan.parts:
            end = first + len(part.rows)
            part.work.sink.deliver(part.rows, result.outputs[first:end], result.times)
            first = end

    def _fail(self, lane: Lane, plan: BatchPlan, err: Exception) -> None:
        _log.error("row_failed", lane=lane.name, model=str(plan.model), tokens=plan.tokens, error=str(err))
        error = err if isinstance(err, EngineFailed) else EngineFailed("The engine died on this row.")
        for part in plan.parts:
            part.work.sink.fail(part.rows, error)


def split(plan: BatchPlan) -> tuple[BatchPlan, BatchPlan]:
    """Splits a batch of at least two rows into two of about half the rows."""
    middle = plan.rows // 2
    halves: tuple[list[BatchPart], list[BatchPart]] = ([], [])
    first = 0
    for part in plan.parts:
        cut = int(np.clip(middle - first, 0, len(part.rows)))
        for half, rows in zip(halves, (part.rows[:cut], part.rows[cut:]), strict=True):
            if len(rows):
                half.append(BatchPart(part.work, rows))
        first += len(part.rows)
    return _plan_of(plan, halves[0]), _plan_of(plan, halves[1])


def _plan_of(whole: BatchPlan, parts: list[BatchPart]) -> BatchPlan:
    lengths = np.concatenate([part.work.tokens.lengths[part.rows] for part in parts])
    return BatchPlan(whole.model, tuple(parts), len(lengths), int(lengths.max()), int(lengths.sum()))
