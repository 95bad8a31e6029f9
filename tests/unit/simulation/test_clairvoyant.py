from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.simulation.clairvoyant import on_time_at_most
from penstock_server.simulation.scenario import NS_PER_MS
from tests.support.simulation import call, run_ours, straight_costs, world

# Milliseconds: when calls come, how many tokens they have.
jobs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=7)


def best_by_trying(found: list[tuple[int, int]], patience_ms: int) -> int:
    """The most jobs in time: of all sets of jobs, run in order of arrival, one at a time."""
    ordered = sorted(found)
    for size in range(len(ordered), 0, -1):
        for chosen in combinations(ordered, size):
            free_ms, fits = 0.0, True
            for begin_ms, tokens in chosen:
                free_ms = max(free_ms, begin_ms) + cheapest_ms(tokens)
                fits = fits and free_ms <= begin_ms + patience_ms
            if fits:
                return size
    return 0


def cheapest_ms(tokens: int) -> float:
    return straight_costs().live.cheapest_row_ns(tokens, 512) / NS_PER_MS


@settings(deadline=None)
@given(jobs, st.integers(1, 50))
def test_bound_is_that_of_the_best_choice(found: list[tuple[int, int]], patience_ms: int) -> None:
    calls = [call(at_ms, [tokens], deadline_ms=patience_ms) for at_ms, tokens in sorted(found)]
    assert on_time_at_most(calls, straight_costs(), 512) == best_by_trying(found, patience_ms)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30), st.integers(1, 80)), max_size=12))
def test_no_run_answers_more_in_time_than_the_bound(found: list[tuple[int, int, int]]) -> None:
    calls = [call(at_ms, [tokens], deadline_ms=patience) for at_ms, tokens, patience in sorted(found)]
    run = run_ours(world(calls))
    in_time = sum(
        work.is_answered and (work.done_ns or 0) <= (work.call.deadline_ns or 0) for work in run.record.works
    )
    assert in_time <= on_time_at_most(calls, straight_costs(), 512)


def test_calls_without_deadlines_do_not_count() -> None:
    assert on_time_at_most([call(0.0), call(1.0)], straight_costs(), 512) == 0
