from __future__ import annotations

import os
import random
import time
from itertools import pairwise

import pytest

from benchmarks.generator import Samples, arrivals
from benchmarks.machine import read_cpu_time
from benchmarks.report import Phase, live_figures, percentiles, pooled


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    times = list(arrivals(random.Random("seed 1"), 50.0, 200.0))
    gaps = [b - a for a, b in pairwise(times)]
    mean_s = sum(gaps) / len(gaps)
    variance = sum((gap - mean_s) ** 2 for gap in gaps) / len(gaps)

    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] < 200.0
    # Gaps of a Poisson process have the mean 1 / rate and as much deviation; 10,000 of them are close to it.
    assert mean_s == pytest.approx(1 / 50.0, rel=0.04)
    assert variance**0.5 == pytest.approx(mean_s, rel=0.06)


def test_arrivals_repeat_with_their_seed() -> None:
    first, again, other = (list(arrivals(random.Random(seed), 20.0, 5.0)) for seed in ("a", "a", "b"))

    assert first == again != other


def test_percentiles_are_nearest_ranks_and_left_out_where_samples_are_too_few() -> None:
    found = percentiles([float(value) for value in range(200, 0, -1)])

    assert found == {"p50": 100.0, "p90": 180.0, "p95": 190.0, "p99": 198.0, "p99.9": None, "max": 200.0}
    assert percentiles([7.0])["p50"] is None
    assert percentiles([]) == {"p50": None, "p90": None, "p95": None, "p99": None, "p99.9": None, "max": None}


def test_goodput_counts_answers_within_the_goal_and_errors_count_as_calls() -> None:
    samples = Samples(latency_ms=[10.0, 100.0, 101.0], tokens=30, statuses={"OK": 3, "RESOURCE_EXHAUSTED": 2})
    figures = live_figures(samples, duration_s=2.0, rows=4, goal_ms=100.0)

    assert figures["calls"] == 5
    assert figures["goodput_calls_per_s"] == 1.0
    assert figures["rows_per_s"] == 6.0
    assert figures["tokens_per_s"] == 15.0


def test_rounds_are_pooled_by_samples_not_by_their_percentiles() -> None:
    phases = [
        Phase("live", 1, 2.0, Samples([1.0] * 90, statuses={"OK": 90}), cores={"server": 1.0}),
        Phase("bulk", 1, 2.0, bulk=_bulk(10.0), cores={"server": 2.0}),
        Phase("live", 2, 2.0, Samples([9.0] * 10, statuses={"OK": 10}), cores={"server": 0.5}),
        Phase("bulk", 2, 2.0, bulk=_bulk(30.0), cores={"server": 2.0}),
    ]
    live, bulk = pooled(phases)

    assert live.samples is not None
    assert percentiles(live.samples.latency_ms)["p50"] == 1.0
    assert percentiles(live.samples.latency_ms)["p95"] == 9.0
    assert (live.duration_s, live.cores, live.samples.statuses) == (4.0, {"server": 0.75}, {"OK": 100})
    assert bulk.bulk is not None
    assert bulk.bulk["tokens_per_s"] == 20.0
    assert len(phases[0].samples.latency_ms if phases[0].samples else []) == 90


def test_processor_time_is_told_apart_by_process() -> None:
    before = read_cpu_time(time.monotonic(), None, [os.getpid()])
    used_until_s = time.process_time() + 0.3
    while time.process_time() < used_until_s:
        pass
    cores = read_cpu_time(time.monotonic(), None, [os.getpid()]).cores_since(before)

    assert cores["server"] == 0.0
    assert 0.1 < cores["clients"] <= 1.1
    assert cores["machine"] >= cores["clients"] - 0.1


def _bulk(tokens_per_s: float) -> dict[str, object]:
    return {"rows_per_s": 1.0, "tokens_per_s": tokens_per_s, "failed_rows": 0, "has_run_out_of_rows": False}
