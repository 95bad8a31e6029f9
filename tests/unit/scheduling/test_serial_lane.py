"""A live lane that runs bulk work as well, as on a GPU: what fills its batches, and what may block it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.domain.errors import DeadlineUnmeetable, Overloaded
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPlan, Work
from penstock_server.scheduling.limits import SerialLimits
from tests.unit.scheduling.test_promises import BATCH_NS, LIMITS, MS, OTHER, TOKEN_NS, Lane

BLOCK_NS, AHEAD_NS = 3 * MS, 100_000
SERIAL = replace(LIMITS, serial=SerialLimits(block_ns=BLOCK_NS, fill_ns_max=50 * MS, bind_ahead_ns=AHEAD_NS))


def serial() -> Lane:
    return Lane(SERIAL)


def batch_of(lane: Lane) -> BatchPlan:
    batch = lane.run()
    assert batch is not None
    return batch


def lengths_of(batch: BatchPlan, work: Work) -> list[int]:
    return [
        int(length)
        for part in batch.parts
        if part.work is work
        for length in part.work.tokens.lengths[part.rows]
    ]


def test_live_batch_is_filled_with_bulk_rows_that_fit_under_its_longest() -> None:
    lane = serial()
    bulk = lane.submit([60, 19, 20, 21, 5, 20], None, RequestClass.BULK)
    lane.submit([20, 20], 100 * MS)
    batch = batch_of(lane)
    # 5 would be padded to 20, and costs less among its like; 21 and 60 are too long.
    assert lengths_of(batch, bulk) == [20, 20, 19]
    assert (batch.rows, batch.padded_length, batch.tokens) == (5, 20, 99)
    assert batch.predicted_ns == round(BATCH_NS + 100 * TOKEN_NS)
    left = [lengths_of(batch_of(lane), bulk) for _ in range(2)]
    assert sorted(length for lengths in left for length in lengths) == [5, 21, 60]


def test_batch_is_filled_up_to_half_of_the_time_that_its_callers_allow() -> None:
    lane = serial()
    lane.submit([20] * 100, None, RequestClass.BULK)
    lane.submit([20], 5 * MS)
    batch = batch_of(lane)
    # (5 - 0) / 2 = 2.5 ms: 1 ms for a batch and 0.4 for each of three rows.
    assert (batch.rows, batch.predicted_ns) == (3, round(2.2 * MS))


def test_batch_is_not_filled_where_others_that_wait_cannot_bear_it() -> None:
    lane = serial()
    lane.submit([20] * 100, None, RequestClass.BULK)
    lane.submit([80], 40 * MS, RequestClass.LIVE_CRITICAL)
    tight_ns = round(2 * (BATCH_NS + 80 * TOKEN_NS)) + MS
    tight = lane.submit([80], tight_ns)
    batch = batch_of(lane)
    assert batch.predicted_ns <= round(BATCH_NS + 80 * TOKEN_NS) + MS
    lane.run()
    assert lane.ends[tight] <= tight_ns


def test_bulk_has_its_part_of_what_fills_batches_beside_flex() -> None:
    lane = Lane(replace(SERIAL, bulk_share=0.1, bulk_beside_flex=0.2))
    flex, bulk = (
        lane.submit([20] * 3_000, None, each, flow=each.name)
        for each in (RequestClass.FLEX, RequestClass.BULK)
    )
    for _ in range(300):
        lane.submit([20], 100 * MS)
        batch_of(lane)
    assert lane.rows[flex] > 0
    assert lane.rows[bulk] >= 0.15 * (lane.rows[flex] + lane.rows[bulk])


def test_rows_of_another_model_do_not_fill_a_batch() -> None:
    lane = serial()
    lane.submit([20] * 10, None, RequestClass.BULK, model=OTHER)
    lane.submit([20], 100 * MS)
    assert batch_of(lane).rows == 1


def test_bulk_alone_runs_in_batches_that_block_for_no_longer_than_they_may() -> None:
    lane = serial()
    lane.submit([20] * 30 + [150], None, RequestClass.BULK)
    batches = [batch_of(lane) for _ in range(4)]
    # A row of 150 tokens takes 4 ms by itself; 4 rows of 20 take 2.6 and are the next efficient size.
    assert [batch.rows for batch in batches] == [1, 4, 4, 4]
    assert all(batch.predicted_ns <= BLOCK_NS for batch in batches[1:])


def test_call_is_admitted_behind_what_is_left_of_a_bulk_batch() -> None:
    lane = serial()
    lane.submit([20] * 8, None, RequestClass.BULK)
    block_ns = batch_of(lane).predicted_ns
    alone_ns = round(BATCH_NS + 20 * TOKEN_NS)
    with pytest.raises(Overloaded):
        lane.submit([20], block_ns + alone_ns - MS // 2)
    with pytest.raises(DeadlineUnmeetable):
        lane.submit([20], alone_ns - 1)
    lane.now_ns = MS
    work = lane.submit([20], block_ns + alone_ns - MS // 2)
    while lane.run() is not None:
        pass
    assert lane.ends[work] <= MS + block_ns + alone_ns - MS // 2


def test_next_batch_is_chosen_just_before_the_running_one_ends() -> None:
    lane = serial()
    scheduler = lane.scheduler
    assert scheduler.choice_ns(5) == 5
    lane.submit([20] * 100, None, RequestClass.BULK)
    first = batch_of(lane)
    assert scheduler.choice_ns(0) == first.predicted_ns - AHEAD_NS
    lane.now_ns = first.predicted_ns - AHEAD_NS
    second = scheduler.plan(LaneKind.LIVE, lane.now_ns).batch
    assert second is not None
    assert scheduler.choice_ns(lane.now_ns) == first.predicted_ns + second.predicted_ns - AHEAD_NS
    # A call that comes now waits for both, and is promised no less.
    alone_ns = round(BATCH_NS + 20 * TOKEN_NS)
    with pytest.raises(Overloaded):
        lane.submit([20], AHEAD_NS + second.predicted_ns + alone_ns - 1)
    lane.submit([20], AHEAD_NS + second.predicted_ns + alone_ns)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 60)), max_size=40), st.floats(0.2, 1.0))
def test_whatever_comes_is_in_time_beside_bulk_that_never_ends(
    found: list[tuple[int, int]], speed: float
) -> None:
    """G3 on a serial lane: calls come while a batch runs, filled or not; who is admitted is on time."""
    lane = serial()
    lane.submit([1, 5, 20, 20, 40, 80] * 60, None, RequestClass.BULK)
    works: list[Work] = []
    for length, patience_ms in found:
        try:
            works.append(lane.submit([length], patience_ms * MS))
        except (Overloaded, DeadlineUnmeetable):
            lane.run(speed)
        lane.now_ns = min(lane.free_ns, lane.now_ns + MS)
    while lane.waits(RequestClass.LIVE):
        lane.run(speed)
    for work in works:
        assert work.deadline_ns is not None
        assert lane.ends[work] <= work.deadline_ns
