"""The figures of a comparison: as a table for people and as plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.text.contest import Outcome, Score
from benchmarks.text.works import PENSTOCK

_WIDTH = 140
_MEGA = 1e6
_REASON_CHARS_MAX = 100


def figures(outcome: Outcome) -> dict[str, object]:
    """All figures of a work; rates are MB/s of UTF-8, times of single calls µs."""
    work, best = outcome.work, best_exact(outcome)
    return {
        "work": work.name,
        "vocabulary": work.vocabulary,
        "texts": outcome.texts,
        "bytes": outcome.bytes,
        "batch": work.batch or 1,
        "unit": unit_of(outcome),
        "goal": work.goal,
        "best_exact_other": None
        if best is None
        else {"contender": best[0], "penstock_is_faster": round(best[1], 3)},
        "contenders": [_score(outcome, score) for score in outcome.scores],
    }


def unit_of(outcome: Outcome) -> str:
    """The unit of a work's figures."""
    return "MB/s" if outcome.work.batch else "µs"


def other_ids(score: Score) -> str:
    """How many texts have other ids than the reference's, in brackets with special tokens taken out.

    A dash if nobody compared them.
    """
    if score.differing is None:
        return "–"
    return f"{score.differing:,} ({score.differing_inside:,})" if score.differing else "0"


def goal_of(outcome: Outcome) -> str:
    """What is asked for, to be put behind a title; empty if nothing is."""
    work = outcome.work
    return (
        "" if work.goal is None else f"; goal {'≥' if work.batch else '≤'} {work.goal:g} {unit_of(outcome)}"
    )


def best_exact(outcome: Outcome) -> tuple[str, float] | None:
    """The fastest other library with no other ids, and how many times as fast Penstock is, up to tensors.

    None where Penstock or every other exact one is absent, or where Penstock competes with itself.
    """
    medians = {
        score.contender: median(score.tensors_s)
        for score in outcome.scores
        if score.absent is None and score.differing == 0 and " with " not in score.contender
    }
    own_s = medians.pop(PENSTOCK, None)
    if own_s is None or not medians:
        return None
    name = min(medians, key=medians.__getitem__)
    return name, medians[name] / own_s


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
        "texts_with_other_ids_special_tokens_aside": score.differing_inside,
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
    work, unit = outcome.work, unit_of(outcome)
    title = f"{work.name}: {outcome.texts} texts, {outcome.bytes / _MEGA:.2f} MB{goal_of(outcome)}"
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
        table.add_row(score.contender, score.version, *cells, other_ids(score))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)
    for line in absent:
        console.print(line, markup=False, highlight=False)


def _cell(outcome: Outcome, samples_s: Sequence[float]) -> str:
    return f"{value(outcome, median(samples_s)):.2f}"
