"""Runs schedules: at times that come again, a job for each file that is new."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import structlog

from penstock_server.bulk.formats import format_of_name
from penstock_server.bulk.schedules import FileVersion, SchedulePage, ScheduleStore
from penstock_server.domain.errors import (
    Draining,
    InvalidRequest,
    PenstockError,
    PlaceFailed,
    UnknownSchedule,
)
from penstock_server.domain.job import Job, JobError, JobSpec
from penstock_server.domain.schedule import Schedule, ScheduleRun, ScheduleSpec
from penstock_server.runtime.job_commands import JobCommands
from penstock_server.runtime.job_times import check_cron, next_start_ns

# How long is slept at most: the clock of the day may be set, or stand still with the machine.
_SLEEP_S_MAX = 30.0
# How long a run looks for files: others wait behind it.
_LOOK_S_MAX = 120.0
_QUIET_S_MAX = 24 * 3600
_BILLION = 1_000_000_000

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class JobMaker(Protocol):
    """What schedules ask of the runner of jobs."""

    async def create(self, spec: JobSpec, request_id: str = "") -> Job:
        """Makes a job and starts it; a second request of the same id makes no second one."""
        ...

    async def check(self, spec: JobSpec) -> None:
        """Raises what `create` would of a spec that cannot work."""
        ...

    async def files(self, spec: JobSpec, changed_before_ns: int) -> tuple[list[FileVersion], int]:
        """Finds the files that a spec's URL names.

        Args:
            spec: Its URL names a folder, a pattern or one file.
            changed_before_ns: Those that have changed since are left out; nanoseconds since 1970.

        Returns:
            The files in the order of their names, and how many were left out.
        """
        ...


class ScheduleRunner:
    """All schedules of a server. Owned by the event loop.

    What is due next is asked of the journal, so that there is nothing to keep in step with it.

    Args:
        store: Their journal.
        jobs: Makes jobs.
        day_ns: The clock of the day, in nanoseconds since 1970.
        jobs_max: Most jobs of a run.
        expire_s_max: Most seconds after which a job may expire.
        sleep: Lets time pass.
    """

    def __init__(
        self,
        store: ScheduleStore,
        jobs: JobMaker,
        *,
        day_ns: Callable[[], int],
        jobs_max: int,
        expire_s_max: int,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._day_ns = day_ns
        self._jobs_max = jobs_max
        self._expire_s_max = expire_s_max
        self._sleep = sleep
        self._changed = asyncio.Event()
        self._running: dict[str, asyncio.Lock] = {}
        self._looking: set[asyncio.Task[tuple[list[FileVersion], int]]] = set()
        self._commands = JobCommands()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def start(self) -> None:
        """Begins to watch the time; what came due while the server was down runs now."""
        self._task = asyncio.create_task(self._watch(), name="schedules")

    async def close(self) -> None:
        """Runs no more; a run under way ends after the job that it is making. Idempotent."""
        self._is_closed = True
        for looking in self._looking:
            looking.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._commands.close()

    async def create(self, spec: ScheduleSpec, request_id: str = "") -> Schedule:
        """Makes a schedule.

        Raises:
            InvalidRequest: It would never run, or its jobs could not work.
            UnknownModel, TaskNotSupported, NotBuilt: Its jobs could not work.
            StorageFull: Too many schedules are kept.
            Draining: The server is shutting down.
        """
        now_ns = self._day_ns()
        check_cron(spec.cron, spec.time_zone, "spec", now_ns)
        if not 0 <= spec.quiet_s <= _QUIET_S_MAX:
            raise InvalidRequest.of_field("spec.quiet_seconds", f"must be from 0 to {_QUIET_S_MAX:,}")
        if spec.expire_after_s is not None and not 0 < spec.expire_after_s <= self._expire_s_max:
            raise InvalidRequest.of_field(
                "spec.expire_after_seconds", f"must be from 1 to {self._expire_s_max:,} (0: never)"
            )
        await self._jobs.check(spec.job)
        return await self._carry_out(
            self._in_journal(lambda: self._store.create(spec, _due_ns(spec, now_ns), request_id))
        )

    async def get(self, schedule_id: str) -> Schedule:
        """Reads a schedule. Raises UnknownSchedule."""
        return await asyncio.to_thread(self._store.get, schedule_id)

    async def page(self, page_size: int, page_token: str, tenant: str | None) -> SchedulePage:
        """Reads a page of all schedules or a tenant's, newest first. Raises InvalidRequest."""
        return await asyncio.to_thread(self._store.page, page_size, page_token, tenant)

    async def pause(self, schedule_id: str) -> Schedule:
        """Lets its times pass without a run. Raises UnknownSchedule."""
        return await self._carry_out(self._in_journal(lambda: self._store.set_due(schedule_id, None)))

    async def resume(self, schedule_id: str) -> Schedule:
        """Goes on with the next time that comes. Raises UnknownSchedule."""
        schedule = await self.get(schedule_id)
        if not schedule.is_paused:
            return schedule
        due_ns = _due_ns(schedule.spec, self._day_ns())
        return await self._carry_out(self._in_journal(lambda: self._store.set_due(schedule_id, due_ns)))

    async def delete(self, schedule_id: str) -> None:
        """Removes a schedule; its jobs stay. Raises UnknownSchedule."""
        await self._carry_out(self._in_journal(lambda: self._store.delete(schedule_id)))
        self._running.pop(schedule_id, None)

    async def run(self, schedule_id: str) -> tuple[Schedule, list[str]]:
        """Runs a schedule now.

        Returns:
            It, and the ids of the jobs that were made.

        Raises:
            UnknownSchedule: There is none of this id.
        """
        return await self._carry_out(self._run(schedule_id))

    async def _in_journal(self, action: Callable[[], _T]) -> _T:
        result = await asyncio.to_thread(action)
        self._changed.set()
        return result

    async def _carry_out(self, command: Coroutine[Any, Any, _T]) -> _T:
        """Carries out a command to its end, though its caller may leave."""
        if self._is_closed:
            command.close()
            raise Draining("The server is shutting down; try again when it is up.")
        return await self._commands.carry_out(command)

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - without this task no schedule would ever run
                _log.exception("schedule_failed")
                await self._sleep(_SLEEP_S_MAX)

    async def _look(self) -> None:
        """Runs the schedule that is due, or waits until one may be."""
        self._changed.clear()
        due = await asyncio.to_thread(self._store.next_due)
        left_s = None if due is None or due.due_ns is None else (due.due_ns - self._day_ns()) / _BILLION
        if due is None or left_s is None or left_s > 0:
            await self._wait(left_s)
            return
        try:
            await self._commands.carry_out(self._run(due.id, is_due=True))
        except (UnknownSchedule, Draining) as err:
            _log.info("schedule_not_run", schedule=due.id, message=err.message)

    async def _wait(self, left_s: float | None) -> None:
        """Waits for some time, or for the first schedule, or for another one."""
        changed = asyncio.create_task(self._changed.wait())
        timer = asyncio.create_task(
            self._sleep(_SLEEP_S_MAX if left_s is None else min(left_s, _SLEEP_S_MAX))
        )
        try:
            await asyncio.wait((changed, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            timer.cancel()

    async def _run(self, schedule_id: str, *, is_due: bool = False) -> tuple[Schedule, list[str]]:
        # One at a time: two that looked at one folder together would both find a file new.
        async with self._running.setdefault(schedule_id, asyncio.Lock()):
            schedule = await self.get(schedule_id)
            now_ns = self._day_ns()
            making = _Making()
            try:
                await self._make_jobs(schedule, now_ns, making, is_due=is_due)
            except UnknownSchedule:
                raise
            except PenstockError as err:
                making.error = JobError(err.reason, err.message)
            except Exception:  # noqa: BLE001 - the others are to run, and this one at its next time
                _log.exception("schedule_failed", schedule=schedule_id)
                making.error = JobError("INTERNAL", "The run failed; the server's log has the reason.")
            if self._is_closed:
                # It stays due, and goes on at the next start.
                raise Draining("The server is shutting down; the run goes on when it is up again.")
            run = ScheduleRun(now_ns, len(making.job_ids), making.files_left, making.error)
            due_ns = _due_ns(schedule.spec, max(now_ns, self._day_ns()))
            schedule = await asyncio.to_thread(self._store.ran, schedule_id, run, due_ns)
        _log.info("schedule_ran", schedule=schedule_id, jobs=run.jobs, left=run.files_left, error=run.error)
        return schedule, making.job_ids

    async def _make_jobs(self, schedule: Schedule, now_ns: int, making: _Making, *, is_due: bool) -> None:
        """Makes a job of each new file. Raises what ends the run early."""
        spec = schedule.spec
        files, making.files_left = await self._found(spec, now_ns)
        new = await asyncio.to_thread(self._store.new_files, schedule.id, files)
        making.files_left += len(new)
        for file in new:
            if self._is_closed or len(making.job_ids) == self._jobs_max:
                return
            # It may have been deleted or paused meanwhile.
            if (await self.get(schedule.id)).is_paused and is_due:
                return
            try:
                job_spec = _job_spec(spec, file, self._day_ns())
                # A server that dies before it has recorded the file finds the same job again.
                job = await self._jobs.create(job_spec, _request_id(schedule.id, file))
            except InvalidRequest as err:
                # The file's fault, such as a name without a known ending; the others are not.
                making.error = JobError(err.reason, f"{file.url}: {err.message}")
                continue
            await asyncio.to_thread(self._store.took, schedule.id, file)
            making.files_left -= 1
            if job.create_time_ns >= now_ns:
                making.job_ids.append(job.id)

    async def _found(self, spec: ScheduleSpec, now_ns: int) -> tuple[list[FileVersion], int]:
        """Looks for files, but neither for ever nor when the server shuts down."""
        looking = asyncio.create_task(self._jobs.files(spec.job, now_ns - spec.quiet_s * _BILLION))
        self._looking.add(looking)
        try:
            return await asyncio.wait_for(looking, _LOOK_S_MAX)
        except TimeoutError as err:
            raise PlaceFailed(
                f"{spec.job.input_url} was not listed within {_LOOK_S_MAX:.0f} s; name fewer files."
            ) from err
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
            return [], 0
        finally:
            self._looking.discard(looking)


def _job_spec(spec: ScheduleSpec, file: FileVersion, now_ns: int) -> JobSpec:
    """What the job of a file computes. Raises InvalidRequest if nothing tells its format."""
    return replace(
        spec.job,
        input_url=file.url,
        input_format=spec.job.input_format or format_of_name(file.name),
        expire_time_ns=None if spec.expire_after_s is None else now_ns + spec.expire_after_s * _BILLION,
    )


@dataclass
class _Making:
    """What a run has made so far."""

    job_ids: list[str] = field(default_factory=list[str])
    files_left: int = 0
    error: JobError | None = None


def _due_ns(spec: ScheduleSpec, now_ns: int) -> int:
    return next_start_ns(spec.cron, spec.time_zone, now_ns)


def _request_id(schedule_id: str, file: FileVersion) -> str:
    """What names a file of a schedule as it is; no id of a caller that shows a certificate is like it."""
    digest = hashlib.sha256(f"{len(file.url)} {file.url}{file.version}".encode(errors="surrogatepass"))
    return f"{schedule_id}\0{digest.hexdigest()}"
