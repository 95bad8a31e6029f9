from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.domain.lane import LaneKind
from penstock_server.scheduling.cost import CostTable
from penstock_server.scheduling.cost_learning import make_monotone

SEED = 20261124


def true_ns(rows: int, length: int) -> float:
    """A machine that is not like the prior: dear small batches, and attention that is felt."""
    tokens = rows * length
    return (1_200_000 + tokens * (60_000 + 180 * length)) * (1 + 0.25 * math.exp(-tokens / 64))


def batches(count: int, noise: float, stalls: float = 0.0) -> Iterator[tuple[int, int, int]]:
    """Shapes as live traffic has them, with durations that scatter; a stall takes up to ten times as long."""
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        rows = int(rng.geometric(0.35))
        length = int(min(256, 6 + rng.lognormal(3.0, 0.8)))
        factor = math.exp(rng.normal(0, noise)) * (rng.uniform(2, 10) if rng.random() < stalls else 1.0)
        yield rows, length, int(true_ns(rows, length) * factor)


def taught(count: int = 1500, noise: float = 0.03, stalls: float = 0.0) -> CostTable:
    table = CostTable(LaneKind.LIVE, 256)
    for rows, length, duration_ns in batches(count, noise, stalls):
        table.observe(rows, length, duration_ns)
    return table


def errors(table: CostTable, count: int = 1000, noise: float = 0.0) -> list[float]:
    """By how much actual costs exceed predicted medians, relatively."""
    rng = np.random.default_rng(SEED + 1)
    return [
        true_ns(rows, length) * math.exp(rng.normal(0, noise)) / table.predict(rows, length).median_ns - 1
        for rows, length, _ in batches(count, 0.0)
    ]


def is_monotone(table: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> bool:
    return bool((np.diff(table, axis=0) >= 0).all() and (np.diff(table, axis=1) >= 0).all())


observations = st.lists(
    st.tuples(st.integers(1, 300), st.integers(1, 600), st.integers(1, 10**13)), min_size=1, max_size=60
)


@settings(deadline=None)
@given(observations)
def test_table_stays_positive_and_monotone_whatever_happens(seen: list[tuple[int, int, int]]) -> None:
    table = CostTable(LaneKind.LIVE, 256)
    for rows, length, duration_ns in seen:
        table.observe(rows, length, duration_ns)
        assert is_monotone(table.median_ns)
        assert is_monotone(table.upper_ns)
        assert (table.median_ns > 0).all()
        assert (table.upper_ns > table.median_ns).all()
        assert np.isfinite(table.upper_ns).all()


@settings(deadline=None)
@given(observations)
def test_predictions_grow_with_rows_and_length(seen: list[tuple[int, int, int]]) -> None:
    table = CostTable(LaneKind.BULK, 256)
    for rows, length, duration_ns in seen:
        table.observe(rows, length, duration_ns)
    for rows, length, _ in seen:
        assert table.predict(rows, length).upper_ns > 0
        here = table.predict(min(rows, 127), min(length, 255))
        assert here.median_ns <= table.predict(min(rows, 127) + 1, min(length, 255)).median_ns * (1 + 1e-9)
        assert here.upper_ns <= table.predict(min(rows, 127), min(length, 255) + 1).upper_ns * (1 + 1e-9)


@given(st.lists(st.lists(st.floats(1, 1e9), min_size=5, max_size=5), min_size=2, max_size=6))
def test_making_a_table_monotone_keeps_what_is_in_order(rows: list[list[float]]) -> None:
    table = np.array(rows)
    smallest, largest = table.min(), table.max()
    make_monotone(table)
    assert is_monotone(table)
    assert table.min() >= smallest
    assert table.max() <= largest
    before = table.copy()
    make_monotone(table)
    assert (table == before).all()


def test_learning_is_deterministic() -> None:
    assert (taught(300).upper_ns == taught(300).upper_ns).all()


def test_medians_converge_on_a_machine_unlike_the_prior() -> None:
    wrong = [abs(error) for error in errors(taught())]
    assert np.median(wrong) < 0.02
    assert np.quantile(wrong, 0.9) < 0.06


def test_upper_costs_are_exceeded_by_at_most_one_batch_in_a_hundred() -> None:
    table = CostTable(LaneKind.LIVE, 256)
    exceeded = 0
    for number, (rows, length, duration_ns) in enumerate(batches(6000, 0.05)):
        exceeded += number >= 1000 and duration_ns > table.predict(rows, length).upper_ns
        table.observe(rows, length, duration_ns)
    assert exceeded <= 50
    # And not by being useless: the true quantile is 12 % above the median.
    cost = table.predict(2, 40)
    assert 1.10 < cost.upper_ns / cost.median_ns < 1.45


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_change_of_the_whole_machine_is_believed_within_twenty_batches(factor: float) -> None:
    table = taught()
    for rows, length, duration_ns in batches(20, 0.03):
        table.observe(rows, length, int(factor * duration_ns))
    # Also where none of the twenty was.
    off = [factor * (1 + error) - 1 for error in errors(table)]
    assert abs(np.median(off)) < 0.05
    assert table.drift == pytest.approx(taught().drift * factor, rel=0.1)


def test_change_of_the_whole_machine_does_not_widen_the_upper_cost() -> None:
    table = taught()
    before = table.predict(4, 40)
    for rows, length, duration_ns in batches(40, 0.03):
        table.observe(rows, length, 2 * duration_ns)
    after = table.predict(4, 40)
    assert after.upper_ns / after.median_ns < 1.05 * before.upper_ns / before.median_ns


def test_stall_moves_no_median_and_widens_the_upper_cost_a_little() -> None:
    table, same = taught(), taught()
    table.observe(4, 40, int(10 * true_ns(4, 40)))
    same.observe(4, 40, int(true_ns(4, 40)))
    assert table.predict(4, 40).median_ns == pytest.approx(same.predict(4, 40).median_ns, rel=0.01)
    # The stall is judged once it leaves the window.
    for rows, length, duration_ns in batches(20, 0.03):
        table.observe(rows, length, duration_ns)
        same.observe(rows, length, duration_ns)
    assert 1.0 < table.predict(4, 40).upper_ns / same.predict(4, 40).upper_ns < 1.1


def test_one_stall_in_a_hundred_leaves_medians_right() -> None:
    table = taught(3000, stalls=0.01)
    assert np.median(np.abs(errors(table))) < 0.02


def test_stalls_that_come_often_do_not_make_the_upper_cost_useless() -> None:
    table = taught(3000, noise=0.15, stalls=0.05)
    assert np.median(np.abs(errors(table))) < 0.1
    cost = table.predict(2, 40)
    assert 1.5 < cost.upper_ns / cost.median_ns < 2.1


def test_upper_cost_follows_a_machine_that_becomes_restless() -> None:
    table = taught(1500, noise=0.02)
    quiet = table.predict(2, 40)
    exceeded = 0
    for number, (rows, length, duration_ns) in enumerate(batches(300, 0.15)):
        exceeded += number >= 100 and duration_ns > table.predict(rows, length).upper_ns
        table.observe(rows, length, duration_ns)
    assert exceeded <= 6
    restless = table.predict(2, 40)
    assert restless.upper_ns / restless.median_ns > 1.1 * quiet.upper_ns / quiet.median_ns


def test_first_observation_scales_the_whole_prior() -> None:
    table, prior = CostTable(LaneKind.LIVE, 256), CostTable(LaneKind.LIVE, 256)
    table.observe(1, 8, int(10 * prior.predict(1, 8).median_ns))
    assert table.predict(64, 256).median_ns == pytest.approx(10 * prior.predict(64, 256).median_ns)
    assert table.drift == 1.0


def test_unknown_neighbours_learn_more_than_known_ones() -> None:
    def after(teach: Callable[[CostTable], None]) -> float:
        table = CostTable(LaneKind.LIVE, 256)
        teach(table)
        before = table.predict(12, 32).median_ns
        # The first only fills the window, so that the surprise of the last is no drift.
        for factor in (1.0,) * 15 + (1.4,):
            table.observe(8, 32, int(factor * table.predict(8, 32).median_ns))
        return table.predict(12, 32).median_ns / before

    def know_the_neighbour(table: CostTable) -> None:
        for _ in range(50):
            table.observe(12, 32, int(table.predict(12, 32).median_ns))

    assert after(lambda table: None) > after(know_the_neighbour) >= 1.0


def test_state_goes_on_in_another_table() -> None:
    table = taught()
    later = CostTable(LaneKind.LIVE, 256)
    assert later.restore(table.state())
    assert later.median_ns == pytest.approx(table.median_ns)
    assert np.median(np.abs(errors(later))) < 0.02
    assert later.observations == 0


def test_restored_table_is_not_moved_by_a_slow_first_batch() -> None:
    table = CostTable(LaneKind.LIVE, 256)
    assert table.restore(taught().state())
    before = table.predict(64, 256).median_ns
    table.observe(1, 8, int(10 * true_ns(1, 8)))
    assert table.predict(64, 256).median_ns == pytest.approx(before, rel=0.01)


def test_restored_table_follows_a_machine_that_has_changed() -> None:
    table = CostTable(LaneKind.LIVE, 256)
    assert table.restore(taught().state())
    for rows, length, duration_ns in batches(20, 0.03):
        table.observe(rows, length, 3 * duration_ns)
    assert abs(np.median(errors(table)) + 2 / 3) < 0.05


def test_state_that_does_not_fit_changes_nothing() -> None:
    good = taught(100).state()
    holes = [row[:-1] for row in good.median_ns]
    wrong = [
        CostTable(LaneKind.LIVE, 512).state(),
        replace(good, median_ns=holes),
        replace(good, median_ns=[*holes[:-1], good.median_ns[-1]]),
        replace(good, median_ns=[[0.0] * len(row) for row in good.median_ns]),
        replace(good, tails=[[math.nan] * len(row) for row in good.tails]),
        replace(good, scatter=0.0),
        replace(good, scatter=math.nan),
        replace(good, seen=[[-1.0] * len(row) for row in good.seen]),
    ]
    table = CostTable(LaneKind.LIVE, 256)
    before = table.upper_ns.copy()
    for state in wrong:
        assert not table.restore(state)
    assert (table.upper_ns == before).all()
