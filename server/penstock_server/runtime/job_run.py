"""Computes the rows of one job, a few windows at a time, until they are done or it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.journal import JobStore, WindowRecord
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.spool import Spool
from penstock_server.domain.errors import DeadlineUnmeetable, Draining, Overloaded, TooManyFailedRows
from penstock_server.domain.job import WEIGHT_DEFAULT, Job
from penstock_server.domain.model import ModelKey
from penstock_server.domain.work import Work
from penstock_server.models.loaded import LoadedModel
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.job_pace import Pace
from penstock_server.runtime.job_progress import JobTracker
from penstock_server.runtime.job_windows import PreparedWindow, WindowRun, prepare_window
from penstock_server.runtime.result_cache import ResultCache

# How often a job that rests between its pieces looks whether others want its place, in seconds.
_REST_S = 1.0
# A job that needs no more of the lanes' time than this to be done in time is in no hurry.
_NEED_MIN = 0.25
# One that is counts this many times its weight at most.
_PRESSURE_MAX = 10.0


class WorkSubmitter(Protocol):
    """Takes work for the lanes; the dispatcher."""

    def submit(self, work: Work, *, is_again: bool = False) -> None:
        """Queues work; ``is_again`` if it was refused before. Raises Overloaded or Draining."""
        ...

    def bulk_ns_per_token(self, model: ModelKey) -> float:
        """About what a token of bulk work costs a lane, in nanoseconds."""
        ...

    def cancel(self, work: Work) -> None:
        """Drops the rows of a work that are not in a batch yet."""
        ...


class JobRun:
    """One job being computed. Owned by the event loop.

    At most ``windows_in_flight_max`` windows are in memory; while one is computed the next is prepared. When
    ``is_place_wanted`` says so after a window, no other is begun. Rows that are not done at ``deadline_ns``
    are given up by the scheduler; they stay pending, and the run stops. It stops as well once more rows have
    failed than the job allows. Where the job may take a share of the lanes only, they get rows in pieces.
    """

    def __init__(
        self,
        job: Job,
        folder: JobFolder,
        model: LoadedModel,
        *,
        store: JobStore,
        submitter: WorkSubmitter,
        tracker: JobTracker,
        clock: Clock,
        limits: BulkLimits,
        cache: ResultCache | None,
        pace: Pace | None,
        deadline_ns: int | None,
        changed: Callable[[], None],
        is_place_wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._job = job
        self._folder = folder
        self._model = model
        self._store = store
        self._submitter = submitter
        self._tracker = tracker
        self._clock = clock
        self._limits = limits
        self._pace = pace
        self._cache = cache
        self._deadline_ns = deadline_ns
        self._changed = changed
        self._is_place_wanted = is_place_wanted
        # What a row takes if nothing else is computed.
        self._row_ns = 0.0
        self._gives_way = False
        self._is_stopped = False
        self._stop = asyncio.Event()
        self._active: set[WindowRun] = set()

    def stop(self) -> None:
        """Ends the run soon: queued rows are dropped, what is done is kept. Idempotent."""
        self._is_stopped = True
        self._halt()

    def give_way(self) -> None:
        """Ends the run soon as `stop` does, but for a while only, as `run` then tells."""
        self._gives_way = True
        self._halt()

    def _halt(self) -> None:
        self._stop.set()
        for run in self._active:
            run.settled.set()

    async def run(self) -> bool:
        """Computes all windows that are not whole yet; returns early after ``stop``, or to give its place up.

        Returns:
            Whether it gave its place up and is to go on later.

        Raises:
            StorageFull, StorageFailed: A part cannot be written.
            TooManyFailedRows: More have failed than the job allows; all that is done is kept.
        """
        self._check_failures()
        spool = await asyncio.to_thread(Spool, self._folder.spool_path)
        try:
            records = {
                record.number: record for record in await asyncio.to_thread(self._store.windows, self._job.id)
            }
            numbers = iter([n for n in range(spool.windows) if n not in records or not records[n].is_whole])
            await asyncio.to_thread(self._store.started, self._job.id)
            workers = [
                asyncio.create_task(self._work_off(numbers, spool, records))
                for _ in range(self._limits.windows_in_flight_max)
            ]
            try:
                await asyncio.gather(*workers)
                self._check_failures()
                return self._gives_way and not self._is_stopped
            finally:
                self._halt()
                await asyncio.gather(*workers, return_exceptions=True)
        finally:
            spool.close()

    async def _work_off(self, numbers: Iterator[int], spool: Spool, records: dict[int, WindowRecord]) -> None:
        has_done_any = False
        for number in numbers:
            # Asked only where there is more to do, so that a run that is done does not wait for another turn.
            self._gives_way = self._gives_way or (has_done_any and self._is_place_wanted())
            if self._stop.is_set() or self._gives_way:
                return
            prepared = await asyncio.to_thread(
                prepare_window,
                spool,
                self._folder,
                number,
                records.get(number),
                self._job.spec,
                self._model,
                self._cache,
            )
            self._expect(prepared)
            run = WindowRun(
                prepared, self._model, self._tracker, self._on_change, self._clock.now_ns(), self._pace
            )
            await self._compute(run)
            has_done_any = True

    def _expect(self, prepared: PreparedWindow) -> None:
        """Tells how fast rows like these are done, by the cost tables."""
        tokens = max(1.0, float(prepared.tokens.lengths.mean()))
        cost_ns = tokens * self._submitter.bulk_ns_per_token(self._model.manifest.key)
        self._row_ns = cost_ns / self._limits.lanes
        share = self._job.spec.share_max
        self._tracker.expect((share or 1.0) * 1e9 / self._row_ns, is_most=share is not None)

    def _weight(self) -> float:
        """The job's weight, which grows when its time is short: it would then need much of the lanes' time.

        Beside one other job of equal weight it gets what it needs, up to nine tenths of the time.
        """
        weight = self._job.spec.weight / WEIGHT_DEFAULT
        if self._deadline_ns is None:
            return weight
        left_ns = max(1, self._deadline_ns - self._clock.now_ns())
        need = self._tracker.pending * self._row_ns / left_ns
        return weight if need <= _NEED_MIN else weight * min(_PRESSURE_MAX, 1 / max(1 - need, 1e-9))

    def _on_change(self) -> None:
        """Hears that rows are done or have failed."""
        if self._has_failed:
            self.stop()
        self._changed()

    @property
    def _has_failed(self) -> bool:
        most = self._job.spec.failed_rows_max
        return most is not None and self._tracker.failed > most

    def _check_failures(self) -> None:
        if self._has_failed:
            raise TooManyFailedRows(
                f"{self._tracker.failed:,} rows have failed, and spec.failed_rows_max allows "
                f"{self._job.spec.failed_rows_max:,}; the failed rows tell why."
            )

    async def _compute(self, run: WindowRun) -> None:
        """Computes one window and commits it, whole or as far as it is when the run is stopped."""
        self._active.add(run)
        self._tracker.begun(run.number)
        if self._has_failed:
            self.stop()
        try:
            await self._compute_rows(run)
        finally:
            self._active.discard(run)
            self._tracker.ended(run.number)
            run.close()
        await self._commit(run)
        if run.is_late:
            self.stop()

    async def _compute_rows(self, run: WindowRun) -> None:
        """Has a window's rows computed: at once, or in pieces where the job may take a share only."""
        pace = self._pace
        if pace is None:
            if run.has_more:
                await self._compute_piece(run, run.next_rows())
            return
        while run.has_more and not self._stop.is_set():
            async with pace.piece:
                while left_s := pace.left_s():
                    # A job at rest holds its place only as long as nobody else wants it.
                    self._gives_way = self._gives_way or self._is_place_wanted()
                    if self._gives_way:
                        self._halt()
                    if await self._stopped_within(min(left_s, _REST_S)):
                        return
                await self._compute_piece(run, run.next_rows(pace.begin()))
                saved_s = (self._clock.now_ns() - run.saved_ns) / 1e9
                if max(saved_s, pace.left_s()) >= self._limits.checkpoint_s:
                    await self._commit(run)

    async def _compute_piece(self, run: WindowRun, rows: NDArray[np.int32]) -> None:
        now_ns = self._clock.now_ns()
        work = run.work(rows, self._job.id, self._job.spec, now_ns, self._deadline_ns, self._weight())
        try:
            if await self._submit(work):
                while not await self._settled(run):
                    await self._commit(run)
        finally:
            if run.is_waiting:
                self._submitter.cancel(work)

    async def _submit(self, work: Work) -> bool:
        """Queues work, waiting while the queue is full. False if the run is to stop."""
        is_again = False
        while not self._stop.is_set():
            try:
                self._submitter.submit(work, is_again=is_again)
            except Overloaded as err:
                is_again = True
                await self._stopped_within(err.retry_after_s)
            except (Draining, DeadlineUnmeetable):
                self.stop()
            else:
                return True
        return False

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _settled(self, run: WindowRun) -> bool:
        """Waits until a window is done or the run stops; False if a checkpoint is due before."""
        try:
            await asyncio.wait_for(run.settled.wait(), self._limits.checkpoint_s)
        except TimeoutError:
            return False
        return True

    async def _commit(self, run: WindowRun) -> None:
        snapshot = run.snapshot()
        if not snapshot.has_news:
            return
        part, record = await asyncio.to_thread(
            snapshot.commit, self._folder, self._store, self._job.id, self._job.spec, self._model
        )
        run.was_written(part, record, self._clock.now_ns())
