"""Recurring jobs: what is done, when it is done, and how it went."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.domain.job import JobError, JobSpec


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """What is to be done when.

    Attributes:
        job: What each job computes; its URL names a folder, a pattern or one file. The version may be empty:
            each job then has the one that is present when it is made.
        cron: When it runs, as five cron fields.
        time_zone: IANA name of the zone that the fields are in; empty for UTC.
        quiet_s: Files that have changed within so many seconds are left to the next run.
        expire_after_s: When each job expires, in seconds after its run; None for never.
    """

    job: JobSpec
    cron: str
    time_zone: str
    quiet_s: int
    expire_after_s: int | None


@dataclass(frozen=True, slots=True)
class ScheduleRun:
    """How a run went.

    Attributes:
        time_ns: When it began, in nanoseconds since 1970.
        jobs: Jobs that it made.
        files_left: New files that it left to the next one.
        error: What went wrong: why it ended early, or of a file that no job can be made of; None for nothing.
    """

    time_ns: int
    jobs: int
    files_left: int
    error: JobError | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule with its state; times are nanoseconds since 1970.

    Attributes:
        id: Its id.
        spec: What is to be done when.
        is_paused: Whether its times pass without a run.
        create_time_ns: When it was made.
        due_ns: When it runs next; None while it is paused.
        last_run: Its last run; None before the first.
    """

    id: str
    spec: ScheduleSpec
    is_paused: bool
    create_time_ns: int
    due_ns: int | None
    last_run: ScheduleRun | None
