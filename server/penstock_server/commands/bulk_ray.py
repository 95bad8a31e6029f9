"""``penstock bulk submit --engine ray``: a job on a Ray cluster, without a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from penstock_server.commands.output import print_json, print_table
from penstock_server.commands.progress import Bars, duration

if TYPE_CHECKING:
    from penstock_server.domain.job import JobProgress
    from penstock_server.ray.job import RayJobResult
    from penstock_server.ray.plan import RayJob

# What a server does with a job beside computing it, and how it is called.
_OF_SERVERS = frozenset(
    {
        "display_name", "weight", "share_max", "expire_in", "not_before", "windows", "failed_rows_max",
        "output_format", "output_rows_per_file", "timeout_s", "tls", "authority", "token",
    }
)  # fmt: skip
_OF_RAY = frozenset({"models", "workers"})


def refuse_others_options(context: click.Context) -> None:
    """Refuses options that mean nothing to the engine that is to compute the job.

    Raises:
        click.UsageError: One was given; the text names it.
    """
    on_ray = context.params["engine"] == "ray"
    for parameter in context.command.params:
        if parameter.name in (_OF_SERVERS if on_ray else _OF_RAY) and _is_given(context, parameter.name):
            raise click.UsageError(f"{parameter.opts[0]} goes with --engine {'server' if on_ray else 'ray'}")
    if on_ray and not context.params["output_url"]:
        raise click.UsageError("--engine ray needs --output, the folder for the results")


def run_on_ray(context: click.Context) -> None:
    """Runs the job that the options of ``bulk submit`` tell, and prints what it has come to."""
    # Ray's own log would stand beside our one line of error; it reads this when it is imported.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    from penstock import Progress
    from penstock_server.ray.job import run_ray_job

    # PENSTOCK_ADDRESS is a server's; Ray has a variable of its own.
    address = context.params["address"] if _is_given(context, "address") else os.environ.get("RAY_ADDRESS")
    as_json = context.params["as_json"]
    with Bars(shown=not as_json) as bars:

        def show(progress: JobProgress) -> None:
            left_s = progress.time_left_s
            bars(Progress("rows", progress.done, progress.total, progress.rows_per_s, left_s))

        try:
            result = run_ray_job(
                _job(context.params), address=address, workers=context.params["workers"], on_progress=show
            )
        except KeyboardInterrupt:
            click.echo("penstock: what is done is kept; the same command goes on from there", err=True)
            raise
    if as_json:
        print_json(_fields(result))
    else:
        _print(result)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _job(options: dict[str, Any]) -> RayJob:
    from penstock_server.domain.job import FileFormat, InputColumns
    from penstock_server.domain.tasks import Task, TaskOptions, Truncation
    from penstock_server.ray.model import ModelOrder
    from penstock_server.ray.plan import RayJob

    task, truncation, input_format = options["task"], options["truncation"], options["input_format"]
    return RayJob(
        input_url=_absolute(options["path"]),
        output_url=_absolute(options["output_url"]),
        model=ModelOrder(
            models=_absolute(options["models"]),
            model=options["model"],
            task=None if task is None else TaskOptions(Task(task)),
            truncation=None if truncation is None else Truncation(truncation),
            tokens_max=options["tokens_max"],
        ),
        columns=InputColumns(
            text=options["text_column"] or InputColumns().text,
            pair=options["text_pair_column"] or None,
            key=options["key_column"] or None,
            carried=options["carry_columns"],
        ),
        input_format=None if input_format is None else FileFormat(input_format),
    )


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


def _fields(result: RayJobResult) -> dict[str, Any]:
    progress = result.progress
    return {
        "state": "succeeded",
        "total": progress.total,
        "succeeded": progress.succeeded,
        "failed": progress.failed,
        "pending": progress.pending,
        "model": result.model.name,
        "version": result.model.version,
        "task": result.task.value,
        "rows_per_second": progress.rows_per_s,
        "output_url": result.output_url,
        "parts": result.parts,
        "parts_computed": result.parts_computed,
    }


def _print(result: RayJobResult) -> None:
    progress = result.progress
    counts = (progress.total, progress.succeeded, progress.failed)
    rate = f"{progress.rows_per_s:,.0f}" if progress.rows_per_s else ""
    row = (str(result.model), result.task.value, *(f"{count:,}" for count in counts), rate)
    print_table(("model", "task", "total", "succeeded", "failed", "rows/s"), [row])
    parts = f"{result.parts_computed:,} of {result.parts:,} parts"
    click.echo(f"computed {parts} in {duration(result.seconds)}; the rows are in {result.output_url}")
