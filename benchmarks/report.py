"""Figures from samples: percentiles, rates, and the table for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from benchmarks.generator import Samples

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(slots=True)
class Phase:
    """One stretch of load and what was measured in it."""

    name: str
    round: int
    duration_s: float
    samples: Samples | None = None
    bulk: dict[str, object] | None = None
    cores: dict[str, float] = field(default_factory=dict[str, float])


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Nearest-rank percentiles; None where fewer than one sample lies beyond."""
    ordered = sorted(values)
    count = len(ordered)
    found: dict[str, float | None] = {}
    for percent in PERCENTILES:
        beyond = count * (1 - percent / 100)
        rank = max(1, math.ceil(count * percent / 100))
        found[f"p{percent:g}"] = round(ordered[rank - 1], 3) if count and beyond >= 1 else None
    found["max"] = round(ordered[-1], 3) if ordered else None
    return found


def live_figures(samples: Samples, duration_s: float, rows: int, goal_ms: float) -> dict[str, object]:
    """Figures of the live calls of a phase, or of a phase in all rounds."""
    answered = len(samples.latency_ms)
    good = sum(latency <= goal_ms for latency in samples.latency_ms)
    return {
        "calls": sum(samples.statuses.values()),
        "statuses": dict(sorted(samples.statuses.items())),
        "latency_from_scheduled_arrival_ms": percentiles(samples.latency_ms),
        "server_queue_ms": percentiles(samples.queue_ms),
        "server_compute_ms": percentiles(samples.compute_ms),
        "generator_lag_ms": percentiles(samples.lag_ms),
        "rows_per_s": round(answered * rows / duration_s, 2),
        "tokens_per_s": round(samples.tokens / duration_s, 1),
        "goodput_calls_per_s": round(good / duration_s, 2),
        "goal_ms": goal_ms,
    }


def phase_figures(phase: Phase, rows: int, goal_ms: float) -> dict[str, object]:
    """All figures of one phase."""
    live = None if phase.samples is None else live_figures(phase.samples, phase.duration_s, rows, goal_ms)
    return {
        "phase": phase.name,
        "round": phase.round,
        "duration_s": phase.duration_s,
        "live": live,
        "bulk": phase.bulk,
        "cores_used": phase.cores,
    }


def pooled(phases: Sequence[Phase]) -> list[Phase]:
    """Joins the rounds of each phase: samples together, rates and cores on average."""
    names = list(dict.fromkeys(phase.name for phase in phases))
    return [_pooled(name, [phase for phase in phases if phase.name == name]) for name in names]


def _pooled(name: str, rounds: Sequence[Phase]) -> Phase:
    joined = Phase(name, 0, sum(phase.duration_s for phase in rounds))
    for phase in rounds:
        if phase.samples is not None:
            joined.samples = joined.samples or Samples()
            joined.samples.add(phase.samples)
    bulks = [phase.bulk for phase in rounds if phase.bulk is not None]
    if bulks:
        joined.bulk = {
            "rows_per_s": _mean([_number(bulk["rows_per_s"]) for bulk in bulks]),
            "tokens_per_s": _mean([_number(bulk["tokens_per_s"]) for bulk in bulks]),
            "failed_rows": sum(int(_number(bulk["failed_rows"])) for bulk in bulks),
            "has_run_out_of_rows": any(bulk["has_run_out_of_rows"] for bulk in bulks),
        }
    joined.cores = {who: _mean([phase.cores[who] for phase in rounds]) for who in rounds[0].cores}
    return joined


def print_table(phases: Sequence[Phase], rows: int, goal_ms: float) -> None:
    """Prints one line a phase."""
    table = Table(title="Latency in ms from the scheduled arrival; rates per second")
    heads = ["phase", "calls", "ok", *(f"p{percent:g}" for percent in PERCENTILES), "max"]
    heads += [f"≤ {goal_ms:g} ms", "rows", "tokens", "bulk rows", "bulk tokens", "cores", "others"]
    for head in heads:
        table.add_column(head, justify="left" if head == "phase" else "right", no_wrap=True)
    for phase in phases:
        table.add_row(*_cells(phase, rows, goal_ms))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


def _cells(phase: Phase, rows: int, goal_ms: float) -> list[str]:
    live = ["–"] * (6 + len(PERCENTILES))
    if phase.samples is not None:
        samples = phase.samples
        good = sum(latency <= goal_ms for latency in samples.latency_ms)
        live = [
            f"{sum(samples.statuses.values())}",
            f"{samples.statuses.get('OK', 0)}",
            *(_cell(value) for value in percentiles(samples.latency_ms).values()),
            f"{good / phase.duration_s:.1f}",
            f"{len(samples.latency_ms) * rows / phase.duration_s:.1f}",
            f"{samples.tokens / phase.duration_s:,.0f}",
        ]
    bulk = ["–", "–"]
    if phase.bulk is not None:
        bulk = [f"{phase.bulk['rows_per_s']:,.0f}", f"{phase.bulk['tokens_per_s']:,.0f}"]
    cores = [f"{phase.cores[who]:.2f}" for who in ("server", "others")]
    return [phase.name, *live, *bulk, *cores]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3)
