"""The outcome of a soak, for people and for programs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tests.soak.run import Outcome
from tests.soak.verdicts import Verdict

_WORDS = {True: "holds", False: "FAILS", None: "not judged"}


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything that was judged, and the course of memory."""
    return {
        "holds": outcome.holds,
        "verdicts": [asdict(verdict) for verdict in outcome.verdicts],
        "statuses": dict(outcome.ledger.statuses),
        "gestures": dict(outcome.ledger.gestures),
        "jobs": dict(outcome.ledger.jobs_ended),
        "samples": [asdict(sample) for sample in outcome.course.samples],
    }


def print_outcome(outcome: Outcome) -> None:
    """Prints a table, and the first cases of what fails."""
    table = Table("verdict", "", "figures", box=None, pad_edge=False)
    for verdict in outcome.verdicts:
        table.add_row(verdict.name, _WORDS[verdict.holds], verdict.figures)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for verdict in outcome.verdicts:
        _print_cases(verdict)


def _print_cases(verdict: Verdict) -> None:
    if verdict.holds is False and verdict.told:
        click.echo(f"\n{verdict.name}:")
        for case in verdict.told:
            click.echo(f"  {case}")
