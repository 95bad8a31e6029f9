"""Figures of policies side by side, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from penstock_server.simulation.checkers import Verdict, check
from penstock_server.simulation.clairvoyant import on_time_at_most
from penstock_server.simulation.metrics import Figures, figures_of
from penstock_server.simulation.runner import (
    BULK_ONLY,
    LIVE_ONLY,
    Run,
    Setting,
    Tick,
    is_peer,
    live_batch_tokens_max,
    rules_of,
    run_policy,
)
from penstock_server.simulation.scenario import NS_PER_S, Scenario

LIVE_COLUMNS = (
    "policy", "p50 ms", "p99 ms", "p99.9 ms", "p50 ×", "p99 ×", "in time", "of bound", "of capacity", "late",
    "refused", "demoted",
)  # fmt: skip
BULK_COLUMNS = (
    "policy", "rows/s", "tokens/s", "harvest", "total", "longest gap ms", "padding", "rows a batch",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy beside the references.

    Attributes:
        figures: Its own.
        inflation: Its live p50 and p99 over those without bulk work; None where one of them is unknown.
        harvest: Bulk tokens a second, over what bulk alone gets times the part of the cores that is left.
        total: Live and bulk tokens a second over what bulk alone gets.
        goodput_of_bound: Calls answered in time, over what a clairvoyant could at most.
        verdicts: What the checkers found; empty if they did not run.
    """

    figures: Figures
    inflation: dict[str, float | None]
    harvest: float | None
    total: float | None
    goodput_of_bound: float | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A scenario under several policies.

    Attributes:
        scenario: As given.
        capacity: Live calls a second that the live lane can compute at best.
        on_time_at_most: The clairvoyant bound, in calls; None without deadlines.
        outcomes: By policy, in the order asked for.
    """

    scenario: Scenario
    capacity: float
    on_time_at_most: int | None
    outcomes: tuple[Outcome, ...]

    @property
    def holds(self) -> bool:
        """Whether no checker found anything."""
        return not any(verdict.count for outcome in self.outcomes for verdict in outcome.verdicts)


def compare(
    setting: Setting, policies: Sequence[str], *, checked: bool, tick: Tick | None = None
) -> Comparison:
    """Runs policies over the same arrivals, and those that they are measured against.

    Args:
        setting: The scenario and its arrivals.
        policies: Names of `POLICIES`.
        checked: Whether the checkers read the records.
        tick: Hears which part of all runs is done.
    """
    names = list(dict.fromkeys([*policies, *_references(setting)]))
    runs: dict[str, Run] = {}
    for index, name in enumerate(names):

        def part(done: float, index: int = index) -> None:
            if tick is not None:
                tick((index + done) / len(names))

        runs[name] = run_policy(name, setting, part)
    figures = {name: figures_of(run) for name, run in runs.items()}
    bound = _bound(setting)
    outcomes = [_outcome(runs[name], figures, bound, checked=checked) for name in policies]
    return Comparison(setting.scenario, setting.capacity, bound, tuple(outcomes))


def _references(setting: Setting) -> list[str]:
    """Live alone and bulk alone, where there are both."""
    has_bulk = bool(setting.scenario.bulk.jobs) or bool(setting.trace is not None and setting.trace.windows)
    return [LIVE_ONLY, BULK_ONLY] if setting.calls and has_bulk else []


def _bound(setting: Setting) -> int | None:
    """What a clairvoyant could do with the calls that count."""
    begin_ns = round(setting.scenario.warm_up_s * NS_PER_S)
    calls = [call for call in setting.calls if call.arrival_ns >= begin_ns and call.is_live]
    if not calls or any(call.deadline_ns is None for call in calls):
        return None
    return on_time_at_most(calls, setting.costs, live_batch_tokens_max(setting.scenario))


def _outcome(run: Run, figures: dict[str, Figures], bound: int | None, *, checked: bool) -> Outcome:
    own, alone = figures[run.policy], figures.get(BULK_ONLY)
    solo = alone.bulk.tokens_per_s if alone is not None and alone.bulk is not None else None
    verdicts = check(run.record, rules_of(run), peer=is_peer(run.policy)) if checked else []
    return Outcome(
        figures=own,
        inflation={name: _ratio(own, figures.get(LIVE_ONLY), name) for name in ("p50", "p99")},
        harvest=own.bulk.tokens_per_s / (solo * (1 - own.live_share))
        if solo and own.bulk is not None
        else None,
        total=own.tokens_per_s / solo if solo else None,
        goodput_of_bound=own.live.on_time / bound if bound and own.live is not None else None,
        verdicts=tuple(verdicts),
    )


def _ratio(own: Figures, reference: Figures | None, percentile: str) -> float | None:
    if own.live is None or reference is None or reference.live is None:
        return None
    ours, theirs = own.live.latency_ms[percentile], reference.live.latency_ms[percentile]
    return None if ours is None or theirs is None else ours / theirs


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "scenario": msgspec.to_builtins(comparison.scenario, enc_hook=str),
        "capacity_calls_per_s": comparison.capacity,
        "on_time_at_most": comparison.on_time_at_most,
        "holds": comparison.holds,
        "policies": {outcome.figures.policy: asdict(outcome) for outcome in comparison.outcomes},
    }


def live_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One line for each policy that met live calls, under `LIVE_COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for outcome in comparison.outcomes:
        live = outcome.figures.live
        if live is not None:
            cells = [
                outcome.figures.policy,
                *(_number(live.latency_ms[name]) for name in ("p50", "p99", "p99.9")),
            ]
            cells += [_number(outcome.inflation[name], 2) for name in ("p50", "p99")]
            cells += [
                f"{live.on_time:,}",
                _percent(outcome.goodput_of_bound),
                _percent(live.goodput_of_capacity),
            ]
            cells += [f"{count:,}" for count in (live.late, sum(live.refused.values()), live.demoted)]
            rows.append(tuple(cells))
    return rows


def bulk_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One line for each policy that met bulk work, under `BULK_COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for outcome in comparison.outcomes:
        bulk, figures = outcome.figures.bulk, outcome.figures
        if bulk is not None:
            lane = figures.lanes.get("bulk") or figures.lanes["live"]
            cells = [figures.policy, f"{bulk.rows_per_s:,.1f}", f"{bulk.tokens_per_s:,.0f}"]
            cells += [_percent(outcome.harvest), _percent(outcome.total), _number(bulk.longest_gap_ms, 0)]
            rows.append((*cells, _percent(_padding(figures)), f"{lane.rows:.1f}"))
    return rows


def _padding(figures: Figures) -> float | None:
    """Part of all computed tokens that is padding."""
    useful = sum(lane.batches * lane.tokens for lane in figures.lanes.values())
    padded = sum(lane.batches * lane.tokens / (1 - lane.padding_waste) for lane in figures.lanes.values())
    return 1 - useful / padded if padded else None


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def caption(comparison: Comparison) -> str:
    """What the numbers are of, in a few lines."""
    scenario, lines = comparison.scenario, list[str]()
    if comparison.capacity:
        lines.append(f"The live lane can compute {comparison.capacity:,.1f} such calls a second at best.")
    if comparison.on_time_at_most is not None:
        lines.append(f"At most {comparison.on_time_at_most:,} can be answered in time.")
    lines.append(
        f"{scenario.duration_s:g} s of arrivals, seed {scenario.seed}. ×: over live alone; of bound: answers "
        "in time over that bound; of capacity: their cost in full batches, over the time."
    )
    lines.append(
        "harvest: bulk, over what live work left of bulk alone; total: all tokens, over bulk alone; longest "
        "gap: between two ends of bulk batches."
    )
    return "\n".join(lines)
