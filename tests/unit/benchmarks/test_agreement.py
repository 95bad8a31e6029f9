"""The figures that simulator and server are compared by, and the cutting of a trace."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from benchmarks.agreement.caller import Answered
from benchmarks.agreement.figures import (
    Figures,
    agrees,
    medians,
    of_server,
    of_simulator,
    percentile,
    quotients,
)
from benchmarks.agreement.replay import Speed, cut, read_records
from penstock_server.domain.trace import TraceRecord
from penstock_server.simulation.runner import OURS, prepare, run_policy
from penstock_server.simulation.scenario import BulkJob, BulkTraffic, LiveTraffic, Noise, Scenario

MS = 1_000_000
S = 1_000_000_000


def answered(sent_s: float, total: float = 30.0) -> Answered:
    return Answered(sent_s, 0.1, total + 2, "OK", total, 1.0, 8.0, 20.0, 2, 32)


def test_a_server_is_measured_from_its_dispatcher_on() -> None:
    calls = [answered(0.0), answered(1.0, total=50.0), Answered(2.0, 0.0, 30_000.0, "DEADLINE_EXCEEDED")]
    figures = of_server(calls, 4.0, 100.0)
    assert (figures.p50_ms, figures.p99_ms) == (29.0, 49.0)
    assert figures.live_rows_per_s == 0.5
    assert (figures.queue_p50_ms, figures.compute_p50_ms, figures.rest_p50_ms) == (8.0, 20.0, 1.0)
    assert figures.batch_rows == 2


def test_a_simulation_is_measured_by_the_same_clock() -> None:
    live = LiveTraffic(rate=10)
    noise = Noise(sigma=0, drift_sigma=0, stalls_per_s=0)
    bulk = BulkTraffic(jobs=(BulkJob(),))
    scenario = Scenario(duration_s=10, live=live, noise=noise, bulk=bulk)
    record = run_policy(OURS, prepare(scenario)).record
    figures = of_simulator(record, 2 * S, 8.0)
    late = [work for work in record.works if work.is_live and work.call.arrival_ns >= 2 * S]
    assert figures.live_rows_per_s == len(late) / 8
    assert figures.p50_ms <= figures.p99_ms
    # Beside waiting and computing there is only what the machine takes for answers.
    assert figures.rest_p99_ms == pytest.approx(scenario.machine.answer_us / 1e3, abs=0.01)
    assert figures.queue_p50_ms + figures.compute_p50_ms == pytest.approx(figures.p50_ms, rel=0.5)
    tokens = sum(
        part.tokens
        for batch in record.batches
        if 2 * S <= batch.end_ns < 10 * S
        for part in batch.parts
        if not part.work.is_live
    )
    assert figures.bulk_tokens_per_s == tokens / 8 > 0


def test_the_speed_of_a_server_is_what_its_calls_show(tmp_path: Path) -> None:
    costs = tmp_path / "costs"
    costs.mkdir()
    for lane in ("live", "bulk"):
        table = {"row_points": [1, 4], "length_points": [8, 64], "median_ns": [[1e7, 2e7], [1e7, 4e7]]}
        stored = {"key": {"model": "minilm@1", "lane": lane}, "table": table}
        (costs / f"{lane}.json").write_text(json.dumps(stored))
    calls = [answered(0.0), answered(1.0, total=33.0), Answered(2.0, 0.0, 30_000.0, "DEADLINE_EXCEEDED")]
    speed = Speed.measured(calls, costs, tmp_path / "residuals")
    assert (speed.gap_ms, speed.rest_ms) == (8.0, 2.5)
    # Two rows of 32 tokens take 120 / 7 ms by the table, between its points.
    assert speed.noise.residuals == tmp_path / "residuals"
    lines = [float(line) for line in (tmp_path / "residuals").read_text().split()]
    assert lines == pytest.approx([7 / 6, 7 / 6], rel=1e-3)


def test_live_calls_alone_have_no_bulk_rate() -> None:
    record = run_policy(OURS, prepare(Scenario(duration_s=5, live=LiveTraffic(rate=10)))).record
    assert math.isnan(of_simulator(record, 0, 5.0).bulk_tokens_per_s)


@pytest.mark.parametrize(
    ("quotient", "holds"),
    [(1.0, True), (1.1, True), (0.91, True), (1.11, False), (0.9, False), (math.nan, True)],
)
def test_ten_percent_count_from_either_side(quotient: float, holds: bool) -> None:
    assert agrees(quotient) is holds


def test_medians_and_quotients() -> None:
    base = Figures(*[float(number) for number in range(1, 12)])
    middle = medians([base, replace(base, p50_ms=9.0), replace(base, p50_ms=3.0)])
    assert middle == replace(base, p50_ms=3.0)
    assert quotients(middle, base)["p50_ms"] == 3.0
    assert math.isnan(quotients(base, replace(base, p99_ms=0.0))["p99_ms"])


def test_percentiles_are_nearest_ranks() -> None:
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(list(range(1, 101)), 99) == 99
    assert math.isnan(percentile([], 50))


def trace() -> list[TraceRecord]:
    """Two stretches of two tenants, each with a job of two windows, 100 s after the trace began."""
    return [
        TraceRecord(arrival_ns=0, class_name="LIVE", tokens=[9], tenant="t1"),
        *(
            record
            for number, begin_ns in ((1, 100 * S), (2, 200 * S))
            for record in (
                TraceRecord(arrival_ns=begin_ns, class_name="BULK", tokens=[5, 6], flow=f"j{number}"),
                TraceRecord(
                    arrival_ns=begin_ns + 2 * S,
                    class_name="LIVE",
                    tokens=[number],
                    tenant=f"t{number + 1}",
                    deadline_ns=begin_ns + 3 * S,
                ),
                TraceRecord(arrival_ns=begin_ns + 4 * S, class_name="BULK", tokens=[7], flow=f"j{number}"),
            )
        ),
    ]


def test_a_stretch_is_cut_out_with_its_job_and_begins_at_its_first_window(tmp_path: Path) -> None:
    # On the client's clock the trace began at 1,000 s; a call takes a millisecond to the server.
    calls = [answered(1202.0 - 0.001)]
    replay = cut(trace(), "t3", "j2", calls, 1201.5, tmp_path / "cut.jsonl")
    records = read_records(replay.path)
    assert [(record.class_name, record.arrival_ns, record.tokens) for record in records] == [
        ("BULK", 0, [5, 6]),
        ("LIVE", 2 * S, [2]),
        ("BULK", 4 * S, [7]),
    ]
    assert records[1].deadline_ns == 3 * S
    assert replay.begin_ns == pytest.approx(1.5 * S, abs=2 * MS)


def test_a_stretch_without_a_job_begins_when_it_was_measured(tmp_path: Path) -> None:
    replay = cut(trace(), "t2", "", [answered(1102.0)], 1101.0, tmp_path / "cut.jsonl")
    (record,) = read_records(replay.path)
    assert (record.arrival_ns, replay.begin_ns) == (S, 0)


def test_a_trace_that_lacks_calls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 calls of t2, but 2 were sent"):
        cut(trace(), "t2", "", [answered(1.0), answered(2.0)], 0.0, tmp_path / "cut.jsonl")


def test_calls_survive_the_way_from_the_client() -> None:
    call = answered(1.5)
    assert msgspec.convert(msgspec.to_builtins(call), Answered) == call
