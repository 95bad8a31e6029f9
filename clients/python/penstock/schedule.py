"""Recurring jobs: what they are, how their last run went, and the exchanges about them."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from penstock.errors import PenstockError, of_status
from penstock.exchange import Deadline, Exchange, Method, ask
from penstock.jobs import LIST_PAGE_ROWS, spec_of, windows_of
from penstock.methods import CREATE_SCHEDULE, DELETE_SCHEDULE, LIST_SCHEDULES, RUN_SCHEDULE
from penstock.options import JobOptions, RecurringJobOptions, Task, TimeWindow
from penstock.times import time_of
from penstock.v1 import bulk_pb2, schedule_pb2


@dataclass(frozen=True, slots=True)
class ScheduleRun:
    """How a run of a schedule went.

    Attributes:
        time: When it began.
        jobs: Jobs that it made, one for each file that was new.
        files_left: New files that it left to the next run: written just then, beyond the most jobs of a run,
            or such that no job can be made of them.
        error: What went wrong: the place cannot be reached, the model is gone, or no job can be made of a
            file; None if nothing did.
        job_ids: Ids of the jobs, if ``run`` returned this; a schedule's last run does not tell them.
    """

    time: datetime
    jobs: int
    files_left: int
    error: PenstockError | None
    job_ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: schedule_pb2.ScheduleRun, job_ids: Sequence[str] = ()) -> ScheduleRun:
        """Reads the server's message."""
        return cls(
            time=time_of(message.time),
            jobs=message.jobs,
            files_left=message.files_left,
            error=of_status(message.error) if message.HasField("error") else None,
            job_ids=tuple(job_ids),
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Jobs that are made at times that come again, one for each file that is new; with its state.

    Attributes:
        id: Id of the schedule.
        is_paused: Whether its times pass without a run.
        input_url: The folder or pattern in which new files are looked for.
        cron: When it runs, as five cron fields.
        time_zone: IANA name of the zone that ``cron`` is in.
        quiet_s: Files that have changed within so many seconds before a run are left to the next one.
        expire_after: Time after its run when each job expires; None for never.
        model: The model that computes.
        version: Its version; empty for the one that is present when a job is made.
        task: What is computed.
        display_name: The caller's own words, which each job has, too.
        output_url: Folder that gets the result files; empty for none.
        weight: Each job's share of the time against the tenant's other jobs.
        share_max: Largest part of the bulk lanes' time that each job may take; None for no bound of its own.
        windows: Rows are computed only within these; none for at any time.
        failed_rows_max: A job fails once more rows than this have; None for never.
        create_time: When it was created.
        next_run_time: When it runs next; None while it is paused.
        last_run: Its last run; None before the first.
    """

    id: str
    is_paused: bool
    input_url: str
    cron: str
    time_zone: str
    quiet_s: int
    expire_after: timedelta | None
    model: str
    version: str
    task: Task
    display_name: str
    output_url: str
    weight: int
    share_max: float | None
    windows: tuple[TimeWindow, ...]
    failed_rows_max: int | None
    create_time: datetime | None
    next_run_time: datetime | None
    last_run: ScheduleRun | None

    @classmethod
    def of(cls, message: schedule_pb2.Schedule) -> Schedule:
        """Reads the server's message."""
        spec, job = message.spec, message.spec.job
        expire_after_s = spec.expire_after_seconds
        return cls(
            id=message.id,
            is_paused=message.paused,
            input_url=job.input_url,
            cron=spec.cron,
            time_zone=spec.time_zone or "UTC",
            quiet_s=spec.quiet_seconds,
            expire_after=timedelta(seconds=expire_after_s) if expire_after_s else None,
            model=job.model.name,
            version=job.model.version,
            task=Task.of_number(job.task),
            display_name=job.display_name,
            output_url=job.output_url,
            weight=job.weight,
            share_max=job.share_max or None,
            windows=windows_of(job.windows),
            failed_rows_max=job.failed_rows_max if job.HasField("failed_rows_max") else None,
            create_time=time_of(message.create_time) if message.HasField("create_time") else None,
            next_run_time=time_of(message.next_run_time) if message.HasField("next_run_time") else None,
            last_run=ScheduleRun.of(message.last_run) if message.HasField("last_run") else None,
        )


def recurring_job_of(
    input_url: str, model: str, task: Task | str, options: RecurringJobOptions
) -> bulk_pb2.JobSpec:
    """Builds the message that says what each job of a schedule computes."""
    # Times of a single job, which only type checkers keep out, are so refused by the server, not ignored.
    job = spec_of("", model, task, cast(JobOptions, options))
    job.input_url = input_url
    return job


def schedule_spec_of(
    job: bulk_pb2.JobSpec, cron: str, time_zone: str, quiet_s: int | None, expire_after: timedelta | None
) -> schedule_pb2.ScheduleSpec:
    """Builds the message that says what is to be done when.

    Raises:
        ValueError: A span is not above zero, which the contract reads as unset.
    """
    if quiet_s is not None and quiet_s <= 0:
        raise ValueError(f"quiet_s must be 1 or more seconds, not {quiet_s!r}")
    if expire_after is not None and expire_after <= timedelta():
        raise ValueError(f"expire_after must be above zero, not {expire_after!r}")
    return schedule_pb2.ScheduleSpec(
        job=job,
        cron=cron,
        time_zone=time_zone,
        quiet_seconds=quiet_s or 0,
        expire_after_seconds=0 if expire_after is None else math.ceil(expire_after.total_seconds()),
    )


def create_schedule(
    spec: schedule_pb2.ScheduleSpec, request_id: str, timeout_s: float | None
) -> Exchange[Schedule]:
    """Makes a schedule; the request id lets gRPC repeat the call without making two."""
    request = schedule_pb2.CreateScheduleRequest(spec=spec, request_id=request_id or uuid.uuid4().hex)
    response = yield from ask(CREATE_SCHEDULE, request, Deadline(timeout_s))
    return Schedule.of(response.schedule)


def schedule_call(method: Method[Any, Any], schedule_id: str, timeout_s: float | None) -> Exchange[Schedule]:
    """Makes one of the calls that name a schedule and answer with it."""
    response = yield from ask(method, method.request(schedule_id=schedule_id), Deadline(timeout_s))
    return Schedule.of(response.schedule)


def run_schedule(schedule_id: str, timeout_s: float | None) -> Exchange[ScheduleRun]:
    """Runs a schedule now."""
    request = schedule_pb2.RunScheduleRequest(schedule_id=schedule_id)
    response = yield from ask(RUN_SCHEDULE, request, Deadline(timeout_s))
    return ScheduleRun.of(response.schedule.last_run, response.job_ids)


def delete_schedule(schedule_id: str, timeout_s: float | None) -> Exchange[None]:
    """Removes a schedule; its jobs stay."""
    request = schedule_pb2.DeleteScheduleRequest(schedule_id=schedule_id)
    yield from ask(DELETE_SCHEDULE, request, Deadline(timeout_s))


def list_schedules(schedules_max: int | None, timeout_s: float | None) -> Exchange[list[Schedule]]:
    """Asks for schedules, newest first, page by page."""
    deadline = Deadline(timeout_s)
    schedules: list[Schedule] = []
    token = ""
    while True:
        left = LIST_PAGE_ROWS if schedules_max is None else schedules_max - len(schedules)
        request = schedule_pb2.ListSchedulesRequest(page_size=min(LIST_PAGE_ROWS, left), page_token=token)
        response = yield from ask(LIST_SCHEDULES, request, deadline)
        schedules += [Schedule.of(each) for each in response.schedules]
        token = response.next_page_token
        if not token or (schedules_max is not None and len(schedules) >= schedules_max):
            return schedules[:schedules_max]
