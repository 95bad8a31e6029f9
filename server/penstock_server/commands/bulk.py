"""``penstock bulk``: jobs over whole files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock_server.commands.bulk_ray import refuse_others_options, run_on_ray
from penstock_server.commands.job_options import JobWork, takes_job_options
from penstock_server.commands.output import (
    answer_fields,
    answer_line,
    error_fields,
    job_fields,
    print_jobs,
    print_json,
    short,
)
from penstock_server.commands.progress import Bars, duration
from penstock_server.commands.schedule import schedule
from penstock_server.commands.session import Session, calls_server, task_of
from penstock_server.commands.spans import check_times, span_of

if TYPE_CHECKING:
    from penstock import Client, Job, RowResult
    from penstock.options import JobOptions

_STATES = (
    "validating", "running", "paused", "finalizing", "succeeded", "failed",
    "cancelling", "cancelled", "expired",
)  # fmt: skip
_OUTPUTS = click.Choice(["jsonl", "parquet", "openai_batch"])
_SELECTIONS = {"all": "unspecified", "succeeded": "succeeded", "failed": "failed"}


@click.group()
def bulk() -> None:
    """Run jobs over whole files, in the cycles that live calls leave."""


bulk.add_command(schedule)


@bulk.command()
@click.argument("path")
@takes_job_options
@click.option(
    "--expire-in",
    metavar="SPAN",
    callback=span_of,
    help="End the job after this time, such as 90s, 30m, 12h or 7d.",
)
@click.option(
    "--not-before",
    type=click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    help="Compute no row before.",
)
@click.option("--wait", is_flag=True, help="Stay until the job has ended; with --engine ray always.")
@click.option(
    "--engine",
    type=click.Choice(["server", "ray"]),
    default="server",
    show_default=True,
    help="What computes: the server, or a Ray cluster without any server.",
)
@click.option(
    "--models",
    "--models-dir",
    default="models",
    metavar="FOLDER",
    help="With --engine ray: folder of the models, the same on every node.  [default: models]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="With --engine ray: workers, of one CPU each.  [default: one for each CPU]",
)
@calls_server
def submit(
    session: Session,
    work: JobWork,
    path: str,
    expire_in: timedelta | None,
    not_before: datetime | None,
    wait: bool,
    engine: str,
    **_: object,
) -> None:
    """Upload PATH (JSON lines, CSV, Parquet or Arrow) and start a job over it.

    PATH may be a URL, such as s3://bucket/file.jsonl or file:///data/file.csv: the server reads it then, if
    its operator allows the place. One that ends in a slash names all files below a folder, and * stands for
    any part of a name, as in 's3://bucket/day=*/part-*.parquet'.

    With --engine ray no server is called: the job runs on the Ray cluster at --address (else at RAY_ADDRESS,
    else on this machine) and writes Parquet files to --output. The same command goes on where it stopped.
    """
    is_url = "://" in path
    if not is_url and not Path(path).is_file():
        raise click.BadParameter(f"there is no file {path!r}", param_hint="PATH")
    refuse_others_options(click.get_current_context())
    if engine == "ray":
        run_on_ray(click.get_current_context())
        return
    expire_time = None if expire_in is None else datetime.now(UTC) + expire_in
    check_times(expire_time, not_before, tuple(work.options.get("windows", ())))
    options: JobOptions = {
        **work.options,
        "input_url": path if is_url else "",
        "expire_time": expire_time,
        "not_before": not_before,
        "request_id": "",
    }
    with session.connect() as client:
        task = task_of(client, work.model, work.task)
        with Bars(shown=not session.as_json) as bars:
            if is_url:
                job = client.bulk.create(model=work.model, task=task, **options)
            else:
                job = client.bulk.submit(path, model=work.model, task=task, progress=bars, **options)
        if wait:
            _finish(_watched(client, job.id, shown=not session.as_json), as_json=session.as_json)
        elif session.as_json:
            print_json(job_fields(job))
        else:
            click.echo(f"{job.id}\nWatch it with: penstock bulk watch {session.address_option}{job.id}")


@bulk.command()
@click.argument("job_id")
@calls_server
def watch(session: Session, job_id: str) -> None:
    """Show a job's progress until it has ended; with --json, a line for each change."""
    with session.connect() as client:
        if not session.as_json:
            _finish(_watched(client, job_id, shown=True), as_json=False)
            return
        job = None
        for job in client.bulk.watch(job_id, timeout_s=session.timeout_s):
            print_json(job_fields(job))
        _check(job or client.bulk.get(job_id))


@bulk.command()
@click.argument("job_id")
@click.option("--start-row", type=click.IntRange(min=0), default=0, help="First row to print, from 0.")
@click.option("--select", type=click.Choice(list(_SELECTIONS)), default="all", help="Which rows.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a file instead.")
@click.option("--format", "file_format", type=_OUTPUTS, help="[default: by --output's name]")
@calls_server
def results(
    session: Session, job_id: str, start_row: int, select: str, output: Path | None, file_format: str | None
) -> None:
    """Print a job's finished rows, or write them all to a file once the job has ended."""
    if output is None and file_format is not None:
        raise click.UsageError("--format goes with --output; --json prints JSON lines")
    with session.connect() as client:
        if output is not None:
            file_format = file_format or ("parquet" if output.suffix == ".parquet" else "jsonl")
            with Bars(shown=not session.as_json) as bars:
                client.bulk.download(
                    job_id, output, format=file_format, selection=_SELECTIONS[select], progress=bars
                )
            if not session.as_json:
                click.echo(f"{output}: {output.stat().st_size:,} bytes", err=True)
            return
        for row in client.bulk.results(job_id, start_row=start_row, selection=_SELECTIONS[select]):
            _print_row(row, as_json=session.as_json)


@bulk.command("list")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most jobs to show.")
@calls_server
def list_(session: Session, states: tuple[str, ...], limit: int) -> None:
    """List jobs, newest first."""
    with session.connect() as client:
        jobs = client.bulk.list(states=states, jobs_max=limit)
    if session.as_json:
        print_json([job_fields(job) for job in jobs])
    elif jobs:
        print_jobs(jobs)
    else:
        click.echo("no jobs; start one with `penstock bulk submit FILE --model NAME`")


@bulk.command()
@click.argument("job_id")
@calls_server
def cancel(session: Session, job_id: str) -> None:
    """End a job, keeping the rows that are done."""
    with session.connect() as client:
        _print_job(client.bulk.cancel(job_id), as_json=session.as_json)


@bulk.command()
@click.argument("job_id")
@calls_server
def pause(session: Session, job_id: str) -> None:
    """Stop computing a job's rows until it is resumed."""
    with session.connect() as client:
        _print_job(client.bulk.pause(job_id), as_json=session.as_json)


@bulk.command()
@click.argument("job_id")
@calls_server
def resume(session: Session, job_id: str) -> None:
    """Go on with a paused job."""
    with session.connect() as client:
        _print_job(client.bulk.resume(job_id), as_json=session.as_json)


@bulk.command()
@click.argument("job_id")
@click.option("--wait", is_flag=True, help="Stay until the new job has ended.")
@calls_server
def retry(session: Session, job_id: str, wait: bool) -> None:
    """Start a job over the failed rows of one that has ended."""
    with session.connect() as client:
        job = client.bulk.retry_failed(job_id)
        if wait:
            _finish(_watched(client, job.id, shown=not session.as_json), as_json=session.as_json)
        else:
            _print_job(job, as_json=session.as_json)


@bulk.command()
@click.argument("job_id")
@calls_server
def delete(session: Session, job_id: str) -> None:
    """Remove a job that has ended, with its input and results."""
    with session.connect() as client:
        client.bulk.delete(job_id)
    if session.as_json:
        print_json({"id": job_id, "deleted": True})
    else:
        click.echo(f"{job_id} deleted")


def _watched(client: Client, job_id: str, *, shown: bool) -> Job:
    try:
        with Bars(shown=shown) as bars:
            return client.bulk.wait(job_id, progress=bars)
    except KeyboardInterrupt:
        click.echo(f"penstock: the job goes on; `penstock bulk cancel {job_id}` ends it", err=True)
        raise


def _finish(job: Job, *, as_json: bool) -> None:
    """Prints a job that has ended; the exit status tells whether it went well."""
    _print_job(job, as_json=as_json)
    if not as_json and job.start_time is not None and job.end_time is not None:
        seconds = (job.end_time - job.start_time).total_seconds()
        rate = f", {job.done / seconds:,.0f} rows/s" if seconds > 0 else ""
        click.echo(f"computed in {duration(seconds)}{rate}; print the rows: penstock bulk results {job.id}")
    _check(job)


def _check(job: Job) -> None:
    from penstock import JobState

    if job.state is not JobState.SUCCEEDED:
        why = f": {job.error.message}" if job.error is not None else ""
        click.echo(f"penstock: job {job.id} {job.state.value}{why}", err=True)
        raise click.exceptions.Exit(1)


def _print_job(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(job_fields(job))
    else:
        print_jobs([job])


def _print_row(row: RowResult, *, as_json: bool) -> None:
    if as_json:
        fields = {"row": row.row, "key": row.key, **row.carried, **answer_fields(row.answer)}
        if row.error is not None:
            fields["error"] = error_fields(row.error)
        print_json(fields)
        return
    told = f"error: {row.error.message}" if row.error is not None else answer_line(row.answer)
    key = "" if row.key is None else f"{short(str(row.key), 30)}\t"
    click.echo(f"{row.row}\t{key}{told}")
