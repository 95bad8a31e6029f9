"""What is measured in a contestant's turn; each work gives figures by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.hybrid.clients.fates import FAILED, GOOD, LATE, REFUSED, Tally
from benchmarks.hybrid.clients.loads import Shape
from benchmarks.hybrid.corpora import Corpus
from benchmarks.hybrid.figures import goodput, harvest, live_share, ratio, solo_share
from benchmarks.hybrid.models import MODEL_FOLDER
from benchmarks.hybrid.plan import Plan
from benchmarks.hybrid.processes import ROOT
from benchmarks.hybrid.schedule import Stream
from benchmarks.hybrid.turn import NO_DEADLINE_S, Stretch, Turn
from benchmarks.report import percentiles
from benchmarks.texts import TextKind
from penstock_server.config import usable_cores

Figures: TypeAlias = dict[str, float | None]
# Enough single texts in flight for full batches, and less than half a second of work.
_SATURATION = Shape(rows=1, in_flight=64, is_bulk=False, is_repeated=True)
_IDLE_S_MAX = 5.0
CALM, FLOOD = "calm", "flood"
_CALM_PART, _FLOOD_TIMES = 0.2, 10
_TENANT_DEADLINE_S = 1.0
# Tokens of a bulk batch by default (LaneConfig.bulk_batch_tokens), on one core.
_UNIT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Task:
    """What a work needs beside the turn."""

    plan: Plan
    round: int
    corpora: Mapping[TextKind, Corpus]

    @property
    def seed(self) -> str:
        """Of this round: all contestants have the same."""
        return f"{self.plan.seed}/{self.round}"


def hybrid(turn: Turn, task: Task) -> Figures:
    """Live alone, live beside bulk, bulk alone; every other round the other way round."""
    plan = task.plan
    streams = [Stream(plan.rate)]
    idle = turn.idle(min(_IDLE_S_MAX, plan.seconds))
    first = turn.live(streams, plan.seconds, task.seed) if task.round % 2 else turn.bulk(plan.seconds)
    turn.begin_bulk()
    beside = turn.end_bulk(turn.live(streams, plan.seconds, task.seed))
    last = turn.bulk(plan.seconds) if task.round % 2 else turn.live(streams, plan.seconds, task.seed)
    live, bulk = (first, last) if task.round % 2 else (last, first)
    figures = _latencies("live", live) | _latencies("beside", beside)
    figures["p50_inflation"] = ratio(figures["beside_p50_ms"], figures["live_p50_ms"])
    figures["p99_inflation"] = ratio(figures["beside_p99_ms"], figures["live_p99_ms"])
    figures |= _bulk_figures(live, beside, bulk, idle)
    figures["others_cores_max"] = max(stretch.cores["others"] for stretch in (live, beside, bulk))
    return figures


def _latencies(name: str, stretch: Stretch) -> Figures:
    tally = stretch.tallies[""]
    found = percentiles(_latency_ms(tally, NO_DEADLINE_S))
    lag = percentiles(tally.lag_ms)
    return {
        f"{name}_p50_ms": found["p50"],
        f"{name}_p99_ms": found["p99"],
        f"{name}_unanswered": float(sum(tally.statuses.values()) - len(tally.latency_ms)),
        f"{name}_client_lag_p99_ms": lag["p99"],
    }


def _latency_ms(tally: Tally, deadline_s: float) -> list[float]:
    """Latencies of all calls; one without an answer counts with the whole time that it was given."""
    unanswered = sum(tally.statuses.values()) - len(tally.latency_ms)
    return tally.latency_ms + [deadline_s * 1e3] * unanswered


def _bulk_figures(live: Stretch, beside: Stretch, bulk: Stretch, idle: Stretch) -> Figures:
    assert beside.course is not None
    assert bulk.course is not None
    alone_rows, alone_tokens = bulk.course.rates(bulk.begin_s, bulk.end_s)
    beside_rows, beside_tokens = beside.course.rates(beside.begin_s, beside.end_s)
    elapsed_s = live.end_s - live.begin_s
    idle_cpu_s = idle.cpu_s * elapsed_s / (idle.end_s - idle.begin_s)
    taken = live_share(live.cpu_s, idle_cpu_s, elapsed_s, usable_cores())
    share = solo_share(beside.course, beside.begin_s, beside.end_s, bulk.course)
    return {
        "bulk_alone_rows_per_s": alone_rows,
        "bulk_alone_tokens_per_s": alone_tokens,
        "bulk_beside_rows_per_s": beside_rows,
        "bulk_beside_tokens_per_s": beside_tokens,
        "live_share": taken,
        "bulk_share": share,
        "harvest": harvest(share, taken),
        "bulk_errors": float(sum(beside.errors.values()) + sum(bulk.errors.values())),
    }


def throughput(turn: Turn, task: Task) -> Figures:
    """Whole files of rows."""
    figures: Figures = {}
    for kind in task.plan.throughput_texts:
        stretch = turn.whole_bulk(task.corpora[kind])
        elapsed_s = stretch.end_s - stretch.begin_s
        figures[f"{kind}_rows_per_s"] = task.corpora[kind].rows / elapsed_s
        figures[f"{kind}_tokens_per_s"] = task.corpora[kind].tokens / elapsed_s
        figures[f"{kind}_errors"] = float(sum(stretch.errors.values()))
    return figures


def bare_throughput(task: Task) -> Figures:
    """The bare loop over the same rows, sorted by length."""
    figures: Figures = {}
    for kind in task.plan.throughput_texts:
        corpus = task.corpora[kind]
        command = [sys.executable, "-m", "benchmarks.hybrid.servers.bare", str(MODEL_FOLDER)]
        command += [str(corpus.path), str(usable_cores()), str(_UNIT_TOKENS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        elapsed_s = float(json.loads(done.stdout)["elapsed_s"])
        figures[f"{kind}_rows_per_s"] = corpus.rows / elapsed_s
        figures[f"{kind}_tokens_per_s"] = corpus.tokens / elapsed_s
    return figures


def overload(turn: Turn, task: Task) -> Figures:
    """More live calls than the server can answer, each worthless after its deadline."""
    plan = task.plan
    rows, tokens = _capacity(turn, plan.seconds)
    deadline_s = plan.deadline_ms / 1e3
    figures: Figures = {"capacity_rows_per_s": rows, "capacity_tokens_per_s": tokens}
    for factor in plan.factors:
        stretch = turn.live([Stream(rows * factor)], plan.seconds, f"{task.seed}/{factor}", deadline_s)
        tally = stretch.tallies[""]
        # The first answers come out of an empty server, and the last after the last call: neither counts.
        good_rows, good_tokens = goodput(tally.good, deadline_s, plan.seconds)
        figures |= {
            f"x{factor:g}_goodput_rows_per_s": good_rows,
            f"x{factor:g}_goodput": good_rows / rows,
            f"x{factor:g}_goodput_tokens": good_tokens / tokens,
            **{f"x{factor:g}_{name}": value for name, value in _fates(tally).items()},
            f"x{factor:g}_client_lag_p99_ms": percentiles(tally.lag_ms)["p99"],
        }
    return figures


def _capacity(turn: Turn, duration_s: float) -> tuple[float, float]:
    """Live rows and tokens a second, with as many calls in flight as fill its batches."""
    stretch = turn.saturate(_SATURATION, duration_s)
    assert stretch.course is not None
    return stretch.course.rates(stretch.begin_s, stretch.end_s)


def _fates(tally: Tally) -> Figures:
    calls = sum(tally.fates.values())
    good, late = tally.fates.get(GOOD, 0), tally.fates.get(LATE, 0)
    return {
        "late_of_admitted": ratio(float(late), float(good + late)),
        "refused": ratio(float(tally.fates.get(REFUSED, 0)), float(calls)),
        "failed": ratio(float(tally.fates.get(FAILED, 0)), float(calls)),
    }


def tenants(turn: Turn, task: Task) -> Figures:
    """A tenant's latency beside one that asks as much, and beside one that asks ten times as much."""
    plan = task.plan
    rate = _CALM_PART * _capacity(turn, min(plan.seconds, 10.0))[0]
    figures: Figures = {"calm_rows_per_s": rate}
    for name, times in (("equal", 1), ("flood", _FLOOD_TIMES)):
        streams = [Stream(rate, CALM), Stream(rate * times, FLOOD)]
        stretch = turn.live(streams, plan.seconds, task.seed, _TENANT_DEADLINE_S)
        calm = stretch.tallies[CALM]
        found = percentiles(_latency_ms(calm, _TENANT_DEADLINE_S))
        figures |= {f"{name}_p50_ms": found["p50"], f"{name}_p99_ms": found["p99"]}
        figures |= {f"{name}_calm_{fate}": value for fate, value in _fates(calm).items()}
        figures[f"{name}_flood_good_per_s"] = len(stretch.tallies[FLOOD].good) / plan.seconds
    figures["p50_inflation"] = ratio(figures["flood_p50_ms"], figures["equal_p50_ms"])
    figures["p99_inflation"] = ratio(figures["flood_p99_ms"], figures["equal_p99_ms"])
    return figures


def saturated(turn: Turn, task: Task) -> Figures:
    """Bulk work beside live calls that never leave the server idle: its share and its longest stop."""
    plan = task.plan
    alone = turn.bulk(plan.seconds)
    assert alone.course is not None
    live_rows, _ = _capacity(turn, plan.seconds)
    turn.begin_bulk()
    live = turn.saturate(_SATURATION, plan.seconds)
    assert live.course is not None
    live_beside_rows, _ = live.course.rates(live.begin_s, live.end_s)
    beside = turn.end_bulk(Stretch(live.begin_s, live.end_s, live.cores))
    assert beside.course is not None
    unit_s = _UNIT_TOKENS * usable_cores() / alone.course.rates(alone.begin_s, alone.end_s)[1]
    gap_s = beside.course.gap_s(beside.begin_s, beside.end_s)
    return {
        "bulk_share": solo_share(beside.course, beside.begin_s, beside.end_s, alone.course),
        "gap_ms": gap_s * 1e3,
        "unit_ms": unit_s * 1e3,
        "gap_units": gap_s / unit_s,
        "live_rows_per_s": live_rows,
        "live_beside_rows_per_s": live_beside_rows,
    }


Work: TypeAlias = Callable[[Turn, Task], Figures]
WORKS: Mapping[str, Work] = {
    "hybrid": hybrid,
    "throughput": throughput,
    "overload": overload,
    "tenants": tenants,
    "saturated": saturated,
}
