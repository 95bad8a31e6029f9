"""Runs bulk jobs: validates, computes, pauses, resumes, cancels, finalises, and goes on after a restart.

Each unfinished job that is not paused has one task. What the task does next follows from the job's state in
the journal alone, so a restart simply starts the tasks again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import structlog

from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.inputs import InputOrder
from penstock_server.bulk.journal import JobPage, JobStore
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.results import ResultRows
from penstock_server.bulk.uploads import UploadStore
from penstock_server.domain.errors import (
    Draining,
    InvalidRequest,
    ModelBroken,
    ModelLoading,
    PenstockError,
    StorageFull,
    UnknownJob,
    UnknownModel,
    WrongState,
)
from penstock_server.domain.job import FileFormat, Job, JobError, JobSpec, JobState, RowSelection
from penstock_server.domain.tasks import Task
from penstock_server.models.loaded import LoadedModel
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.job_commands import JobCommands
from penstock_server.runtime.job_files import FileTasks
from penstock_server.runtime.job_progress import JobTracker, News
from penstock_server.runtime.job_results import ResultReader
from penstock_server.runtime.job_run import JobRun, WorkSubmitter
from penstock_server.runtime.job_tasks import JobTasks
from penstock_server.runtime.request_checks import check_tokens_max

_MODEL_WAIT_S = 0.5
# How long the journal is left alone after it found the disk full. Chosen: people make room within minutes.
_STORAGE_WAIT_S = 5.0
_STARTABLE = (JobState.VALIDATING, JobState.RUNNING)
_STOPPABLE = (*_STARTABLE, JobState.PAUSED)
# What the operator can mend, so that the job can go on: another models folder, a repaired model, more room.
_MENDABLE = (UnknownModel, ModelBroken, StorageFull)

_log = structlog.get_logger(__name__)


class ModelLookup(Protocol):
    """Finds models; the model table."""

    def get(self, name: str, version: str) -> LoadedModel:
        """Finds a model. Raises UnknownModel, ModelLoading or ModelBroken."""
        ...


class JobRunner:
    """All bulk jobs of a server. Owned by the event loop; what blocks runs in threads and processes.

    Attributes:
        draining: Set once the runner closes; what waits for callers is to end then.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store: JobStore,
        uploads: UploadStore,
        models: ModelLookup,
        submitter: WorkSubmitter,
        files: FileTasks,
        clock: Clock,
        limits: BulkLimits,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._folder = folder
        self._store = store
        self._uploads = uploads
        self._models = models
        self._submitter = submitter
        self._files = files
        self._clock = clock
        self._limits = limits
        self._sleep = sleep
        self._results = ResultReader(store, files)
        self._news = News()
        self._endings = News()
        self._tasks = JobTasks(self._run)
        self._commands = JobCommands()
        self._runs: dict[str, JobRun] = {}
        self._trackers: dict[str, JobTracker] = {}
        self._validating_turn = asyncio.Semaphore(1)
        self._running_turn = asyncio.Semaphore(limits.jobs_running_max)
        self.draining = asyncio.Event()

    async def start(self) -> None:
        """Cleans up after a crash and goes on with all unfinished jobs."""
        for job in await asyncio.to_thread(self._recover):
            self._launch_if_startable(job)

    async def close(self) -> None:
        """Stops computing, keeping what is done; jobs go on after the next start. Idempotent."""
        self.draining.set()
        await self._tasks.close(self._interrupt)
        await self._commands.close()
        self._news.publish()
        self._endings.publish()

    async def create(self, spec: JobSpec, request_id: str = "") -> Job:
        """Makes a job and starts it.

        Args:
            spec: What it computes; the version may be empty, the job then keeps the present one.
            request_id: The caller's id of the request; a second request of the same id makes no second job.

        Raises:
            UnknownModel, ModelLoading, TaskNotSupported, NotBuilt, InvalidRequest: The spec cannot work.
            UnknownUpload, WrongState: There is no such upload, or it is not complete.
            StorageFull: Too many jobs are kept.
            Draining: The server is shutting down.
        """
        if self.draining.is_set():
            raise Draining("The server is shutting down; create the job when it is up again.")
        return await self._commands.carry_out(self._create(spec, request_id))

    async def _create(self, spec: JobSpec, request_id: str) -> Job:
        earlier = await asyncio.to_thread(self._store.find_request, request_id) if request_id else None
        if earlier is not None:
            self._launch_if_startable(earlier)
            return earlier
        model = self._models.get(spec.model.name, spec.model.version)
        _check(spec, model)
        await asyncio.to_thread(self._uploads.complete_path, spec.upload_id)
        pinned = replace(spec, model=model.manifest.key)
        job, _ = await asyncio.to_thread(self._store.create, pinned, request_id)
        self._launch_if_startable(job)
        return job

    def _launch_if_startable(self, job: Job) -> None:
        """Launches a job unless it rests, also if an earlier request made it and failed before launching."""
        if not job.state.has_ended and job.state is not JobState.PAUSED:
            self._tasks.launch(job.id)

    async def get(self, job_id: str) -> Job:
        """Reads a job with its progress up to now.

        Raises:
            UnknownJob: There is none of this id.
        """
        # Fetched first: a run that ends meanwhile then shows its last counts, not the journal's earlier ones.
        tracker = self._trackers.get(job_id)
        return _with_progress(await asyncio.to_thread(self._store.get, job_id), tracker)

    async def page(self, page_size: int, page_token: str, states: Collection[JobState]) -> JobPage:
        """Reads a page of jobs, newest first. Raises InvalidRequest for a wrong token."""
        trackers = dict(self._trackers)
        page = await asyncio.to_thread(self._store.page, page_size, page_token, states)
        jobs = tuple(_with_progress(job, trackers.get(job.id)) for job in page.jobs)
        return JobPage(jobs, page.next_page_token)

    async def watch(self, job_id: str, interval_s: float) -> AsyncGenerator[Job]:
        """Yields a job now, and whenever it has changed, until it ends.

        Args:
            job_id: The job.
            interval_s: Shortest time between two states; the end is told at once.

        Raises:
            UnknownJob: There is none of this id.
            Draining: The server is shutting down.
        """
        shown: Job | None = None
        while True:
            news = self._news.next()
            job = await self.get(job_id)
            if shown is None or _differ(job, shown):
                yield job
                shown = job
            if job.state.has_ended:
                return
            if self.draining.is_set():
                raise Draining("The server is shutting down; watch the job again when it is up.")
            await news.wait()
            await self._rest(job_id, interval_s)

    async def _rest(self, job_id: str, interval_s: float) -> None:
        """Lets an interval pass, or less if the job ends or the server shuts down."""
        interval = asyncio.create_task(self._sleep(interval_s))
        try:
            while not interval.done():
                ending = self._endings.next()
                if self.draining.is_set() or (await self.get(job_id)).state.has_ended:
                    return
                ended = asyncio.create_task(ending.wait())
                try:
                    await asyncio.wait((interval, ended), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    ended.cancel()
        finally:
            interval.cancel()

    async def rows(
        self, job_id: str, *, start_row: int, rows_max: int, selection: RowSelection
    ) -> AsyncGenerator[ResultRows]:
        """Yields finished rows in input order. Raises UnknownJob."""
        job = await self.get(job_id)
        chunks = self._results.rows(
            job, self._job_folder(job_id), start_row=start_row, rows_max=rows_max, selection=selection
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def result_file(self, job_id: str, file_format: FileFormat, selection: RowSelection) -> Path:
        """Finds a result file of a job that has ended. Raises as ``ResultReader.file``."""
        job = await self.get(job_id)
        return await self._results.file(job, self._job_folder(job_id), file_format, selection)

    async def pause(self, job_id: str) -> Job:
        """Stops a job, keeping what is done.

        Raises:
            UnknownJob: There is none of this id.
            WrongState: It is paused, ending or has ended.
        """
        return await self._commands.carry_out(self._pause(job_id))

    async def _pause(self, job_id: str) -> Job:
        await self._move(job_id, JobState.PAUSED, sources=_STARTABLE)
        self._interrupt(job_id)
        return await self.get(job_id)

    async def resume(self, job_id: str) -> Job:
        """Goes on with a paused job.

        Raises:
            UnknownJob: There is none of this id.
            WrongState: It is not paused.
        """
        return await self._commands.carry_out(self._resume(job_id))

    async def _resume(self, job_id: str) -> Job:
        job = await self.get(job_id)
        state = JobState.RUNNING if job.is_validated else JobState.VALIDATING
        await self._move(job_id, state, sources=(JobState.PAUSED,))
        self._tasks.launch(job_id)
        return await self.get(job_id)

    async def cancel(self, job_id: str) -> Job:
        """Ends a job, keeping what is done; no effect on one that is ending or has ended.

        Raises:
            UnknownJob: There is none of this id.
        """
        return await self._commands.carry_out(self._cancel(job_id))

    async def _cancel(self, job_id: str) -> Job:
        try:
            await self._move(job_id, JobState.CANCELLING, sources=_STOPPABLE)
        except WrongState:
            return await self.get(job_id)
        self._interrupt(job_id)
        self._tasks.launch(job_id)
        return await self.get(job_id)

    async def delete(self, job_id: str) -> None:
        """Removes a job that has ended, with its results, and its upload if no other job needs it.

        Raises:
            UnknownJob: There is none of this id.
            WrongState: It has not ended.
        """
        await self._commands.carry_out(self._delete(job_id))

    async def _delete(self, job_id: str) -> None:
        upload_id = await asyncio.to_thread(self._store.delete, job_id)
        await asyncio.to_thread(self._job_folder(job_id).delete)
        if upload_id is not None:
            await asyncio.to_thread(self._uploads.delete, upload_id)
        self._news.publish()
        self._endings.publish()

    def _recover(self) -> list[Job]:
        """Deletes what no journal names; returns the jobs to go on with. Blocking."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._uploads.sweep()
        known = self._store.job_ids()
        for path in self._folder.iterdir():
            if path.name not in known:
                JobFolder(path).delete()
        unfinished = self._store.unfinished()
        for job in unfinished:
            self._job_folder(job.id).sweep({window.file_name for window in self._store.windows(job.id)})
        return unfinished

    def _job_folder(self, job_id: str) -> JobFolder:
        return JobFolder(self._folder / job_id)

    def _interrupt(self, job_id: str) -> None:
        """Ends a job's task soon: gently if it computes, else at once."""
        run = self._runs.get(job_id)
        if run is not None:
            run.stop()
        else:
            self._tasks.cancel(job_id)

    async def _run(self, job_id: str) -> None:
        try:
            await self._advance(job_id)
        except UnknownJob:
            # Launched once more while it ended, and deleted before that launch.
            _log.info("job_deleted", job=job_id)
        except _MENDABLE as err:
            _log.warning("job_paused", job=job_id, reason=err.reason, error=err.message)
            await self._stop_for(job_id, JobState.PAUSED, JobError(err.reason, err.message))
        except PenstockError as err:
            _log.warning("job_failed", job=job_id, reason=err.reason, error=err.message)
            await self._stop_for(job_id, JobState.FAILED, JobError(err.reason, err.message))
        except Exception:  # noqa: BLE001 - the task's owner: whatever fails must end the job, not vanish
            incident = uuid.uuid4().hex[:12]
            _log.exception("job_failed", job=job_id, incident=incident)
            error = JobError("INTERNAL", f"The server failed. Incident {incident}.")
            await self._stop_for(job_id, JobState.FAILED, error)

    async def _advance(self, job_id: str) -> None:
        """Takes a job from the state it is in as far as it goes."""
        job = await asyncio.to_thread(self._store.get, job_id)
        if job.state is JobState.VALIDATING:
            async with self._validating_turn:
                job = await self._validate(job)
        if job.state is JobState.RUNNING:
            async with self._running_turn:
                job = await self._compute(job)
        if self.draining.is_set():
            return
        if job.state is JobState.RUNNING and job.progress.pending:
            # Paused and resumed at once: the run was stopped, and the task launched by resuming goes on.
            return
        if job.state is JobState.RUNNING:
            try:
                job = await self._move(job_id, JobState.FINALIZING, sources=(JobState.RUNNING,))
            except WrongState:
                # Paused or cancelled at the last moment; whoever did that goes on from there.
                return
        if job.state in (JobState.FINALIZING, JobState.CANCELLING):
            await self._finalise(job)

    async def _validate(self, job: Job) -> Job:
        folder = self._job_folder(job.id)
        await asyncio.to_thread(folder.create)
        order = InputOrder(
            input_path=await asyncio.to_thread(self._uploads.complete_path, job.spec.upload_id),
            spool_path=folder.spool_path,
            input_format=job.spec.input_format,
            columns=job.spec.columns,
            limits=self._limits,
        )
        total = await self._files.materialise(order)
        job = await asyncio.to_thread(self._store.validated, job.id, total)
        self._news.publish()
        return job

    async def _compute(self, job: Job) -> Job:
        """Computes rows until all are done or the run is stopped; returns the job as it stands then."""
        model = await self._model(job.spec)
        tracker = JobTracker(job.progress, self._clock)
        run = JobRun(
            job,
            self._job_folder(job.id),
            model,
            store=self._store,
            submitter=self._submitter,
            tracker=tracker,
            clock=self._clock,
            limits=self._limits,
            changed=self._news.publish,
        )
        self._runs[job.id], self._trackers[job.id] = run, tracker
        try:
            await run.run()
        finally:
            del self._runs[job.id], self._trackers[job.id]
            self._news.publish()
        return await asyncio.to_thread(self._store.get, job.id)

    async def _model(self, spec: JobSpec) -> LoadedModel:
        """Finds the job's model, waiting while it is being loaded after a restart."""
        while True:
            try:
                return self._models.get(spec.model.name, spec.model.version)
            except ModelLoading:
                await self._sleep(_MODEL_WAIT_S)

    async def _finalise(self, job: Job) -> None:
        is_cancelled = job.state is JobState.CANCELLING
        try:
            await self._export(job)
        except StorageFull:
            # A cancelled job must not come back; its files are written when somebody asks for them.
            if not is_cancelled:
                raise
        state = JobState.CANCELLED if is_cancelled else JobState.SUCCEEDED
        await self._move_when_there_is_room(job.id, state, sources=(job.state,))

    async def _export(self, job: Job) -> None:
        if not job.is_validated:
            return
        folder = self._job_folder(job.id)
        await self._results.export(job, folder, FileFormat.PARQUET, RowSelection.SUCCEEDED)
        if job.progress.failed:
            await self._results.export(job, folder, FileFormat.PARQUET, RowSelection.FAILED)

    async def _stop_for(self, job_id: str, state: JobState, error: JobError) -> None:
        """Moves a job to PAUSED or FAILED because of an error, unless it has ended or is being cancelled."""
        sources = {each for each in JobState if not each.has_ended}
        if state is JobState.PAUSED:
            sources.remove(JobState.CANCELLING)
        try:
            await self._move_when_there_is_room(job_id, state, sources=sources, error=error)
        except WrongState as err:
            _log.info("job_went_on", job=job_id, message=err.message)

    async def _move_when_there_is_room(
        self, job_id: str, state: JobState, *, sources: Collection[JobState], error: JobError | None = None
    ) -> None:
        """Moves a job on behalf of the server, which cannot tell a full disk to anybody but try again.

        Gives up when the server shuts down: after the next start the job goes on from the state it is in.
        """
        while True:
            try:
                await self._move(job_id, state, sources=sources, error=error)
            except StorageFull:
                if self.draining.is_set():
                    _log.warning("job_state_not_saved", job=job_id, state=state.name)
                    return
                await self._sleep(_STORAGE_WAIT_S)
            else:
                return

    async def _move(
        self, job_id: str, state: JobState, *, sources: Collection[JobState], error: JobError | None = None
    ) -> Job:
        job = await asyncio.to_thread(self._store.move, job_id, state, sources=sources, error=error)
        _log.info("job_state", job=job_id, state=state.name)
        self._news.publish()
        if state.has_ended:
            self._endings.publish()
        return job


def _with_progress(job: Job, tracker: JobTracker | None) -> Job:
    if tracker is None or job.state.has_ended:
        return job
    return replace(job, progress=tracker.progress())


def _differ(job: Job, shown: Job) -> bool:
    """Whether there is something to tell; a rate that merely fades is not."""
    return (job.state, job.progress.done, job.progress.total) != (
        shown.state,
        shown.progress.done,
        shown.progress.total,
    )


def _check(spec: JobSpec, model: LoadedModel) -> None:
    """Refuses a spec that the model cannot do, before any row is read."""
    model.check_options(spec.task)
    has_pairs = spec.columns.pair is not None
    if has_pairs and spec.task.task is Task.EMBED:
        raise InvalidRequest.of_field(
            "spec.text_pair_column", "must be empty; this task takes single texts only"
        )
    check_tokens_max(model, spec.options.tokens_max, pairs=has_pairs, field="spec.options.tokens_max")
