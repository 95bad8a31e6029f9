"""Medians over rounds, and tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.hybrid.figures import median

# Columns of each work's table: what they are called, the figure, and how it is written.
_COLUMNS: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "hybrid": (
        ("live p50 ms", "live_p50_ms", "{:.1f}"),
        ("p99", "live_p99_ms", "{:.1f}"),
        ("beside bulk p50 ms", "beside_p50_ms", "{:.1f}"),
        ("p99", "beside_p99_ms", "{:.1f}"),
        ("p50 ×", "p50_inflation", "{:.2f}"),
        ("p99 ×", "p99_inflation", "{:.2f}"),
        ("unanswered", "beside_unanswered", "{:.0f}"),
        ("bulk tokens/s", "bulk_alone_tokens_per_s", "{:,.0f}"),
        ("beside live", "bulk_beside_tokens_per_s", "{:,.0f}"),
        ("live's share", "live_share", "{:.1%}"),
        ("bulk's share", "bulk_share", "{:.1%}"),
        ("of idle", "harvest", "{:.1%}"),
        ("others", "others_cores_max", "{:.2f}"),
    ),
    "throughput": (
        ("mixed rows/s", "mixed_rows_per_s", "{:.1f}"),
        ("tokens/s", "mixed_tokens_per_s", "{:,.0f}"),
        ("sentences rows/s", "sentences_rows_per_s", "{:.1f}"),
        ("tokens/s", "sentences_tokens_per_s", "{:,.0f}"),
        ("reviews rows/s", "reviews_rows_per_s", "{:.1f}"),
        ("tokens/s", "reviews_tokens_per_s", "{:,.0f}"),
    ),
    "overload": (
        ("capacity rows/s", "capacity_rows_per_s", "{:.1f}"),
        ("1.4: goodput", "x1.4_goodput", "{:.1%}"),
        ("in tokens", "x1.4_goodput_tokens", "{:.1%}"),
        ("late", "x1.4_late_of_admitted", "{:.2%}"),
        ("refused", "x1.4_refused", "{:.1%}"),
        ("2.8: goodput", "x2.8_goodput", "{:.1%}"),
        ("in tokens", "x2.8_goodput_tokens", "{:.1%}"),
        ("late", "x2.8_late_of_admitted", "{:.2%}"),
        ("refused", "x2.8_refused", "{:.1%}"),
    ),
    "tenants": (
        ("beside an equal p50 ms", "equal_p50_ms", "{:.1f}"),
        ("p99", "equal_p99_ms", "{:.1f}"),
        ("beside a flood p50 ms", "flood_p50_ms", "{:.1f}"),
        ("p99", "flood_p99_ms", "{:.1f}"),
        ("p99 ×", "p99_inflation", "{:.2f}"),
        ("calm refused", "flood_calm_refused", "{:.1%}"),
        ("flood good/s", "flood_flood_good_per_s", "{:.1f}"),
    ),
    "saturated": (
        ("bulk's share", "bulk_share", "{:.1%}"),
        ("longest gap ms", "gap_ms", "{:,.0f}"),
        ("in units", "gap_units", "{:.1f}"),
        ("live rows/s", "live_rows_per_s", "{:.1f}"),
        ("beside bulk", "live_beside_rows_per_s", "{:.1f}"),
    ),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of one turn; ``failure`` says why there are none."""

    work: str
    contestant: str
    round: int
    figures: Mapping[str, float | None]
    failure: str = ""


def summary(outcomes: Sequence[Outcome]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Medians over the rounds: by work, contestant and figure."""
    medians: dict[str, dict[str, dict[str, float | None]]] = {}
    for outcome in outcomes:
        medians.setdefault(outcome.work, {}).setdefault(outcome.contestant, {})
    for work, contestants in medians.items():
        for name, figures in contestants.items():
            rounds = [
                outcome.figures for outcome in outcomes if (outcome.work, outcome.contestant) == (work, name)
            ]
            keys = dict.fromkeys(key for found in rounds for key in found)
            figures.update((key, median([found.get(key) for found in rounds])) for key in keys)
    return medians


def print_tables(result: Mapping[str, Any]) -> None:
    """Prints a table for each work."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    for work, contestants in result["summary"].items():
        columns = [
            column for column in _COLUMNS[work] if any(column[1] in each for each in contestants.values())
        ]
        table = Table(title=f"{work}: medians of {result['plan']['rounds']} rounds")
        table.add_column("", no_wrap=True)
        for head, _, _ in columns:
            table.add_column(head, justify="right")
        for name, figures in contestants.items():
            table.add_row(name, *(_cell(figures.get(key), form) for _, key, form in columns))
        console.print(table)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
