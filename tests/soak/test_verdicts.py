"""Verdicts fail where they must, and only there."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.soak.ledger import Ledger
from tests.soak.verdicts import (
    JUDGED_FROM_S,
    Ending,
    ending_verdict,
    handle_verdict,
    health_verdict,
    ledger_verdicts,
    load_verdict,
    log_verdict,
    memory_verdicts,
    queue_verdict,
    slope_per_s,
)
from tests.soak.watch import SERVER, WORKER, Course, Sample

MIB = 1 << 20
MINUTES_20 = 1200


def samples(memory: Callable[[float], float], seconds: int = MINUTES_20) -> list[Sample]:
    """Both processes, every second, with the noise of an allocator."""
    chance = random.Random(1)
    noise = [chance.gauss(0, 2) for _ in range(seconds)]
    return [
        Sample(float(at_s), process, 1, round((memory(at_s) + noise[at_s]) * MIB), 40, 20)
        for at_s in range(seconds)
        for process in (SERVER, WORKER)
    ]


def flat(_: float) -> float:
    return 300


def warming_up(at_s: float) -> float:
    return 200 + 100 * min(1, at_s / 240)


def stepping(at_s: float) -> float:
    return 300 + 5 * (at_s > 700)


def falling(at_s: float) -> float:
    return 300 - at_s / 60


def leaking(at_s: float) -> float:
    return 300 + 1.5 * at_s / 60


def leaping(at_s: float) -> float:
    return 300 + 40 * (at_s > 600)


def leaking_late(at_s: float) -> float:
    return 300 + 0.3 * max(0, at_s - 900)


@pytest.mark.parametrize(
    ("memory", "holds"),
    [
        (flat, True),
        (warming_up, True),
        (stepping, True),
        (falling, True),
        (leaking, False),
        (leaping, False),
        (leaking_late, False),
    ],
)
def test_memory_that_rises_is_found(memory: Callable[[float], float], holds: bool) -> None:
    assert [verdict.holds for verdict in memory_verdicts(samples(memory))] == [holds, holds]


def test_one_process_that_leaks_is_found_beside_one_that_does_not() -> None:
    still = [each for each in samples(flat) if each.process == SERVER]
    rising = [each for each in samples(leaking) if each.process == WORKER]
    assert [verdict.holds for verdict in memory_verdicts([*still, *rising])] == [True, False]


def test_memory_of_a_short_run_is_not_judged() -> None:
    short = samples(leaking, seconds=int(JUDGED_FROM_S) - 1)
    assert [verdict.holds for verdict in memory_verdicts(short)] == [None, None]
    assert handle_verdict(short).holds is None
    assert [verdict.holds for verdict in memory_verdicts([])] == [None, None]


@pytest.mark.parametrize("what", ["files", "threads"])
def test_files_and_threads_that_rise_are_found(what: str) -> None:
    still = samples(flat)
    assert handle_verdict(still).holds
    rising = [
        replace(each, files=20 + int(each.at_s) // 30)
        if what == "files"
        else replace(each, threads=20 + int(each.at_s) // 30)
        for each in still
    ]
    assert handle_verdict(rising).holds is False


def test_the_slope_is_that_of_a_line() -> None:
    assert slope_per_s([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx(2)


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        (json.dumps({"level": "info", "event": "rpc", "code": "OK"}), True),
        (json.dumps({"level": "info", "event": "rpc", "code": "INVALID_ARGUMENT"}), True),
        (json.dumps({"level": "info", "event": "rpc", "code": "INTERNAL"}), False),
        (json.dumps({"level": "info", "event": "rpc", "code": "UNKNOWN"}), False),
        (json.dumps({"level": "error", "event": "incident"}), False),
        (json.dumps({"level": "warning", "exception": "Traceback (most recent call last)"}), False),
        ("Traceback (most recent call last):", False),
        ("  penstock bulk submit rows.csv", True),
    ],
)
def test_faults_in_the_log_are_found(line: str, holds: bool) -> None:
    assert log_verdict(f"Penstock is here\n{line}\n").holds is holds


def test_what_still_waits_is_found() -> None:
    course = Course(waiting={"penstock_queue_rows live": 0.0, "penstock_rpcs_in_flight": 0.0})
    assert queue_verdict(course, is_alive=True).holds
    assert not queue_verdict(course, is_alive=False).holds
    assert not queue_verdict(Course(), is_alive=True).holds
    course.waiting["penstock_queue_rows live"] = 1.0
    assert queue_verdict(course, is_alive=True).told == ("penstock_queue_rows live is 1",)


def test_health_must_have_been_asked_and_good() -> None:
    assert health_verdict(Course(health_checks=5)).holds
    assert not health_verdict(Course()).holds
    assert not health_verdict(Course(health_checks=5, unhealthy=["at 3 s: NOT_SERVING"])).holds


@pytest.mark.parametrize(
    ("ending", "holds"),
    [
        (Ending(0, 1.0), True),
        (Ending(0, 60.0), False),
        (Ending(None, 5.0), False),
        (Ending(-11, 1.0), False),
        (Ending(0, 1.0, (4711,)), False),
    ],
)
def test_a_server_must_end_in_time_and_alone(ending: Ending, holds: bool) -> None:
    assert ending_verdict(ending).holds is holds


def test_a_gesture_that_was_never_made_is_found() -> None:
    ledger = Ledger([("client", [{"entry": "did", "what": "flood"}, {"entry": "bye"}])])
    assert load_verdict(ledger, ["flood"]).holds
    assert load_verdict(ledger, ["flood", "paused"]).told == ("paused never happened",)


def test_a_finding_of_the_ledger_is_a_verdict() -> None:
    assert all(verdict.holds for verdict in ledger_verdicts(Ledger([("client", [{"entry": "bye"}])])))
    broken = ledger_verdicts(Ledger([("client", [])]))
    assert [verdict.name for verdict in broken if not verdict.holds] == ["clients went on"]
