from __future__ import annotations

import numpy as np
import pytest

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import TOKENS_MAX, ModelKey
from penstock_server.scheduling.cost import ROW_POINTS, CostModels, CostTable, axis_to

MODEL = ModelKey("model", "1")


def table(tokens_max: int = 256, lane: LaneKind = LaneKind.LIVE) -> CostTable:
    return CostTable(lane, tokens_max)


@pytest.mark.parametrize(
    ("tokens_max", "last"),
    [(1, 16), (8, 16), (16, 16), (200, 256), (256, 256), (513, 1024), (TOKENS_MAX, TOKENS_MAX)],
)
def test_lengths_reach_just_to_the_longest_row(tokens_max: int, last: int) -> None:
    points = axis_to(tokens_max).points
    assert points[-1] == last
    assert list(points) == sorted(set(points))


def test_prediction_at_a_grid_point_is_the_table() -> None:
    target = table()
    for row, rows in enumerate(target.row_points.tolist()):
        for column, length in enumerate(target.length_points.tolist()):
            cost = target.predict(rows, length)
            assert cost.median_ns == pytest.approx(target.median_ns[row, column])
            assert cost.upper_ns == pytest.approx(target.upper_ns[row, column])


def test_prediction_between_grid_points_is_bilinear() -> None:
    target = table()
    target.median_ns[:] = np.multiply.outer(target.row_points, target.length_points)
    assert target.predict(5, 100).median_ns == pytest.approx(500)
    assert target.predict(127, 17).median_ns == pytest.approx(127 * 17)


def test_prediction_is_linear_beyond_the_table_and_constant_below() -> None:
    target = table()
    target.median_ns[:] = np.multiply.outer(target.row_points, target.length_points)
    assert target.predict(400, 40).median_ns == pytest.approx(16_000)
    assert target.predict(4, 1000).median_ns == pytest.approx(4000)
    assert target.predict(4, 3).median_ns == target.predict(4, 8).median_ns


def test_batches_above_the_table_teach_its_last_cells() -> None:
    target = table()
    before = target.predict(128, 256).median_ns
    for _ in range(30):
        target.observe(300, 700, int(2 * target.predict(300, 700).median_ns))
    assert target.predict(128, 256).median_ns > 2 * before


def test_arrays_are_changed_in_place() -> None:
    target = table()
    medians, uppers = target.median_ns, target.upper_ns
    target.observe(8, 32, 1_000_000)
    assert target.median_ns is medians
    assert target.upper_ns is uppers
    assert medians.flags.c_contiguous
    assert target.predict(8, 32).median_ns == pytest.approx(1_000_000)


def test_duration_of_nothing_is_no_measurement() -> None:
    target = table()
    before = target.median_ns.copy()
    target.observe(8, 32, 0)
    assert target.observations == 0
    assert (target.median_ns == before).all()


def bent(target: CostTable) -> None:
    """Rows cost alike up to 8, then in proportion, but 24 cost as much as 32: as accelerators do."""
    for row, rows in enumerate(ROW_POINTS):
        target.median_ns[row] = max(8, 32 if rows == 24 else rows) * target.length_points
    target.upper_ns[:] = target.median_ns * 2


def test_efficient_batches_leave_out_those_that_a_smaller_one_beats() -> None:
    target = table()
    bent(target)
    assert target.efficient_points(32) == (1, 2, 3, 4, 6, 8)
    target.median_ns[10:] *= 0.5
    fresh = table()
    fresh.median_ns[:] = target.median_ns
    assert fresh.efficient_points(32) == (1, 2, 3, 4, 6, 8, 48)


def test_best_batch_is_the_smallest_within_two_percent() -> None:
    target = table()
    bent(target)
    target.median_ns[8:] *= 0.985
    assert target.best_rows(32) == 8
    assert target.best_tokens(32) == 256


def test_best_bulk_batch_is_the_largest_within_fifteen_percent() -> None:
    target = table(lane=LaneKind.BULK)
    bent(target)
    target.median_ns[ROW_POINTS.index(48) :] *= 1.1
    target.median_ns[ROW_POINTS.index(96) :] *= 1.2
    assert target.best_rows(32) == 64


def test_rows_within_a_time_are_those_of_the_grid() -> None:
    target = table(lane=LaneKind.BULK)
    target.median_ns[:] = np.multiply.outer(target.row_points, target.length_points) * 50_000
    assert target.rows_within(32, 40e6) == 24
    assert target.rows_within(64, 40e6) == 12
    assert target.rows_within(64, 3e6) == 0


def test_full_batch_stays_under_the_cap_but_for_one_row() -> None:
    target = table()
    target.median_ns[:] = 100 + np.multiply.outer(target.row_points, target.length_points)
    target.upper_ns[:] = target.median_ns * 1.5
    assert target.full_batch(32) == target.best_rows(32)
    assert target.full_batch(32, cap_ns=1.5 * (100 + 4 * 32)) == 4
    assert target.full_batch(32, cap_ns=1.5 * (100 + 4 * 32) - 1) == 3
    assert target.full_batch(32, cap_ns=0) == 1


def test_sizes_follow_what_is_learnt() -> None:
    target = table()
    assert target.best_rows(32) > 1
    # A row costs less alone than in company.
    for _ in range(100):
        target.observe(1, 32, 100_000)
        for rows in ROW_POINTS[1:]:
            target.observe(rows, 32, rows * 150_000)
    assert target.best_rows(32) == 1


def test_sweep_scales_the_whole_table_and_sets_what_it_ran_often() -> None:
    target, prior = table(), table()
    runs = {(1, 8): [4e6, 9e6, 4e6], (8, 64): [100e6, 101e6, 99e6], (4, 32): [20e6]}
    target.seed(runs)
    assert target.predict(1, 8).median_ns == pytest.approx(4e6, rel=0.02)
    assert target.predict(8, 64).median_ns == pytest.approx(100e6, rel=0.02)
    # Ran once, so it counts for the scale of the table only.
    assert target.predict(4, 32).median_ns != pytest.approx(20e6, rel=0.02)
    assert target.predict(128, 256).median_ns != prior.predict(128, 256).median_ns
    assert target.observations == 0


def test_models_have_one_table_for_each_lane_and_always_one() -> None:
    costs = CostModels()
    costs.add(MODEL, 256)
    live = costs.table(MODEL, LaneKind.LIVE)
    assert costs.table(MODEL, LaneKind.LIVE) is live
    assert costs.table(MODEL, LaneKind.BULK) is not live
    assert live.length_points[-1] == 256
    unheard_of = costs.table(ModelKey("model", "2"), LaneKind.LIVE)
    assert unheard_of.length_points[-1] == TOKENS_MAX
    costs.add(MODEL, 512)
    assert costs.table(MODEL, LaneKind.LIVE) is live
    assert len(list(costs.tables())) == 3


def test_a_token_costs_less_in_a_full_batch_than_alone() -> None:
    target = table()
    assert 0 < target.ns_per_token(64) < target.predict(1, 64).median_ns / 64
