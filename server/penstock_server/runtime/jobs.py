"""All bulk jobs of a server: what callers ask of them.

Each unfinished job that is not paused has one task, which takes it along its course
(`penstock_server.runtime.job_course`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from penstock_server.bulk.file_sets import FindOrder, allowed_files, names_many
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.journal import JobPage, JobStore
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.places import allowed_place
from penstock_server.bulk.results import ResultRows
from penstock_server.bulk.schedules import FileVersion
from penstock_server.bulk.spec_checks import check_spec
from penstock_server.bulk.uploads import UploadStore
from penstock_server.domain.errors import Draining, InvalidRequest, StorageFailed, StorageFull, WrongState
from penstock_server.domain.job import FileFormat, Job, JobSpec, JobState, RowSelection
from penstock_server.domain.tasks import Task
from penstock_server.models.loaded import LoadedModel
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.job_commands import JobCommands
from penstock_server.runtime.job_course import JobCourse, ModelLookup
from penstock_server.runtime.job_expiry import JobExpiry
from penstock_server.runtime.job_files import FileTasks
from penstock_server.runtime.job_progress import JobTracker
from penstock_server.runtime.job_results import ResultReader
from penstock_server.runtime.job_run import WorkSubmitter
from penstock_server.runtime.job_states import JobStates
from penstock_server.runtime.job_tasks import JobTasks
from penstock_server.runtime.job_times import check_times
from penstock_server.runtime.result_cache import ResultCache
from penstock_server.runtime.upload_expiry import UploadExpiry

_log = structlog.get_logger(__name__)

_STARTABLE = (JobState.VALIDATING, JobState.RUNNING)
_STOPPABLE = (*_STARTABLE, JobState.PAUSED)
# What a job over the failed rows of another one calls their numbers there.
_ROW_NUMBER = "row"


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
        day_ns: Callable[[], int],
        limits: BulkLimits,
        cache: ResultCache | None = None,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._folder = folder
        self._store = store
        self._uploads = uploads
        self._models = models
        self._files = files
        self._day_ns = day_ns
        self._limits = limits
        self._sleep = sleep
        self._results = ResultReader(store, files)
        self._states = JobStates(store, sleep)
        self._course = JobCourse(
            folder,
            store=store,
            states=self._states,
            results=self._results,
            uploads=uploads,
            models=models,
            submitter=submitter,
            files=files,
            clock=clock,
            day_ns=day_ns,
            limits=limits,
            cache=cache,
            sleep=sleep,
        )
        self._expiry = JobExpiry(store, day_ns=day_ns, sleep=sleep, expire=self._expire)
        self._upload_expiry = UploadExpiry(uploads, sleep=sleep)
        self._tasks = JobTasks(self._course.take)
        self._commands = JobCommands()
        self.draining = self._states.draining

    async def start(self) -> None:
        """Cleans up after a crash and goes on with all unfinished jobs."""
        for job in await asyncio.to_thread(self._recover):
            self._launch_if_startable(job)
        self._expiry.start()
        self._upload_expiry.start()

    async def close(self) -> None:
        """Stops computing, keeping what is done; jobs go on after the next start. Idempotent."""
        self.draining.set()
        await self._expiry.close()
        await self._upload_expiry.close()
        await self._tasks.close(self._interrupt)
        await self._commands.close()
        self._states.shut_down()

    async def create(self, spec: JobSpec, request_id: str = "") -> Job:
        """Makes a job and starts it.

        Args:
            spec: What it computes; the version may be empty, the job then keeps the present one.
            request_id: The caller's id of the request; a second request of the same id makes no second job.

        Raises:
            UnknownModel, ModelLoading, TaskNotSupported, NotBuilt, InvalidRequest: The spec cannot work.
            UnknownUpload, WrongState: There is no such upload, or it is not complete.
            StorageFull: Too many jobs are kept, or the disk has no room.
            StorageFailed: The disk failed.
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
        model = await self._checked(spec)
        pinned = replace(spec, model=model.manifest.key)
        job, _ = await asyncio.to_thread(self._store.create, pinned, request_id)
        self._launch_if_startable(job)
        self._expiry.changed()
        return job

    async def check(self, spec: JobSpec) -> None:
        """Refuses a spec of which no job could be made, whatever its input holds.

        Raises:
            UnknownModel, ModelLoading, TaskNotSupported, NotBuilt, InvalidRequest: The spec cannot work.
        """
        await self._checked(spec)

    async def _checked(self, spec: JobSpec) -> LoadedModel:
        model = self._models.get(spec.model.name, spec.model.version)
        check_spec(model, spec.task, spec.columns, spec.input_format, spec.options.tokens_max)
        if spec.output_format is FileFormat.OPENAI_BATCH and spec.task.task is not Task.EMBED:
            raise InvalidRequest.of_field("spec.output_format", "OPENAI_BATCH is for embeddings")
        check_times(spec, self._day_ns(), self._limits.expire_s_max)
        await asyncio.to_thread(self._check_places, spec)
        return model

    async def files(self, spec: JobSpec, changed_before_ns: int) -> tuple[list[FileVersion], int]:
        """Finds the files that a spec's URL names: a folder's, those of a pattern, or one.

        Args:
            spec: Of jobs.
            changed_before_ns: Those that have changed since are left out; nanoseconds since 1970.

        Returns:
            The files in the order of their names, and how many were left out.

        Raises:
            InvalidRequest: There are too many, or the folder is in none of the allowed places.
            PlaceFailed: They cannot be listed.
        """
        file_set = await asyncio.to_thread(
            allowed_files, spec.input_url, self._limits.input_roots, spec.options.tenant, "spec.input_url"
        )
        found = await self._files.find(FindOrder(file_set, self._limits))
        whole = [
            FileVersion(each.url, each.version, each.name)
            for each in found.files
            if each.changed_ns <= changed_before_ns
        ]
        return whole, len(found.files) - len(whole) + found.left_out

    async def retry(self, job_id: str, request_id: str = "") -> Job:
        """Makes a job over the failed rows of one that has ended.

        The new job is as the earlier one, but that it never expires. Rows without keys get their numbers as
        such.

        Raises:
            UnknownJob: There is none of this id.
            WrongState: It has not ended, or has no failed rows.
            UnknownModel, ModelLoading, StorageFull, Draining: As `create`.
        """
        job = await self.get(job_id)
        if not job.state.has_ended or not job.progress.failed:
            why = (
                "has no failed rows"
                if job.state.has_ended
                else f"is {job.state.name}; wait until it has ended"
            )
            raise WrongState(f"Job {job_id} {why}.", job_id=job_id, state=job.state.name)
        columns = job.spec.columns
        spec = replace(
            job.spec,
            columns=replace(columns, key=columns.key or _ROW_NUMBER),
            expire_time_ns=None,
            not_before_ns=None,
            retry_of=job_id,
        )
        return await self.create(spec, request_id)

    def _check_places(self, spec: JobSpec) -> None:
        """Refuses an input that is not there yet, and places that are not allowed; blocking."""
        tenant, limits = spec.options.tenant, self._limits
        if names_many(spec.input_url):
            allowed_files(spec.input_url, limits.input_roots, tenant, "spec.input_url")
        elif spec.input_url:
            place = allowed_place(spec.input_url, limits.input_roots, tenant, "spec.input_url")
            if place.is_local and Path(place.path).is_dir():
                told = "is a folder; end it in a slash to read the files in it"
                raise InvalidRequest.of_field("spec.input_url", told)
        else:
            self._uploads.claim(spec.upload_id)
        if spec.output_url:
            allowed_place(
                f"{spec.output_url.rstrip('/')}/job", limits.output_roots, tenant, "spec.output_url"
            )

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
        tracker = self._course.tracker(job_id)
        return _with_progress(await asyncio.to_thread(self._store.get, job_id), tracker)

    async def page(
        self, page_size: int, page_token: str, states: Collection[JobState], tenant: str | None = None
    ) -> JobPage:
        """Reads a page of all jobs or a tenant's, newest first. Raises InvalidRequest for a wrong token."""
        trackers = self._course.trackers()
        page = await asyncio.to_thread(self._store.page, page_size, page_token, states, tenant)
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
            news = self._states.news.next()
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
                ending = self._states.endings.next()
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
        await self._states.move(job_id, JobState.PAUSED, sources=_STARTABLE)
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
        await self._states.move(job_id, state, sources=(JobState.PAUSED,))
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
            await self._states.move(job_id, JobState.CANCELLING, sources=_STOPPABLE)
        except WrongState:
            return await self.get(job_id)
        self._interrupt(job_id)
        self._tasks.launch(job_id)
        return await self.get(job_id)

    async def _expire(self, job_id: str) -> None:
        """Ends a job whose time has run out, keeping what is done."""
        await self._commands.carry_out(self._end_late(job_id))

    async def _end_late(self, job_id: str) -> None:
        # Rows that are pending when a job is FINALIZING make it EXPIRED, also after a restart.
        await self._states.move_when_possible(job_id, JobState.FINALIZING, sources=_STOPPABLE)
        self._interrupt(job_id)
        self._tasks.launch(job_id)

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
            await asyncio.to_thread(self._uploads.release, upload_id)
        self._states.news.publish()
        self._states.endings.publish()

    def _recover(self) -> list[Job]:
        """Deletes what no journal names; returns the jobs to go on with. Blocking."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._uploads.sweep()
        except (StorageFull, StorageFailed) as err:
            # Nobody needs it now; live calls shall be answered also while the disk is full.
            _log.warning("uploads_not_swept", error=err.message)
        known = self._store.job_ids()
        for path in self._folder.iterdir():
            if path.name not in known:
                JobFolder(path).delete()
        unfinished = self._store.unfinished()
        return [self._recover_job(job) for job in unfinished]

    def _recover_job(self, job: Job) -> Job:
        """Deletes what the journal does not name of a job, and has computed again what it names in vain.

        The latter is no power loss, by the order in which files and journal are written, but a disk that lost
        the end of a journal that it said was safe.
        """
        folder = self._job_folder(job.id)
        windows = self._store.windows(job.id)
        folder.sweep({window.file_name for window in windows})
        lost = [window for window in windows if not folder.part_path(window.file_name).exists()]
        for window in lost:
            _log.warning("part_lost", job=job.id, window=window.number)
            self._store.forget_window(job.id, window)
        return self._store.get(job.id) if lost else job

    def _job_folder(self, job_id: str) -> JobFolder:
        return JobFolder(self._folder / job_id)

    def _interrupt(self, job_id: str) -> None:
        """Ends a job's task soon: gently if it computes, else at once."""
        if not self._course.stop_run(job_id):
            self._tasks.cancel(job_id)


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
