"""The course of a job: read and counted, computed in turns, its result files written.

What happens next follows from the job's state in the journal alone, so a restart simply takes it up again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import structlog

from penstock_server.bulk.delivery import DeliveryOrder, check_file_count
from penstock_server.bulk.file_sets import allowed_files, names_many
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.inputs import InputOrder
from penstock_server.bulk.journal import JobStore
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.places import Place, allowed_place
from penstock_server.bulk.retry import RetryOrder
from penstock_server.bulk.spool import count_windows
from penstock_server.bulk.uploads import UploadStore
from penstock_server.domain.errors import (
    InvalidRequest,
    ModelBroken,
    ModelLoading,
    PenstockError,
    PlaceFailed,
    StorageFailed,
    StorageFull,
    UnknownJob,
    UnknownModel,
    WrongState,
)
from penstock_server.domain.job import FileFormat, Job, JobError, JobSpec, JobState, RowSelection
from penstock_server.models.loaded import LoadedModel
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.job_files import FileTasks
from penstock_server.runtime.job_pace import Pace
from penstock_server.runtime.job_progress import JobTracker
from penstock_server.runtime.job_results import ResultReader
from penstock_server.runtime.job_run import JobRun, WorkSubmitter
from penstock_server.runtime.job_states import JobStates
from penstock_server.runtime.job_times import open_from_ns, open_until_ns
from penstock_server.runtime.result_cache import ResultCache
from penstock_server.runtime.turns import Turns

_MODEL_WAIT_S = 0.5
# How long is slept at most until a time of the day: its clock may be set, or stand still with the machine.
_SLEEP_S_MAX = 30.0
# What somebody can mend, so that the job can go on: another models folder, a repaired model, more room, a
# sound disk, a bucket that can be reached.
_STORAGE = (StorageFull, StorageFailed, PlaceFailed)
_MENDABLE = (UnknownModel, ModelBroken, *_STORAGE)

_log = structlog.get_logger(__name__)


class ModelLookup(Protocol):
    """Finds models; the model table."""

    def get(self, name: str, version: str) -> LoadedModel:
        """Finds a model. Raises UnknownModel, ModelLoading or ModelBroken."""
        ...


class JobCourse:
    """Takes jobs from the state that the journal tells as far as they go. Owned by the event loop.

    Jobs compute in turns of their tenants: one that others wait for gives its place up between two windows.
    Those of at most one window have places of their own, so that they never wait behind large ones.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store: JobStore,
        states: JobStates,
        results: ResultReader,
        uploads: UploadStore,
        models: ModelLookup,
        submitter: WorkSubmitter,
        files: FileTasks,
        clock: Clock,
        day_ns: Callable[[], int],
        limits: BulkLimits,
        cache: ResultCache | None,
        sleep: Callable[[float], Coroutine[Any, Any, None]],
    ) -> None:
        self._folder = folder
        self._store = store
        self._states = states
        self._results = results
        self._uploads = uploads
        self._models = models
        self._submitter = submitter
        self._files = files
        self._clock = clock
        self._day_ns = day_ns
        self._limits = limits
        self._cache = cache
        self._sleep = sleep
        self._runs: dict[str, JobRun] = {}
        self._trackers: dict[str, JobTracker] = {}
        self._reading = Turns(limits.inputs_read_max)
        self._reading_small = Turns(limits.small_inputs_read_max, keeps_room=True)
        self._running = Turns(limits.jobs_running_max)
        self._running_small = Turns(limits.small_jobs_running_max, keeps_room=True)

    def tracker(self, job_id: str) -> JobTracker | None:
        """Counts of a job that is being computed; None if it is not."""
        return self._trackers.get(job_id)

    def trackers(self) -> dict[str, JobTracker]:
        """Counts of all jobs that are being computed, by id."""
        return dict(self._trackers)

    def stop_run(self, job_id: str) -> bool:
        """Has a job's rows computed no more, gently; False if none of them are."""
        run = self._runs.get(job_id)
        if run is None:
            return False
        run.stop()
        return True

    async def take(self, job_id: str) -> None:
        """Takes a job as far as it goes; must not run twice at once for one job. Does not raise."""
        try:
            await self._advance(job_id)
        except UnknownJob:
            # Launched once more while it ended, and deleted before that launch.
            _log.info("job_deleted", job=job_id)
        except _MENDABLE as err:
            _log.warning("job_paused", job=job_id, reason=err.reason, error=err.message)
            await self._states.stop_for(job_id, JobState.PAUSED, JobError(err.reason, err.message))
        except PenstockError as err:
            _log.warning("job_failed", job=job_id, reason=err.reason, error=err.message)
            await self._states.stop_for(job_id, JobState.FAILED, JobError(err.reason, err.message))
        except Exception:  # noqa: BLE001 - the task's owner: whatever fails must end the job, not vanish
            incident = uuid.uuid4().hex[:12]
            _log.exception("job_failed", job=job_id, incident=incident)
            error = JobError("INTERNAL", f"The server failed. Incident {incident}.")
            await self._states.stop_for(job_id, JobState.FAILED, error)

    async def _advance(self, job_id: str) -> None:
        job = await asyncio.to_thread(self._store.get, job_id)
        if job.state is JobState.VALIDATING:
            async with await self._reading_turn(job):
                job = await self._validate(job)
        if job.state is JobState.RUNNING:
            job = await self._compute_in_turns(job)
        if self._states.draining.is_set():
            return
        if job.state is JobState.RUNNING and job.progress.pending:
            # Paused and resumed at once: the run was stopped, and the task launched by resuming goes on.
            return
        if job.state is JobState.RUNNING:
            try:
                job = await self._states.move(job_id, JobState.FINALIZING, sources=(JobState.RUNNING,))
            except WrongState:
                # Paused or cancelled at the last moment; whoever did that goes on from there.
                return
        if job.state in (JobState.FINALIZING, JobState.CANCELLING):
            await self._finalise(job)

    async def _reading_turn(self, job: Job) -> AbstractAsyncContextManager[None]:
        is_small = False
        if job.spec.upload_id:
            upload = await asyncio.to_thread(self._uploads.get, job.spec.upload_id)
            is_small = upload.size_bytes <= self._limits.small_input_bytes
        return (self._reading_small if is_small else self._reading).turn(job.spec.options.tenant)

    async def _validate(self, job: Job) -> Job:
        folder = self._job_folder(job.id)
        await asyncio.to_thread(folder.create)
        if job.spec.retry_of:
            total = await self._files.retry(await asyncio.to_thread(self._retry_order, job, folder))
        else:
            total = await self._files.materialise(await asyncio.to_thread(self._input_order, job, folder))
        check_file_count(job.spec, total, self._limits.output_files_max)
        job = await asyncio.to_thread(self._store.validated, job.id, total)
        self._states.news.publish()
        return job

    def _input_order(self, job: Job, folder: JobFolder) -> InputOrder:
        """Says what a job's input is; blocking."""
        spec, limits, tenant = job.spec, self._limits, job.spec.options.tenant
        place = files = None
        # Looked at again: links may have changed, and after a restart the configuration.
        if names_many(spec.input_url):
            path = folder.fetched_path
            files = allowed_files(spec.input_url, limits.input_roots, tenant, "spec.input_url")
        elif spec.input_url:
            place = allowed_place(spec.input_url, limits.input_roots, tenant, "spec.input_url")
            path = Path(place.path) if place.is_local else folder.fetched_path
        else:
            path = self._uploads.complete_path(spec.upload_id)
        return InputOrder(
            input_path=path,
            spool_path=folder.spool_path,
            input_format=spec.input_format,
            columns=spec.columns,
            limits=limits,
            place=None if place is None or place.is_local else place,
            files=files,
        )

    def _retry_order(self, job: Job, folder: JobFolder) -> RetryOrder:
        """Reads which rows of another job are a job's input; blocking."""
        try:
            columns = self._store.get(job.spec.retry_of).spec.columns
        except UnknownJob as err:
            message = f"Job {job.spec.retry_of}, whose failed rows were to be tried again, has been deleted."
            raise InvalidRequest(message) from err
        return RetryOrder(
            folder=self._job_folder(job.spec.retry_of).path,
            windows=tuple(self._store.windows(job.spec.retry_of)),
            has_keys=columns.key is not None,
            has_pairs=columns.pair is not None,
            spool_path=folder.spool_path,
            limits=self._limits,
        )

    async def _compute_in_turns(self, job: Job) -> Job:
        """Computes rows until all are done or the run is stopped; returns the job as it stands then."""
        model = await self._model(job.spec)
        windows = await asyncio.to_thread(count_windows, self._job_folder(job.id).spool_path)
        turns = self._running_small if windows <= 1 else self._running
        tracker = JobTracker(job.progress, self._clock)
        share = job.spec.share_max
        pace = None if share is None else Pace(share, self._limits.lanes, self._clock)
        is_interrupted = True
        while is_interrupted:
            await self._until_open(job.spec)
            async with turns.turn(job.spec.options.tenant):
                is_interrupted = await self._compute(job, model, tracker, turns, pace)
        return await asyncio.to_thread(self._store.get, job.id)

    async def _compute(
        self, job: Job, model: LoadedModel, tracker: JobTracker, turns: Turns, pace: Pace | None
    ) -> bool:
        """Computes for one turn; whether another tenant's turn came before all was done."""
        run = JobRun(
            job,
            self._job_folder(job.id),
            model,
            store=self._store,
            submitter=self._submitter,
            tracker=tracker,
            clock=self._clock,
            limits=self._limits,
            cache=self._cache,
            pace=pace,
            deadline_ns=self._deadline_ns(job.spec),
            changed=self._states.news.publish,
            is_place_wanted=lambda: turns.is_wanted(job.spec.options.tenant),
        )
        self._runs[job.id], self._trackers[job.id] = run, tracker
        closing = asyncio.create_task(self._close(run, job.spec))
        try:
            return await run.run()
        finally:
            closing.cancel()
            del self._runs[job.id], self._trackers[job.id]
            self._states.news.publish()

    async def _until_open(self, spec: JobSpec) -> None:
        """Waits until rows may be computed."""
        while (left_ns := open_from_ns(spec, now_ns := self._day_ns()) - now_ns) > 0:
            await self._sleep(min(left_ns / 1e9, _SLEEP_S_MAX))

    async def _close(self, run: JobRun, spec: JobSpec) -> None:
        """Has a run give way when its job's windows close."""
        while (until_ns := open_until_ns(spec, now_ns := self._day_ns())) is not None:
            await self._sleep(min((until_ns - now_ns) / 1e9, _SLEEP_S_MAX))
        if spec.windows:
            run.give_way()

    def _deadline_ns(self, spec: JobSpec) -> int | None:
        """When a job's rows stop being of use, on the scheduler's clock."""
        if spec.expire_time_ns is None:
            return None
        return self._clock.now_ns() + spec.expire_time_ns - self._day_ns()

    async def _model(self, spec: JobSpec) -> LoadedModel:
        """Finds the job's model, waiting while it is being loaded after a restart."""
        while True:
            try:
                return self._models.get(spec.model.name, spec.model.version)
            except ModelLoading:
                await self._sleep(_MODEL_WAIT_S)

    async def _finalise(self, job: Job) -> None:
        state = _ending_of(job)
        try:
            await self._export(job, state)
        except _STORAGE as err:
            # What is cancelled or late must not come back; who asks for its files gets them from the server.
            if state is JobState.SUCCEEDED:
                raise
            _log.warning("results_not_delivered", job=job.id, reason=err.reason, error=err.message)
        await self._states.move_when_possible(job.id, state, sources=(job.state,))

    async def _export(self, job: Job, state: JobState) -> None:
        if not job.is_validated:
            return
        folder = self._job_folder(job.id)
        await self._results.export(job, folder, FileFormat.PARQUET, RowSelection.SUCCEEDED)
        selections = [RowSelection.SUCCEEDED]
        if job.progress.failed:
            await self._results.export(job, folder, FileFormat.PARQUET, RowSelection.FAILED)
            selections.append(RowSelection.FAILED)
        if job.spec.output_url:
            place, spec = self._output_place(job), job.spec
            orders = [await self._results.order(job, folder, spec.output_format, each) for each in selections]
            order = DeliveryOrder(tuple(orders), spec.output_rows_per_file, place, state, job.progress)
            await self._files.deliver(order)

    def _output_place(self, job: Job) -> Place:
        """The folder that gets a job's results."""
        url, tenant = f"{job.spec.output_url.rstrip('/')}/{job.id}", job.spec.options.tenant
        try:
            return allowed_place(url, self._limits.output_roots, tenant, "spec.output_url")
        except InvalidRequest as err:
            # It was allowed when the job was made, and nothing that is computed is to be lost.
            raise PlaceFailed(err.message) from err

    def _job_folder(self, job_id: str) -> JobFolder:
        return JobFolder(self._folder / job_id)


def _ending_of(job: Job) -> JobState:
    """The state in which a job ends that is FINALIZING or CANCELLING."""
    if job.state is JobState.CANCELLING:
        return JobState.CANCELLED
    is_whole = job.is_validated and not job.progress.pending
    return JobState.SUCCEEDED if is_whole else JobState.EXPIRED
