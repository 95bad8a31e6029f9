"""What happened to a request, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock_server.commands.output import info_fields, print_json, print_table
from penstock_server.commands.session import Session

if TYPE_CHECKING:
    from penstock import AnswerInfo, BatchExplanation, Explanation

_COLUMNS = ("lane", "waited", "computed", "rows", "own", "tokens", "padding", "shared with")


def print_explanation(info: AnswerInfo) -> None:
    """Prints a request's batches and what else was decided about it; nothing if it was not asked for."""
    explanation = info.explanation
    if explanation is None:
        return
    click.echo()
    print_table(_COLUMNS, [_batch_row(batch) for batch in explanation.batches], _notes(info, explanation))


def print_deferred(session: Session, info: AnswerInfo) -> None:
    """Tells that a job computes the texts, and how to get its results."""
    if session.as_json:
        print_json(info_fields(info))
    else:
        click.echo(f"The server computes this as a job: penstock bulk results {info.job_id}")


def _batch_row(batch: BatchExplanation) -> tuple[str, ...]:
    once = f" ({batch.shared_rows} computed once)" if batch.shared_rows else ""
    return (
        batch.lane,
        f"{batch.waited_s * 1e3:.1f} ms",
        f"{batch.computed_s * 1e3:.1f} ms",
        str(batch.rows),
        f"{batch.own_rows}{once}",
        f"{batch.tokens} of {batch.padded_tokens}",
        f"{batch.padding_share:.0%}",
        ", ".join(f"{rows} {name.value}" for name, rows in batch.shared_with.items()),
    )


def _notes(info: AnswerInfo, explanation: Explanation) -> str:
    """Tells what was decided about the request, one sentence each, in one line."""
    notes = [f"served as {info.served_class.value}"]
    if explanation.demoted_from.number:
        notes.append(f"demoted from {explanation.demoted_from.value}")
    if explanation.cached_rows:
        notes.append(f"{explanation.cached_rows:,} from the cache")
    if explanation.routing_rule:
        notes.append(f"by the rule {explanation.routing_rule!r}")
    if explanation.spared_version:
        notes.append(f"version {explanation.spared_version} was spared")
    if explanation.tenant:
        notes.append(f"tenant {explanation.tenant!r}")
    if explanation.predicted_s is not None:
        notes.append(f"predicted {explanation.predicted_s * 1e3:.1f} ms")
    return "; ".join(notes)
