"""``penstock bulk schedule``: recurring jobs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from penstock_server.commands.job_options import JobWork, takes_job_options
from penstock_server.commands.output import (
    error_fields,
    print_json,
    print_table,
    short,
    time_field,
    window_fields,
)
from penstock_server.commands.progress import duration
from penstock_server.commands.session import Session, calls_server, task_of
from penstock_server.commands.spans import span_of

if TYPE_CHECKING:
    from penstock import Schedule, ScheduleRun


@click.group()
def schedule() -> None:
    """Make jobs of new files at times that come again."""


@schedule.command()
@click.argument("url")
@click.option("--cron", required=True, help="Minute, hour, day, month and day of week, such as '0 2 * * *'.")
@click.option(
    "--time-zone", default="UTC", show_default=True, help="Zone that --cron is in, such as Europe/Berlin."
)
@click.option(
    "--quiet",
    metavar="SPAN",
    callback=span_of,
    help="Leave files that have changed within this time to the next run.  [default: 10s]",
)
@click.option(
    "--expire-after",
    metavar="SPAN",
    callback=span_of,
    help="End each job this long after its run, such as 90s, 30m, 12h or 7d.",
)
@takes_job_options
@calls_server
def create(
    session: Session,
    work: JobWork,
    url: str,
    cron: str,
    time_zone: str,
    quiet: timedelta | None,
    expire_after: timedelta | None,
) -> None:
    """Make a job of each file of URL that is new, whenever the time comes.

    URL is a folder, such as s3://bucket/in/ with the slash at its end, or a pattern in quotes, such as
    '/data/in/*.csv': the server reads it, if its operator allows the place. A file that has changed is new
    again.
    """
    with session.connect() as client:
        made = client.schedules.create(
            url,
            model=work.model,
            task=task_of(client, work.model, work.task),
            cron=cron,
            time_zone=time_zone,
            quiet_s=None if quiet is None else math.ceil(quiet.total_seconds()),
            expire_after=expire_after,
            **work.options,
        )
    if session.as_json:
        print_json(_fields(made))
        return
    click.echo(f"{made.id}\nnext run: {_next_run(made)}")
    click.echo(f"Look for files now with: penstock bulk schedule run {session.address_option}{made.id}")


@schedule.command("list")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most schedules to show."
)
@calls_server
def list_(session: Session, limit: int) -> None:
    """List schedules, newest first."""
    with session.connect() as client:
        schedules = client.schedules.list(schedules_max=limit)
    if session.as_json:
        print_json([_fields(each) for each in schedules])
    elif schedules:
        _print(schedules)
    else:
        click.echo(
            "no schedules; make one with `penstock bulk schedule create URL --model NAME --cron '0 2 * * *'`"
        )


@schedule.command()
@click.argument("schedule_id")
@calls_server
def show(session: Session, schedule_id: str) -> None:
    """Describe one schedule and its last run."""
    with session.connect() as client:
        found = client.schedules.get(schedule_id)
    if session.as_json:
        print_json(_fields(found))
        return
    _print([found])
    expiry = (
        f"; jobs expire after {duration(found.expire_after.total_seconds())}" if found.expire_after else ""
    )
    click.echo(f"files that have changed within {duration(found.quiet_s)} are left to the next run{expiry}")
    run = found.last_run
    if run is None:
        proposal = f"penstock bulk schedule run {session.address_option}{found.id}"
        click.echo(f"no run yet; look for files now with: {proposal}")
        return
    click.echo(f"last run: {_moment(run.time, found.time_zone)}: {_counts(run)}")
    if run.error is not None:
        click.echo(f"not every job was made: {run.error.message}")


@schedule.command()
@click.argument("schedule_id")
@calls_server
def run(session: Session, schedule_id: str) -> None:
    """Look for new files now, paused or not, and print the ids of the jobs that are made."""
    with session.connect() as client:
        done = client.schedules.run(schedule_id)
    if session.as_json:
        print_json({**_run_fields(done), "job_ids": done.job_ids})
    else:
        for job_id in done.job_ids:
            click.echo(job_id)
        click.echo(_counts(done))
        if done.job_ids:
            click.echo(f"Watch one with: penstock bulk watch {session.address_option}{done.job_ids[0]}")
    if done.error is not None:
        click.echo(f"penstock: not every job was made: {done.error.message}", err=True)
        raise click.exceptions.Exit(1)


@schedule.command()
@click.argument("schedule_id")
@calls_server
def pause(session: Session, schedule_id: str) -> None:
    """Let a schedule's times pass until it is resumed; its jobs go on."""
    with session.connect() as client:
        paused = client.schedules.pause(schedule_id)
    if session.as_json:
        print_json(_fields(paused))
    else:
        proposal = f"penstock bulk schedule resume {session.address_option}{paused.id}"
        click.echo(f"{paused.id} paused; go on with: {proposal}")


@schedule.command()
@click.argument("schedule_id")
@calls_server
def resume(session: Session, schedule_id: str) -> None:
    """Go on with a paused schedule, at the next time that comes."""
    with session.connect() as client:
        resumed = client.schedules.resume(schedule_id)
    if session.as_json:
        print_json(_fields(resumed))
    else:
        click.echo(f"{resumed.id} resumed; next run: {_next_run(resumed)}")


@schedule.command()
@click.argument("schedule_id")
@calls_server
def delete(session: Session, schedule_id: str) -> None:
    """Remove a schedule; its jobs stay."""
    with session.connect() as client:
        client.schedules.delete(schedule_id)
    if session.as_json:
        print_json({"id": schedule_id, "deleted": True})
    else:
        click.echo(f"{schedule_id} deleted; its jobs stay")


def _fields(each: Schedule) -> dict[str, Any]:
    return {
        "id": each.id,
        "is_paused": each.is_paused,
        "input_url": each.input_url,
        "cron": each.cron,
        "time_zone": each.time_zone,
        "quiet_s": each.quiet_s,
        "expire_after_s": None if each.expire_after is None else each.expire_after.total_seconds(),
        "model": each.model,
        "version": each.version,
        "task": each.task.value,
        "display_name": each.display_name,
        "output_url": each.output_url,
        "weight": each.weight,
        "share_max": each.share_max,
        "windows": window_fields(each.windows),
        "failed_rows_max": each.failed_rows_max,
        "create_time": time_field(each.create_time),
        "next_run_time": time_field(each.next_run_time),
        "last_run": None if each.last_run is None else _run_fields(each.last_run),
    }


def _run_fields(run: ScheduleRun) -> dict[str, Any]:
    return {
        "time": time_field(run.time),
        "jobs": run.jobs,
        "files_left": run.files_left,
        "error": None if run.error is None else error_fields(run.error),
    }


def _print(schedules: Sequence[Schedule]) -> None:
    columns = ("schedule", "files", "model", "task", "cron", "next run", "last run", "name")
    rows = [
        (
            each.id,
            each.input_url,
            each.model,
            each.task.value,
            f"{each.cron} {each.time_zone}",
            _next_run(each),
            _last_run(each),
            short(each.display_name, 30),
        )
        for each in schedules
    ]
    print_table(columns, rows)


def _next_run(each: Schedule) -> str:
    if each.is_paused or each.next_run_time is None:
        return "paused"
    return _moment(each.next_run_time, each.time_zone)


def _last_run(each: Schedule) -> str:
    run = each.last_run
    if run is None:
        return ""
    told = f"{_moment(run.time, each.time_zone)}, {_counted(run.jobs, 'job')}"
    return told if run.error is None else f"{told}, an error"


def _counts(run: ScheduleRun) -> str:
    made = f"{_counted(run.jobs, 'job')} made" if run.jobs or run.files_left or run.error else "no new files"
    left = f", {_counted(run.files_left, 'new file')} left to the next run" if run.files_left else ""
    return made + left


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _moment(moment: datetime, time_zone: str) -> str:
    """Writes a time as it is in a zone, or in UTC if this machine does not know the zone."""
    zone: tzinfo = UTC
    with suppress(ZoneInfoNotFoundError, ValueError, OSError):
        zone = ZoneInfo(time_zone)
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M %Z}"
