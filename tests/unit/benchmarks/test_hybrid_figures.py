from __future__ import annotations

import math

import pytest

from benchmarks.hybrid.clients.fates import Tally, fate
from benchmarks.hybrid.figures import (
    Course,
    goodput,
    harvest,
    live_share,
    median,
    ratio,
    solo_share,
)
from benchmarks.hybrid.report import Outcome, summary
from benchmarks.hybrid.schedule import Stream, schedule
from benchmarks.hybrid.servers.bare import batches


def test_course_is_steady_between_points_and_average_beyond() -> None:
    course = Course.of([(10.0, 0, 0), (12.0, 4, 400), (14.0, 14, 500)])

    assert course.tokens_at(11.0) == 200.0
    assert course.rows_at(13.0) == 9.0
    assert course.time_of(400) == 12.0
    assert course.time_of(450) == 13.0
    assert course.time_of(750) == 16.0
    assert course.rates(11.0, 13.0) == (3.5, 125.0)


def test_time_of_a_stretch_counts_the_stops_before_it() -> None:
    course = Course.of([(0.0, 0, 0), (1.0, 1, 100), (5.0, 1, 100), (6.0, 2, 200)])

    # 100 tokens were there at 1 s; whatever comes after them took until 5 s to begin.
    assert course.time_of(100) == 1.0
    assert course.time_of(150) == 5.5


def test_course_without_progress_is_refused() -> None:
    with pytest.raises(ValueError, match="has not moved"):
        Course.of([(0.0, 0, 0), (9.0, 0, 0)])


def test_gap_is_the_longest_stop_within_the_stretch_and_at_its_ends() -> None:
    course = Course.of([(0.0, 0, 0), (3.0, 1, 10), (4.0, 1, 10), (5.0, 2, 20), (6.0, 3, 30), (20.0, 4, 40)])

    assert course.gap_s(2.0, 7.0) == 2.0
    assert course.gap_s(5.5, 9.5) == 3.5
    assert course.gap_s(6.5, 9.5) == 3.0


def test_solo_share_compares_the_same_tokens_although_their_cost_differs() -> None:
    # Alone the first 100 tokens take 1 s and the next 100 take 3 s; beside live calls all take twice as long.
    alone = Course.of([(0.0, 0, 0), (1.0, 10, 100), (4.0, 20, 200)])
    beside = Course.of([(50.0, 0, 0), (52.0, 10, 100), (58.0, 20, 200)])

    assert solo_share(beside, 50.0, 52.0, alone) == pytest.approx(0.5)
    assert solo_share(beside, 51.0, 55.0, alone) == pytest.approx(0.5)
    assert solo_share(alone, 0.5, 3.5, alone) == pytest.approx(1.0)


def test_live_share_leaves_out_what_the_server_takes_when_idle() -> None:
    assert live_share(live_cpu_s=12.0, idle_cpu_s=2.0, elapsed_s=20.0, cores=2) == 0.25
    assert live_share(live_cpu_s=1.0, idle_cpu_s=2.0, elapsed_s=20.0, cores=2) == 0.0


def test_harvest_is_all_when_bulk_takes_what_live_leaves() -> None:
    assert harvest(0.75, 0.25) == 1.0
    assert harvest(0.6, 0.25) == pytest.approx(0.8)
    assert harvest(0.1, 1.0) == math.inf


def test_median_and_ratio_leave_out_what_is_missing() -> None:
    assert median([3.0, None, 1.0, 2.0]) == 2.0
    assert median([None]) is None
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is None
    assert ratio(3.0, 0.0) is None


@pytest.mark.parametrize(
    ("status", "elapsed_s", "expected"),
    [
        ("OK", 0.5, "good"),
        ("OK", 0.501, "late"),
        ("RESOURCE_EXHAUSTED", 0.01, "refused"),
        ("UNAVAILABLE", 0.3, "refused"),
        ("HTTP_429", 0.01, "refused"),
        ("DEADLINE_EXCEEDED", 0.1, "refused"),
        # Nobody told the caller in time: it was admitted and left to die.
        ("DEADLINE_EXCEEDED", 0.5, "late"),
        ("HTTP_408", 0.499, "late"),
        ("INTERNAL", 0.1, "failed"),
    ],
)
def test_fate_of_a_call(status: str, elapsed_s: float, expected: str) -> None:
    assert fate(status, elapsed_s, 0.5) == expected


def test_tally_notes_when_good_answers_were_there() -> None:
    tally = Tally()
    tally.count("OK", at_s=2.0, elapsed_s=0.25, deadline_s=0.5, tokens=7)
    tally.count("OK", at_s=3.0, elapsed_s=0.75, deadline_s=0.5, tokens=9)
    tally.count("RESOURCE_EXHAUSTED", at_s=4.0, elapsed_s=0.001, deadline_s=0.5, tokens=11)

    assert tally.good == [(2.25, 7)]
    assert tally.latency_ms == [250.0, 750.0]
    assert tally.fates == {"good": 1, "late": 1, "refused": 1}


def test_goodput_counts_by_the_time_of_the_answer() -> None:
    answers = [(0.1, 5), (0.6, 10), (1.9, 20), (2.1, 40)]

    assert goodput(answers, 0.5, 2.0) == (2 / 1.5, 30 / 1.5)


def test_schedule_repeats_with_its_seed_and_streams_do_not_disturb_each_other() -> None:
    calm, flood = Stream(5.0, "calm"), Stream(50.0, "flood")
    alone = schedule([calm], 20.0, 100, "seed")
    both = schedule([calm, flood], 20.0, 100, "seed")

    assert [arrival for arrival in both if arrival.tenant == "calm"] == alone
    assert [arrival.at_s for arrival in both] == sorted(arrival.at_s for arrival in both)
    assert schedule([calm, flood], 20.0, 100, "seed") == both != schedule([calm, flood], 20.0, 100, "other")
    assert {arrival.text for arrival in both} <= set(range(100))
    assert len(both) == pytest.approx(1_100, rel=0.15)


def test_bare_loop_packs_every_row_once_within_its_budget() -> None:
    rows = [[1] * length for length in (3, 256, 8, 8, 100, 1, 300)]
    packed = list(batches(rows, 256))

    assert sorted(int(length) for _, mask in packed for length in mask.sum(axis=1)) == sorted(map(len, rows))
    assert all(ids.size <= 256 or len(ids) == 1 for ids, _ in packed)
    assert [ids.shape[1] for ids, _ in packed] == sorted((ids.shape[1] for ids, _ in packed), reverse=True)


def test_summary_takes_medians_over_the_rounds_of_each_contestant() -> None:
    outcomes = [
        Outcome("hybrid", "penstock", 1, {"p99": 5.0, "share": 0.5}),
        Outcome("hybrid", "triton", 1, {"p99": 50.0}),
        Outcome("hybrid", "penstock", 2, {"p99": 9.0, "share": None}),
        Outcome("hybrid", "penstock", 3, {"p99": 6.0, "share": 0.7}),
        Outcome("hybrid", "triton", 2, {}, "did not start"),
    ]

    assert summary(outcomes) == {
        "hybrid": {"penstock": {"p99": 6.0, "share": 0.6}, "triton": {"p99": 50.0}},
    }
