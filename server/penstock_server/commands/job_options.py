"""The options that a job has also if a schedule makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

import click

from penstock_server.commands.session import TRUNCATIONS
from penstock_server.commands.spans import windows_of

if TYPE_CHECKING:
    from penstock.options import RecurringJobOptions

Command = Callable[..., None]
Option = Callable[[Command], Command]


@dataclass(frozen=True, slots=True)
class JobWork:
    """What a job computes, and how.

    Attributes:
        model: Name of the model.
        task: What is computed; None for what the model does.
        options: As the client takes them.
    """

    model: str
    task: str | None
    options: RecurringJobOptions


_INPUTS = click.Choice(["jsonl", "csv", "parquet", "arrow", "openai_batch"])
_OUTPUTS = click.Choice(["jsonl", "parquet", "openai_batch"])
_WHAT: tuple[Option, ...] = (
    click.option("--model", required=True, help="Name of the model; see `penstock models list`."),
    click.option("--task", type=click.Choice(["embed", "classify", "tag"]), help="[default: the model's]"),
)
# By the client's names, which are those of their parameters, too.
_OPTIONS: dict[str, Option] = {
    "text_column": click.option(
        "--text-column", default="", help="Column that holds the text.  [default: text]"
    ),
    "text_pair_column": click.option(
        "--pair-column", "text_pair_column", default="", help="Column that holds the second text of a pair."
    ),
    "key_column": click.option(
        "--key-column", default="", help="Column that is carried to the results to join by."
    ),
    "carry_columns": click.option(
        "--carry", "carry_columns", multiple=True, metavar="COLUMN", help="Carry it to the results, too."
    ),
    "input_format": click.option(
        "--format", "input_format", type=_INPUTS, help="[default: by the file's name]"
    ),
    "output_url": click.option(
        "--output-url",
        "--output",
        default="",
        metavar="URL",
        help="Folder that gets the result files, too; on Ray it alone does.",
    ),
    "output_format": click.option(
        "--output-format", type=_OUTPUTS, help="Format of the files there.  [default: parquet]"
    ),
    "output_rows_per_file": click.option(
        "--rows-per-file",
        "output_rows_per_file",
        type=click.IntRange(min=1),
        help="Most rows of a file there.  [default: all in one]",
    ),
    "display_name": click.option(
        "--name", "display_name", default="", help="Your own words for the job, shown in lists."
    ),
    "weight": click.option(
        "--weight", type=click.IntRange(1, 1000), help="Share against your other jobs.  [default: 100]"
    ),
    "share_max": click.option(
        "--share-max",
        type=click.FloatRange(0, 1, min_open=True),
        help="Largest part of the machine's time for bulk work, such as 0.25.",
    ),
    "windows": click.option(
        "--window",
        "windows",
        multiple=True,
        metavar="WINDOW",
        callback=windows_of,
        help="Compute only within such windows: five cron fields, a span and a time zone (UTC by default), "
        "such as '0 22 * * * 8h Europe/Berlin'.",
    ),
    "failed_rows_max": click.option(
        "--failed-rows-max", type=click.IntRange(min=0), help="Fail the job once more rows have failed."
    ),
    "truncation": click.option(
        "--truncation", type=TRUNCATIONS, help="What happens to texts that are too long."
    ),
    "tokens_max": click.option("--tokens-max", type=click.IntRange(min=1), help="Longest text in tokens."),
}


def takes_job_options(command: Command) -> Command:
    """Adds the options to a command, which gets them as a `JobWork`, its argument ``work``."""

    @wraps(command)
    def wrapped(*, model: str, task: str | None, **rest: Any) -> None:
        options = cast("RecurringJobOptions", {name: rest.pop(name) for name in _OPTIONS})
        has_output = options.get("output_format") or options.get("output_rows_per_file")
        if has_output and not options.get("output_url"):
            raise click.UsageError("--output-format and --rows-per-file go with --output-url")
        command(work=JobWork(model, task, options), **rest)

    decorated: Command = wrapped
    for option in reversed((*_WHAT, *_OPTIONS.values())):
        decorated = option(decorated)
    return decorated
