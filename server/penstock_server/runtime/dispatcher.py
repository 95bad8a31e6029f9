"""Drives the scheduler and the lanes: asks for plans, runs them, hands outputs to the owners of the rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import structlog
from numpy.typing import NDArray

from penstock_server.domain.errors import DeadlineUnmeetable, Draining, EngineFailed, PenstockError
from penstock_server.domain.explanation import BatchRun, add_run
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan, BatchTimes, Work
from penstock_server.observability.observer import SILENT, Observer
from penstock_server.runtime.clock import Clock, TimerClock
from penstock_server.runtime.intrusions import Intrusions
from penstock_server.runtime.lanes import BatchResult, Lane, LaneLost
from penstock_server.runtime.result_cache import FoundRows, ResultCache
from penstock_server.runtime.row_sharing import Follower, RowSharing
from penstock_server.runtime.serial_driver import SerialDriver
from penstock_server.runtime.trace import TraceWriter
from penstock_server.scheduling.admission import already_late
from penstock_server.scheduling.scheduler import Scheduler

# The kind of a lane that runs live and bulk batches, as metrics name it.
SERIAL = "serial"

# Calls of more rows are not looked up: that would take the event loop for more than half a millisecond.
_LOOKED_UP_MAX = 256

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Owns the scheduler; one driver task for each slot of each lane, or one for a serial lane.

    Args:
        scheduler: Chooses batches.
        lanes: Run them.
        clock: The time.
        observer: Hears what happens.
        trace: Records arrivals.
        cache: Keeps outputs of rows for those who ask for the same later; None for none.
        shares_rows: Whether identical rows in flight are computed once.
        serial_clock: Makes the one lane run live and bulk batches, each chosen at its time by this clock; the
            scheduler's limits must say the same. None if there are bulk lanes beside the live one.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        lanes: Sequence[Lane],
        clock: Clock,
        observer: Observer = SILENT,
        trace: TraceWriter | None = None,
        *,
        cache: ResultCache | None = None,
        shares_rows: bool = True,
        serial_clock: TimerClock | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._lanes = tuple(lanes)
        self._clock = clock
        self._serial_clock = serial_clock
        self._observer = observer
        self._trace = trace
        self._cache = cache
        self._intrusions = Intrusions(lanes)
        self._sharing = RowSharing(scheduler, is_on=shares_rows, on_queued=self._wake_lanes)
        self._wake = {kind: asyncio.Event() for kind in LaneKind}
        self._drivers: list[asyncio.Task[None]] = []
        self._is_closed = False

    def start(self) -> None:
        """Starts the driver tasks."""
        for lane in self._lanes:
            if self._serial_clock is not None:
                driver = self._serial_driver(lane, self._serial_clock)
                self._drivers.append(asyncio.create_task(driver.drive(), name=lane.name))
                continue
            for slot in range(lane.slots):
                self._drivers.append(asyncio.create_task(self._drive(lane), name=f"{lane.name}/{slot}"))

    def submit(
        self, work: Work, overload: OverloadPolicy = OverloadPolicy.REJECT, *, is_again: bool = False
    ) -> None:
        """Queues work for the lanes.

        Args:
            work: The rows.
            overload: What may happen if they cannot be computed in time.
            is_again: They came before, were refused, and their owner tries once more. Traces tell arrivals,
                so the first time counts.

        Raises:
            Draining: The server is shutting down.
            Overloaded: The queue is full.
            DeadlineUnmeetable: The deadline has passed.
        """
        if self._is_closed:
            raise Draining("The server is shutting down; send the request to another one.")
        if self._trace is not None and not is_again:
            self._trace.record(work, overload)
        asked, now_ns = work.request_class, self._clock.now_ns()
        found = self._find(work)
        if found is None:
            self._admit(work, now_ns, overload)
        else:
            self._admit_rest(work, found, now_ns, overload)
        if work.request_class is not asked:
            self._observer.demoted(asked, work.request_class)
        if asked <= RequestClass.LIVE and len(work.rows):
            self._intrusions.live_arrived(now_ns)
        self._wake_lanes()

    def _find(self, work: Work) -> FoundRows | None:
        """Looks up what need not be computed. Jobs have looked for themselves, off the event loop."""
        if self._cache is None or work.flow or len(work.rows) > _LOOKED_UP_MAX:
            return None
        return self._cache.find(work.model, work.tenant, work.tokens, work.rows)

    def _admit(self, work: Work, now_ns: int, overload: OverloadPolicy) -> None:
        followers = self._sharing.admit(work, now_ns, overload)
        if followers:
            self._observer.rows_shared(followers)

    def _admit_rest(self, work: Work, found: FoundRows, now_ns: int, overload: OverloadPolicy) -> None:
        """Queues what was not found, if it may be, and hands out what was."""
        rows, work.rows = work.rows, found.missing
        try:
            if len(found.missing):
                self._admit(work, now_ns, overload)
            elif work.deadline_ns is not None and work.deadline_ns <= now_ns:
                raise already_late()
        except PenstockError:
            work.rows = rows
            raise
        work.cached_rows = len(found.rows)
        # Not before the caller knows that it was admitted.
        asyncio.get_running_loop().call_soon(self._hand_out, work, found, BatchTimes(now_ns, now_ns, 0))

    @staticmethod
    def _hand_out(work: Work, found: FoundRows, times: BatchTimes) -> None:
        if not work.cancelled:
            work.sink.deliver(found.rows, found.outputs, times)

    def _wake_lanes(self) -> None:
        for event in self._wake.values():
            event.set()

    def bulk_ns_per_token(self, model: ModelKey) -> float:
        """About what a token of bulk work costs a lane, in nanoseconds."""
        return self._scheduler.bulk_ns_per_token(model)

    def cancel(self, work: Work) -> None:
        """Drops the rows of a work that are not in a batch yet; its sink hears no more of them."""
        self._fail_followers(self._sharing.cancel(work, self._clock.now_ns()))

    async def close(self) -> None:
        """Refuses new work and stops the drivers; idempotent. What still waits gets no answer.

        Batches that run are waited for by closing their lanes.
        """
        self._is_closed = True
        for driver in self._drivers:
            driver.cancel()
        await asyncio.gather(*self._drivers, return_exceptions=True)
        self._drivers.clear()

    async def _drive(self, lane: Lane) -> None:
        """Runs one batch after another on a lane."""
        wake = self._wake[lane.kind]
        while True:
            batch = self._plan(lane)
            if batch is None:
                wake.clear()
                await wake.wait()
            else:
                await self._run(lane, batch)

    def _serial_driver(self, lane: Lane, clock: TimerClock) -> SerialDriver:
        return SerialDriver(
            slots=lane.slots,
            choice_ns=self._scheduler.choice_ns,
            plan=lambda: self._plan(lane),
            run=lambda batch: self._run(lane, batch),
            clock=clock,
            wake=self._wake[lane.kind],
        )

    def _plan(self, lane: Lane) -> BatchPlan | None:
        """Chooses a lane's next batch, and fails the rows that are given up."""
        decision = self._scheduler.plan(lane.kind, self._clock.now_ns())
        for part in decision.expired:
            self._expire(part)
        for kind in decision.wakes:
            self._wake[kind].set()
        if decision.batch is not None:
            self._sharing.started(decision.batch.parts, lane.kind)
        return decision.batch

    def _expire(self, part: BatchPart) -> None:
        self._observer.expired(part)
        refused = self._sharing.dropped(part, self._clock.now_ns())
        error = DeadlineUnmeetable("The deadline passed while the request waited; nothing was computed.")
        self._fail_part(part, error)
        self._fail_followers(refused)

    async def _run(self, lane: Lane, plan: BatchPlan, *, alone: bool = False) -> None:
        """Runs a batch and hands out its outputs; every row gets an answer whatever happens.

        A batch that fails is split until the rows that fail are alone. A batch under which the lane's process
        died is suspect, like all that ran beside it: suspects run again one at a time, and only a row that
        kills the process alone fails. One that was never sent to the process is no suspect.
        """
        self._intrusions.batch_starts(lane, plan)
        try:
            result = await lane.run(plan, alone=alone)
        except LaneLost as err:
            _log.warning("lane_lost", lane=lane.name, rows=plan.rows, alone=alone)
            halve = alone and err.is_suspect
            await self._run_apart(lane, plan, err, halve=halve, alone=alone or err.is_suspect)
        except EngineFailed as err:
            await self._run_apart(lane, plan, err, halve=True, alone=alone)
        except Exception as err:  # noqa: BLE001 - a driver that died would leave rows without an answer
            _log.error("lane_failed", lane=lane.name, exc_info=err)
            await self._run_apart(lane, plan, err, halve=True, alone=alone)
        else:
            self._scheduler.complete(lane.kind, plan, result.times)
            self._deliver(lane, plan, result)
            self._observer.batch_ran(self._kind_of(lane), plan, result.times)
            for waited_ns in self._intrusions.batch_ended(lane, result.times.end_ns):
                self._observer.live_waited_behind_bulk(waited_ns)

    async def _run_apart(
        self, lane: Lane, plan: BatchPlan, err: Exception, *, halve: bool, alone: bool
    ) -> None:
        """Runs the rows of a failed batch again, whole or in halves; fails a row that was the only one."""
        self._intrusions.batch_ended(lane, self._clock.now_ns())
        if halve and plan.rows == 1:
            self._scheduler.failed(lane.kind, plan, self._clock.now_ns())
            self._fail(lane, plan, err)
            return
        halves = split(plan) if halve else (plan,)
        self._scheduler.failed(lane.kind, plan, self._clock.now_ns(), halves)
        for half in halves:
            for part in half.parts:
                if part.work.cancelled:
                    self._fail_followers(self._sharing.dropped(part, self._clock.now_ns()))
            wanted = without_cancelled(half)
            again = () if wanted is None else (wanted,)
            self._scheduler.failed(lane.kind, half, self._clock.now_ns(), again)
            if wanted is not None:
                await self._run(lane, wanted, alone=alone)

    def _kind_of(self, lane: Lane) -> str:
        """What metrics call the lane."""
        return lane.kind.value if self._serial_clock is None else SERIAL

    def _deliver(self, lane: Lane, plan: BatchPlan, result: BatchResult) -> None:
        first = 0
        for part in plan.parts:
            end = first + len(part.rows)
            outputs = result.outputs[first:end]
            first = end
            self._deliver_part(lane, plan, part, outputs, _own_times(plan, part, result.times))
            if self._cache is not None:
                self._cache.keep(plan.model, part.work.tenant, part.work.tokens, part.rows, outputs)
            for follower in self._sharing.settled(part):
                own = BatchPart(follower.work, np.array([follower.row], np.int32))
                place = follower.place
                output = outputs[place : place + 1]
                self._deliver_part(lane, plan, own, output, result.times, is_shared=True)

    @staticmethod
    def _deliver_part(
        lane: Lane,
        plan: BatchPlan,
        part: BatchPart,
        outputs: NDArray[np.float32],
        times: BatchTimes,
        *,
        is_shared: bool = False,
    ) -> None:
        if part.work.runs is not None:
            add_run(part.work.runs, run_of(lane.name, plan, part, times, is_shared=is_shared))
        try:
            part.work.sink.deliver(part.rows, outputs, times)
        except Exception as err:  # noqa: BLE001 - one owner's fault is not the other owners'
            _log.error("delivery_failed", model=str(plan.model), exc_info=err)

    def _fail(self, lane: Lane, plan: BatchPlan, err: Exception) -> None:
        _log.error("row_failed", lane=lane.name, model=str(plan.model), tokens=plan.tokens, error=str(err))
        error = err if isinstance(err, EngineFailed) else EngineFailed("The engine died on this row.")
        for part in plan.parts:
            followers = self._sharing.settled(part)
            self._fail_part(part, error)
            self._fail_followers([(follower, error) for follower in followers])

    def _fail_followers(self, refused: Sequence[tuple[Follower, PenstockError]]) -> None:
        for follower, error in refused:
            self._fail_part(BatchPart(follower.work, np.array([follower.row], np.int32)), error)

    @staticmethod
    def _fail_part(part: BatchPart, error: PenstockError) -> None:
        try:
            part.work.sink.fail(part.rows, error)
        except Exception as err:  # noqa: BLE001 - one owner's fault is not the other owners'
            _log.error("delivery_failed", model=str(part.work.model), exc_info=err)


def _own_times(plan: BatchPlan, part: BatchPart, times: BatchTimes) -> BatchTimes:
    """The times of a batch; for a job's rows with that part of its cost that falls to them."""
    if len(plan.parts) == 1 or not part.work.flow:
        return times
    tokens = int(part.work.tokens.lengths[part.rows].sum())
    return replace(times, cpu_ns=times.cpu_ns * tokens // max(plan.tokens, 1))


def run_of(
    lane: str, plan: BatchPlan, part: BatchPart, times: BatchTimes, *, is_shared: bool = False
) -> BatchRun:
    """Tells one part of a batch how the batch ran."""
    rows_by_class: Counter[RequestClass] = Counter()
    for each in plan.parts:
        rows_by_class[each.work.request_class] += len(each.rows)
    return BatchRun(
        lane=lane,
        rows=plan.rows,
        own_rows=0 if is_shared else len(part.rows),
        shared_rows=len(part.rows) if is_shared else 0,
        tokens=plan.tokens,
        padded_tokens=plan.rows * plan.padded_length,
        rows_by_class=tuple(sorted(rows_by_class.items())),
        start_ns=times.start_ns,
        end_ns=times.end_ns,
        predicted_ns=plan.predicted_ns,
    )


def without_cancelled(plan: BatchPlan) -> BatchPlan | None:
    """Leaves out rows that nobody waits for any more; None if none are left."""
    parts = [part for part in plan.parts if not part.work.cancelled]
    return _plan_of(plan, parts) if parts else None


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
