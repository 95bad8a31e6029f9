from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.domain.errors import DeadlineUnmeetable, InvalidRequest, Overloaded
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchPlan, Work
from penstock_server.scheduling.queues import DeadlineQueue, QueuedWork
from penstock_server.scheduling.scheduler import LaneKind, Scheduler, SchedulerLimits
from tests.support.costs import FixedCosts
from tests.support.work import make_work

LIMITS = SchedulerLimits(
    live_tokens_max=1000,
    flex_tokens_max=2000,
    bulk_tokens_max=4000,
    live_batch_tokens_max=100,
    bulk_batch_tokens=64,
    lookahead_rows=8,
    live_margin_ns=0,
)


def scheduler() -> Scheduler:
    return Scheduler(LIMITS, FixedCosts())


def plan(target: Scheduler, lane: LaneKind = LaneKind.LIVE, now_ns: int = 0) -> BatchPlan:
    batch = target.plan(lane, now_ns).batch
    assert batch is not None
    return batch


def works_of(batch: BatchPlan) -> list[Work]:
    return [part.work for part in batch.parts]


def test_lane_without_work_gets_no_batch() -> None:
    target = scheduler()
    assert target.plan(LaneKind.LIVE, 0).batch is None
    assert target.plan(LaneKind.BULK, 0).batch is None


def test_earliest_deadline_goes_first_and_no_deadline_last() -> None:
    target = scheduler()
    never, _ = make_work([60])
    late, _ = make_work([60], deadline_ns=200)
    early, _ = make_work([60], deadline_ns=100)
    for work in (never, late, early):
        target.admit(work, 0)
    assert [works_of(plan(target)) for _ in range(3)] == [[early], [late], [never]]


def test_critical_work_goes_before_live_work_with_an_earlier_deadline() -> None:
    target = scheduler()
    live, _ = make_work([60], deadline_ns=10)
    critical, _ = make_work([60], request_class=RequestClass.LIVE_CRITICAL, deadline_ns=1000)
    target.admit(live, 0)
    target.admit(critical, 0)
    assert works_of(plan(target)) == [critical]


def test_live_lane_never_takes_flex_or_bulk() -> None:
    target = scheduler()
    for request_class in (RequestClass.FLEX, RequestClass.BULK):
        target.admit(make_work([10], request_class=request_class)[0], 0)
    assert target.plan(LaneKind.LIVE, 0).batch is None


def test_bulk_lane_takes_flex_before_bulk_and_never_live() -> None:
    target = scheduler()
    bulk, _ = make_work([10], request_class=RequestClass.BULK)
    flex, _ = make_work([10], request_class=RequestClass.FLEX)
    live, _ = make_work([10])
    for work in (bulk, flex, live):
        target.admit(work, 0)
    assert works_of(plan(target, LaneKind.BULK)) == [flex]
    assert works_of(plan(target, LaneKind.BULK)) == [bulk]
    assert target.plan(LaneKind.BULK, 0).batch is None


def test_requests_that_fit_share_a_batch() -> None:
    target = scheduler()
    works = [make_work([20])[0] for _ in range(6)]
    for work in works:
        target.admit(work, 0)
    batch = plan(target)
    assert works_of(batch) == works[:5]
    assert (batch.rows, batch.padded_length, batch.tokens) == (5, 20, 100)


def test_batch_counts_padding_against_its_budget() -> None:
    target = scheduler()
    for length in (10, 60, 10):
        target.admit(make_work([length])[0], 0)
    # 10 and 60 together would be padded to 120 tokens; 10 and 10 fit.
    assert plan(target).rows == 2
    assert plan(target).padded_length == 60


def test_row_longer_than_the_budget_runs_alone() -> None:
    target = scheduler()
    target.admit(make_work([150, 150])[0], 0)
    assert [plan(target).rows, plan(target).rows] == [1, 1]


def test_window_is_cut_into_batches_of_rows_of_like_length() -> None:
    target = scheduler()
    lengths = [3, 60, 5, 30, 4, 31, 8, 7]
    work, _ = make_work(lengths, request_class=RequestClass.BULK)
    target.admit(work, 0)
    batches: list[list[int]] = []
    while (batch := target.plan(LaneKind.BULK, 0).batch) is not None:
        batches.append([lengths[row] for row in batch.parts[0].rows])
    assert batches == [[60], [31, 30], [8, 7, 5, 4, 3]]


@pytest.mark.parametrize(("short_ns", "rows"), [(0, 8), (10**12, 32), (1, 8)])
def test_short_bulk_batch_may_have_four_times_the_tokens(short_ns: int, rows: int) -> None:
    target = Scheduler(replace(LIMITS, bulk_short_ns=short_ns), FixedCosts())
    target.admit(make_work([8] * 40, request_class=RequestClass.BULK)[0], 0)
    assert plan(target, LaneKind.BULK).rows == rows


def test_models_do_not_share_a_batch() -> None:
    target = scheduler()
    other = ModelKey("other", "1")
    target.admit(make_work([10])[0], 0)
    target.admit(make_work([10], model=other)[0], 0)
    assert {plan(target).model, plan(target).model} == {ModelKey("model", "1"), other}


def test_expired_request_is_dropped_before_packing() -> None:
    target = scheduler()
    work, _ = make_work([10, 20], deadline_ns=100)
    alive, _ = make_work([10], deadline_ns=500)
    target.admit(work, 0)
    target.admit(alive, 0)
    decision = target.plan(LaneKind.LIVE, 100)
    assert [(part.work, sorted(part.rows.tolist())) for part in decision.expired] == [(work, [0, 1])]
    assert decision.batch is not None
    assert works_of(decision.batch) == [alive]
    assert target.depth(RequestClass.LIVE).tokens == 0


def test_expired_request_behind_a_head_without_a_deadline_is_dropped_as_well() -> None:
    target = scheduler()
    patient, _ = make_work([10], arrival_ns=0)
    late, _ = make_work([10], deadline_ns=11_000_000_000)
    target.admit(patient, 0)
    target.admit(late, 0)
    decision = target.plan(LaneKind.LIVE, 12_000_000_000)
    assert [part.work for part in decision.expired] == [late]
    assert decision.batch is not None
    assert works_of(decision.batch) == [patient]


def test_deadline_already_past_is_refused() -> None:
    with pytest.raises(DeadlineUnmeetable):
        scheduler().admit(make_work([10], deadline_ns=5)[0], 5)


def test_cancelled_rows_are_not_computed_and_free_their_room() -> None:
    target = scheduler()
    work, _ = make_work([60, 60])
    target.admit(work, 0)
    assert plan(target).rows == 1
    target.cancel(work)
    target.cancel(work)
    assert target.plan(LaneKind.LIVE, 0).batch is None
    assert (target.depth(RequestClass.LIVE).rows, target.depth(RequestClass.LIVE).tokens) == (0, 0)


def test_full_queue_refuses_with_a_delay() -> None:
    target = scheduler()
    target.admit(make_work([900])[0], 0)
    with pytest.raises(Overloaded) as caught:
        target.admit(make_work([200])[0], 0)
    assert caught.value.retry_after_s > 0
    assert target.depth(RequestClass.LIVE).tokens == 900


def test_work_larger_than_the_whole_queue_is_refused_and_shuts_nobody_out() -> None:
    target = scheduler()
    with pytest.raises(InvalidRequest, match="may hold 1,000"):
        target.admit(make_work([600, 600])[0], 0)
    target.admit(make_work([600])[0], 0)


def test_work_larger_than_the_live_queue_may_be_demoted() -> None:
    target = scheduler()
    work, _ = make_work([600, 600])
    target.admit(work, 0, OverloadPolicy.DEMOTE_TO_FLEX)
    assert work.request_class is RequestClass.FLEX


def test_work_without_a_deadline_is_not_overtaken_for_ever() -> None:
    target = scheduler()
    patient, _ = make_work([60], arrival_ns=0)
    target.admit(patient, 0)
    second_ns = 1_000_000_000
    now_s = 0
    while now_s < 30:
        now_s += 1
        now_ns = now_s * second_ns
        target.admit(make_work([60], arrival_ns=now_ns, deadline_ns=now_ns + second_ns)[0], now_ns)
        if patient in works_of(plan(target, now_ns=now_ns)):
            break
    assert patient.started
    assert now_s > 5


def test_cancelled_work_is_freed_though_it_never_reaches_the_head() -> None:
    queue = DeadlineQueue()
    queue.push(QueuedWork.of(make_work([10], deadline_ns=1)[0]))
    for index in range(1000):
        work, _ = make_work([10], deadline_ns=100 + index)
        queue.push(QueuedWork.of(work))
        work.cancelled = True
        queue.note_dead()
    assert len(queue) <= 3


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(OverloadPolicy.DEMOTE_TO_FLEX, RequestClass.FLEX), (OverloadPolicy.DEMOTE_TO_BULK, RequestClass.BULK)],
)
def test_full_queue_demotes_where_the_caller_allows_it(
    policy: OverloadPolicy, expected: RequestClass
) -> None:
    target = scheduler()
    target.admit(make_work([900])[0], 0)
    work, _ = make_work([200])
    target.admit(work, 0, policy)
    assert work.request_class is expected
    assert works_of(plan(target, LaneKind.BULK)) == [work]


def test_overload_never_promotes() -> None:
    target = scheduler()
    target.admit(make_work([3900], request_class=RequestClass.BULK)[0], 0)
    with pytest.raises(Overloaded):
        target.admit(make_work([200], request_class=RequestClass.BULK)[0], 0, OverloadPolicy.DEMOTE_TO_FLEX)


def test_started_tells_whether_a_row_is_in_a_batch() -> None:
    target = scheduler()
    first, _ = make_work([60], deadline_ns=1000)
    second, _ = make_work([60], deadline_ns=2000)
    target.admit(first, 0)
    target.admit(second, 0)
    plan(target)
    assert (first.started, second.started) == (True, False)


requests = st.lists(
    st.tuples(
        st.lists(st.integers(1, 120), min_size=1, max_size=12),
        st.sampled_from(list(RequestClass)),
        st.one_of(st.none(), st.integers(1, 50)),
        st.booleans(),
    ),
    max_size=12,
)


@given(requests)
def test_every_row_is_planned_once_or_expired_once_or_cancelled(
    specs: list[tuple[list[int], RequestClass, int | None, bool]],
) -> None:
    target = Scheduler(LIMITS, FixedCosts())
    admitted: list[Work] = []
    for lengths, request_class, deadline_ns, is_cancelled in specs:
        work, _ = make_work(lengths, request_class=request_class, deadline_ns=deadline_ns)
        try:
            target.admit(work, 0)
        except (Overloaded, InvalidRequest, DeadlineUnmeetable):
            continue
        admitted.append(work)
        if is_cancelled:
            target.cancel(work)
    seen: dict[Work, list[int]] = {work: [] for work in admitted}
    for now_ns in range(400):
        for lane in LaneKind:
            decision = target.plan(lane, now_ns)
            parts = list(decision.expired)
            if decision.batch is not None:
                check_shape(decision.batch, lane)
                parts += decision.batch.parts
            for part in parts:
                seen[part.work] += part.rows.tolist()
    for work in admitted:
        expected = [] if work.cancelled else list(range(len(work.rows)))
        assert sorted(seen[work]) == expected
    assert all(target.depth(request_class).tokens == 0 for request_class in RequestClass)


def check_shape(batch: BatchPlan, lane: LaneKind) -> None:
    lengths = np.concatenate([part.work.tokens.lengths[part.rows] for part in batch.parts])
    assert (batch.rows, batch.padded_length) == (len(lengths), lengths.max())
    assert batch.tokens == lengths.sum()
    budget = LIMITS.live_batch_tokens_max if lane is LaneKind.LIVE else LIMITS.bulk_batch_tokens
    assert batch.rows == 1 or batch.rows * batch.padded_length <= budget
