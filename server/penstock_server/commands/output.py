"""Answers as tables and lines for people, and as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from datetime import datetime

    from penstock import AnswerInfo, Classification, Job, PenstockError, TimeWindow
    from penstock.outcomes import Answer

_TEXT_SHOWN = 60
_NUMBERS_SHOWN = 4
_PIPED_WIDTH = 1000


def print_json(document: Any) -> None:
    """Prints one JSON document on one line, at once."""
    click.echo(json.dumps(document, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> None:
    """Prints a table, as wide as its cells where no terminal bounds it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Texts of users are no markup.
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    console.print(table)
    if caption:
        click.echo(caption)


def short(text: str, length: int = _TEXT_SHOWN) -> str:
    """Cuts a text to one short line without control characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= length else f"{line[: length - 1]}…"


def answer_line(answer: Answer | None) -> str:
    """Tells an answer in one short line."""
    from penstock import Classification, Embedding

    if answer is None:
        return ""
    if isinstance(answer, Embedding):
        shown = " ".join(f"{number:+.4f}" for number in answer[:_NUMBERS_SHOWN])
        return f"[{shown}{' …' if len(answer) > _NUMBERS_SHOWN else ''}] {len(answer)} dimensions"
    if isinstance(answer, Classification):
        return labels_line(answer)
    return ", ".join(f"{span.label} {span.start_char}–{span.end_char} ({span.score:.3f})" for span in answer)


def labels_line(answer: Classification) -> str:
    """Tells labels with their scores."""
    return ", ".join(f"{each.label} {each.score:.4f}" for each in answer.labels)


def answer_fields(answer: Answer | None) -> dict[str, Any]:
    """Returns an answer's fields for JSON."""
    from dataclasses import asdict

    from penstock import Classification, Embedding

    if answer is None:
        return {}
    if isinstance(answer, Embedding):
        return {"embedding": answer.tolist()}
    if isinstance(answer, Classification):
        labels = [asdict(each) for each in answer.labels]
        return {"label": answer.label, "score": answer.score, "labels": labels}
    return {"spans": [asdict(span) for span in answer]}


def error_fields(error: PenstockError) -> dict[str, Any]:
    """Returns an error's fields for JSON."""
    return {"status": error.status, "reason": error.reason, "message": error.message}


def info_fields(info: AnswerInfo) -> dict[str, Any]:
    """Returns what is said of every answer, for JSON."""
    from dataclasses import asdict

    return {
        "model": info.model,
        "version": info.version,
        "served_class": info.served_class.value,
        "tokens": info.tokens,
        "truncated_rows": info.truncated_rows,
        "timings": asdict(info.timings),
        **({"job_id": info.job_id} if info.job_id else {}),
        **({} if info.explanation is None else {"explanation": asdict(info.explanation)}),
    }


def info_line(info: AnswerInfo) -> str:
    """Tells what is said of every answer, in one line."""
    cut = f", {info.truncated_rows} cut to the limit" if info.truncated_rows else ""
    timings = info.timings
    return (
        f"{info.model} version {info.version}: {info.tokens} tokens{cut}; {timings.total_s * 1e3:.1f} ms "
        f"(queue {timings.queue_s * 1e3:.1f}, tokenise {timings.tokenise_s * 1e3:.1f}, "
        f"compute {timings.compute_s * 1e3:.1f})"
    )


def job_fields(job: Job) -> dict[str, Any]:
    """Returns a job's fields for JSON."""
    return {
        "id": job.id,
        "state": job.state.value,
        "total": job.total,
        "succeeded": job.succeeded,
        "failed": job.failed,
        "pending": job.pending,
        "model": job.model,
        "version": job.version,
        "task": job.task.value,
        "tokens": job.tokens,
        "rows_per_second": job.rows_per_second,
        "time_left_s": job.time_left_s,
        "oldest_pending_s": job.oldest_pending_s,
        "display_name": job.display_name,
        "weight": job.weight,
        "share_max": job.share_max,
        "input_url": job.input_url,
        "output_url": job.output_url,
        "output_format": job.output_format.value if job.output_url else None,
        "output_rows_per_file": job.output_rows_per_file,
        "expire_time": time_field(job.expire_time),
        "not_before": time_field(job.not_before),
        "windows": window_fields(job.windows),
        "failed_rows_max": job.failed_rows_max,
        "retry_of": job.retry_of,
        "error": None if job.error is None else error_fields(job.error),
        "create_time": time_field(job.create_time),
        "start_time": time_field(job.start_time),
        "end_time": time_field(job.end_time),
    }


def time_field(moment: datetime | None) -> str | None:
    """Returns a time for JSON."""
    return None if moment is None else moment.isoformat()


def window_fields(windows: Iterable[TimeWindow]) -> list[dict[str, Any]]:
    """Returns the fields of windows of time for JSON."""
    return [
        {"start": each.start, "duration_s": each.duration.total_seconds(), "time_zone": each.time_zone}
        for each in windows
    ]


def print_jobs(jobs: Sequence[Job]) -> None:
    """Prints a table of jobs."""
    columns = ("job", "state", "model", "task", "total", "succeeded", "failed", "pending", "rows/s", "name")
    rows = [
        (
            job.id,
            job.state.value,
            job.model,
            job.task.value,
            *(f"{count:,}" for count in (job.total, job.succeeded, job.failed, job.pending)),
            f"{job.rows_per_second:,.0f}" if job.rows_per_second else "",
            short(job.display_name, 30),
        )
        for job in jobs
    ]
    print_table(columns, rows)
