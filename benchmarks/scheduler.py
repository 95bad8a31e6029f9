"""Times one admission and one plan at 10,000 waiting rows, and what a look at them in plain Python takes.

    python -m benchmarks.scheduler --out result.json

Queues hold 10,000 works of one row each, or ten works of 1,000 rows. Lengths are log-normal around 25 tokens;
costs are the prior of the cost tables. Each figure is the median of a few thousand calls, and p99 beside it:
other work of the machine is in both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import describe_machine
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchTimes, Work
from penstock_server.scheduling.cost import CostModels
from penstock_server.scheduling.limits import SchedulerLimits
from penstock_server.scheduling.scheduler import Scheduler
from tests.support.work import make_work

ROWS = 10_000
_CALLS = 2000
_TENANTS = 20
_HOUR_NS = 3_600_000_000_000
_DUE_NS = 10_000_000_000
_LIMITS = SchedulerLimits(
    live_tokens_max=1 << 30,
    flex_tokens_max=1 << 30,
    bulk_tokens_max=1 << 30,
    live_batch_tokens_max=512,
    bulk_batch_tokens=512,
    lookahead_rows=64,
)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Where the figures go, as JSON.")
@click.option("--seed", default=1, show_default=True, help="Of the lengths.")
def main(out: Path | None, seed: int) -> None:
    """Times the scheduler's calls with 10,000 rows waiting."""
    figures = {
        f"{name}, {len(counts):,} works of {counts[0]:,}": times
        for counts in ([1] * ROWS, [ROWS // 10] * 10)
        for name, times in _measure(counts, np.random.default_rng(seed)).items()
    }
    for name, times in figures.items():
        print(f"{name:58} {times['median_us']:8.2f} us   p99 {times['p99_us']:8.2f} us")
    if out is not None:
        out.write_text(json.dumps({"machine": describe_machine(), "figures": figures}, indent=2) + "\n")


def _measure(counts: list[int], random: np.random.Generator) -> dict[str, dict[str, float]]:
    """Times all calls at a queue that is kept at its size."""
    scheduler = Scheduler(_LIMITS, CostModels())
    for number, count in enumerate(counts):
        scheduler.admit(_work(random, count, number), number)
    single = [_work(random, 1, number) for number in range(_CALLS)]
    admitted = _times(lambda number: scheduler.admit(single[number], number), _CALLS)
    cancelled = _times(lambda number: scheduler.cancel(single[number]), _CALLS)
    hurried = [_work(random, 1, number, deadline_ns=10**9) for number in range(_CALLS)]
    hopeless = [_work(random, 20, number, deadline_ns=10_000_000) for number in range(_CALLS)]
    demoted = _times(
        lambda number: scheduler.admit(hurried[number], 0, OverloadPolicy.DEMOTE_TO_FLEX), _CALLS
    )
    refused = _times(lambda number: _refused(scheduler, hopeless[number]), _CALLS)
    # Half of the rows at most, so that many still wait.
    planned = _times(lambda number: scheduler.plan(LaneKind.LIVE, 0), 500)
    completed = _completed(scheduler)
    for number, count in enumerate(counts):
        scheduler.admit(_work(random, count, number, RequestClass.BULK), 0)
    bulk = _times(lambda number: scheduler.plan(LaneKind.BULK, 0), 500)
    many = _jobs(counts)
    due = _due(counts)
    return {
        "admit": admitted,
        "cancel": cancelled,
        "admit, with a deadline": demoted,
        "refuse": refused,
        "plan live": planned,
        "complete": completed,
        "plan bulk": bulk,
        "plan bulk, a job for each work": _times(lambda number: many.plan(LaneKind.BULK, 0), 300),
        "plan live, all of FLEX due": _times(lambda number: due.plan(LaneKind.LIVE, _DUE_NS), 300),
    }


def _jobs(counts: list[int]) -> Scheduler:
    """A scheduler with a job for each work."""
    random, scheduler = np.random.default_rng(1), Scheduler(_LIMITS, CostModels())
    for number, count in enumerate(counts):
        work = _work(random, count, number, RequestClass.BULK)
        work.flow = f"job {number}"
        scheduler.admit(work, 0)
    return scheduler


def _due(counts: list[int]) -> Scheduler:
    """A scheduler with FLEX works whose deadlines have come near."""
    random, scheduler = np.random.default_rng(1), Scheduler(_LIMITS, CostModels())
    for count in counts:
        scheduler.admit(_work(random, count, 0, RequestClass.FLEX, _DUE_NS + 45_000_000), 0)
    return scheduler


def _completed(scheduler: Scheduler) -> dict[str, float]:
    plan = scheduler.plan(LaneKind.LIVE, 0).batch
    assert plan is not None
    duration_ns = plan.predicted_ns
    times = BatchTimes(0, duration_ns, duration_ns)
    return _times(lambda _: scheduler.complete(LaneKind.LIVE, plan, times), 500)


def _refused(scheduler: Scheduler, work: Work) -> None:
    try:
        scheduler.admit(work, 0)
    except Exception:  # noqa: BLE001 - whichever refusal it is
        return


def _work(
    random: np.random.Generator,
    rows: int,
    number: int,
    request_class: RequestClass = RequestClass.LIVE,
    deadline_ns: int = _HOUR_NS,
) -> Work:
    lengths = np.clip(random.lognormal(np.log(25), 0.7, rows), 4, 256).astype(int).tolist()
    work, _ = make_work(lengths, request_class=request_class, deadline_ns=deadline_ns + number)
    work.tenant = f"tenant {number % _TENANTS}"
    return work


def _times(call: Callable[[int], object], calls: int) -> dict[str, float]:
    taken_ns = np.empty(calls)
    for number in range(calls):
        start_ns = time.perf_counter_ns()
        call(number)
        taken_ns[number] = time.perf_counter_ns() - start_ns
    return {
        "median_us": float(np.median(taken_ns)) / 1e3,
        "p99_us": float(np.percentile(taken_ns, 99)) / 1e3,
    }


if __name__ == "__main__":
    main()
