"""The figures of a comparison: as a table for people and as plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.text.contest import Outcome, Score

_WIDTH = 140
_MEGA = 1e6
_REASON_CHARS_MAX = 100


def figures(outcome: Outcome) -> dict[str, object]:
    """All figures of a work; rates are MB/s of UTF-8, times of single calls µs."""
    work = outcome.work
    return {
        "work": work.name,
        "vocabulary": work.vocabulary,
        "texts": outcome.texts,
        "bytes": outcome.bytes,
        "batch": work.batch or 1,
        "unit": _unit(outcome),
        "goal": work.goal,
        "contenders": [_score(outcome, score) for score in outcome.scores],
    }


def _unit(outcome: Outcome) -> str:
    return "MB/s" if outcome.work.batch else "µs"


def _score(outcome: Outcome, score: Score) -> dict[str, object]:
    if score.absent is not None:
        return {"contender": score.contender, "absent": score.absent}
    return {
        "contender": score.contender,
        "version": score.version,
        "warm_tensors": _spread(outcome, score.tensors_s),
        "warm_own_result": _spread(outcome, score.own_s),
        "cold_tensors": _spread(outcome, score.cold_s),
        "load_ms": round(median(score.load_s) * 1e3, 1),
        "texts_with_other_ids": score.differing,
    }


def _spread(outcome: Outcome, samples_s: Sequence[float]) -> dict[str, float]:
    values = sorted(value(outcome, seconds) for seconds in samples_s)
    spread = {"median": median(values), "low": values[0], "high": values[-1]}
    return {name: round(number, 3) for name, number in spread.items()} | {"samples": len(values)}


def value(outcome: Outcome, seconds: float) -> float:
    """A pass's seconds as MB/s, or as µs a call where texts go in one by one."""
    if outcome.work.batch:
        return outcome.bytes / seconds / _MEGA
    return seconds / outcome.texts * _MEGA


def print_table(outcome: Outcome) -> None:
    """Prints a work's contenders, the absent ones with the reason."""
    work, unit = outcome.work, _unit(outcome)
    goal = "" if work.goal is None else f"; goal {'≥' if work.batch else '≤'} {work.goal:g} {unit}"
    title = f"{work.name}: {outcome.texts} texts, {outcome.bytes / _MEGA:.2f} MB{goal}"
    table = Table(title=title, title_justify="left")
    heads = (
        "contender",
        "version",
        f"tensors {unit}",
        f"own result {unit}",
        f"cold, tensors {unit}",
        "other ids",
    )
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index < 2 else "right", no_wrap=True)
    absent: list[str] = []
    for score in outcome.scores:
        if score.absent is not None:
            absent.append(f"{score.contender}: absent: {score.absent[:_REASON_CHARS_MAX]}")
            continue
        cells = (_cell(outcome, samples) for samples in (score.tensors_s, score.own_s, score.cold_s))
        table.add_row(score.contender, score.version, *cells, f"{score.differing} of {outcome.texts}")
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)
    for line in absent:
        console.print(line, markup=False, highlight=False)


def _cell(outcome: Outcome, samples_s: Sequence[float]) -> str:
    return f"{value(outcome, median(samples_s)):.2f}"
