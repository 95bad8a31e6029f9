"""Recurring jobs for asyncio, twin of ``Schedules``."""

from __future__ import annotations

from datetime import timedelta
from typing import Unpack

from penstock.async_wire import AsyncWire
from penstock.methods import GET_SCHEDULE, PAUSE_SCHEDULE, RESUME_SCHEDULE
from penstock.options import RecurringJobOptions, Task
from penstock.schedule import (
    Schedule,
    ScheduleRun,
    create_schedule,
    delete_schedule,
    list_schedules,
    recurring_job_of,
    run_schedule,
    schedule_call,
    schedule_spec_of,
)


class AsyncSchedules:
    """Recurring jobs: at times that come again, a job for each file that is new."""

    def __init__(self, wire: AsyncWire, timeout_s: float | None) -> None:
        self._wire = wire
        self._timeout_s = timeout_s

    async def create(
        self,
        input_url: str,
        *,
        model: str,
        task: Task | str,
        cron: str,
        time_zone: str = "UTC",
        quiet_s: int | None = None,
        expire_after: timedelta | None = None,
        request_id: str = "",
        **options: Unpack[RecurringJobOptions],
    ) -> Schedule:
        """Makes a schedule.

        Args:
            input_url: A folder, such as ``s3://bucket/in/`` with the slash at its end, or a pattern, such as
                ``s3://bucket/in/*.csv``, where the server's operator allows that.
            model: Name of the model.
            task: What to compute.
            cron: When it runs, as five cron fields: minute, hour, day of month, month, day of week.
            time_zone: IANA name of the zone that ``cron`` is in.
            quiet_s: Files that have changed within so many seconds before a run are left to the next one, for
                they may still be written; from 1 to 86,400, unset is 10.
            expire_after: Time after its run when each job ends as EXPIRED unless its rows are done; rounded
                up to whole seconds.
            request_id: As in ``JobOptions``.
            **options: See ``RecurringJobOptions``: columns, format, task options.

        Raises:
            ValueError: A span of time is not above zero.
            PenstockError: No time would come, or the jobs could not work.
        """
        job = recurring_job_of(input_url, model, task, options)
        spec = schedule_spec_of(job, cron, time_zone, quiet_s, expire_after)
        return await self._wire.run(create_schedule(spec, request_id, self._timeout_s))

    async def get(self, schedule_id: str) -> Schedule:
        """Returns a schedule as it stands; NotFoundError if there is none."""
        return await self._wire.run(schedule_call(GET_SCHEDULE, schedule_id, self._timeout_s))

    async def list(self, *, schedules_max: int | None = None) -> list[Schedule]:
        """Returns schedules, newest first: all, or so many at most."""
        return await self._wire.run(list_schedules(schedules_max, self._timeout_s))

    async def run(self, schedule_id: str) -> ScheduleRun:
        """Runs a schedule now, paused or not, and returns when its jobs are made.

        Returns:
            How the run went, with the ids of its jobs. What went wrong is its ``error``.

        Raises:
            NotFoundError: There is none of this id.
            DeadlineExceededError: Making the jobs takes longer than the client's timeout; the run goes on.
        """
        return await self._wire.run(run_schedule(schedule_id, self._timeout_s))

    async def pause(self, schedule_id: str) -> Schedule:
        """Lets its times pass without a run; no effect if it is paused. Jobs that were made go on."""
        return await self._wire.run(schedule_call(PAUSE_SCHEDULE, schedule_id, self._timeout_s))

    async def resume(self, schedule_id: str) -> Schedule:
        """Goes on with the next time that comes; no effect if it is not paused."""
        return await self._wire.run(schedule_call(RESUME_SCHEDULE, schedule_id, self._timeout_s))

    async def delete(self, schedule_id: str) -> None:
        """Removes a schedule; its jobs stay."""
        await self._wire.run(delete_schedule(schedule_id, self._timeout_s))
