"""What the scheduler promises, held against arrivals made to break it, on lanes as slow as predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.domain.errors import DeadlineUnmeetable, InvalidRequest, Overloaded
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchPlan, BatchTimes, Work
from penstock_server.runtime.dispatcher import split
from penstock_server.scheduling.limits import SchedulerLimits, TenantPolicy
from penstock_server.scheduling.scheduler import Scheduler
from penstock_server.scheduling.tenants import Tenants
from tests.support.costs import FixedCosts
from tests.support.work import MODEL, make_work

OTHER = ModelKey("other", "1")
MS = 1_000_000
LIMITS = SchedulerLimits(
    live_tokens_max=100_000,
    flex_tokens_max=100_000,
    bulk_tokens_max=100_000,
    live_batch_tokens_max=160,
    bulk_batch_tokens=160,
    lookahead_rows=8,
    live_margin_ns=0,
    bulk_share=0.0,
    quantum_ns=2 * MS,
)
# A batch costs 1 ms and a token 0.02: eight rows of 20 tokens cost 4.2 ms, eight batches of one 11.2.
BATCH_NS, TOKEN_NS = 1.0 * MS, 0.02 * MS
FULL_NS = round(BATCH_NS + 160 * TOKEN_NS)


@dataclass
class Lane:
    """The live lane on a clock of its own, and what has run on it."""

    limits: SchedulerLimits = LIMITS
    now_ns: int = 0
    free_ns: int = 0
    live_ns: int = 0
    bulk_ns: int = 0
    running: tuple[BatchPlan, int] | None = None
    ends: dict[Work, int] = field(default_factory=dict[Work, int])
    rows: Counter[Work] = field(default_factory=Counter[Work])
    served_ns: Counter[str] = field(default_factory=Counter[str])
    expired: list[Work] = field(default_factory=list[Work])

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.limits, FixedCosts(BATCH_NS, TOKEN_NS))

    def submit(
        self,
        lengths: list[int],
        after_ns: int | None = None,
        request_class: RequestClass = RequestClass.LIVE,
        *,
        tenant: str = "",
        model: ModelKey = MODEL,
        overload: OverloadPolicy = OverloadPolicy.REJECT,
        flow: str = "",
        weight: float = 1.0,
    ) -> Work:
        """Admits work now, or raises."""
        deadline_ns = None if after_ns is None else self.now_ns + after_ns
        work, _ = make_work(
            lengths,
            request_class=request_class,
            deadline_ns=deadline_ns,
            arrival_ns=self.now_ns,
            model=model,
        )
        work.tenant, work.flow, work.weight = tenant, flow, weight
        self.scheduler.admit(work, self.now_ns, overload)
        return work

    def run(self, speed: float = 1.0) -> BatchPlan | None:
        """Waits until the lane is free and runs the next batch, if there is one, at a part of its cost."""
        self.now_ns = max(self.now_ns, self.free_ns)
        if self.running is not None:
            plan, start_ns = self.running
            times = BatchTimes(start_ns, self.free_ns, self.free_ns - start_ns)
            self.scheduler.complete(LaneKind.LIVE, plan, times)
            self.running = None
        decision = self.scheduler.plan(LaneKind.LIVE, self.now_ns)
        self.expired += [part.work for part in decision.expired]
        if decision.batch is not None:
            self._start(decision.batch, speed)
        return decision.batch

    def _start(self, plan: BatchPlan, speed: float) -> None:
        cost_ns = round(plan.predicted_ns * speed)
        self.running, self.free_ns = (plan, self.now_ns), self.now_ns + cost_ns
        for part in plan.parts:
            self.rows[part.work] += len(part.rows)
            self.ends[part.work] = self.free_ns
            tokens = int(part.work.tokens.lengths[part.rows].sum())
            self.served_ns[part.work.tenant] += round(plan.predicted_ns * tokens / plan.tokens)
        if plan.parts[0].work.request_class > RequestClass.LIVE:
            self.bulk_ns += cost_ns
        else:
            self.live_ns += cost_ns

    def waits(self, *classes: RequestClass) -> int:
        """Rows of these classes that wait."""
        return sum(self.scheduler.depth(each).rows for each in classes)


@dataclass(frozen=True, slots=True)
class Arrive:
    """Live rows arrive."""

    lengths: list[int]
    request_class: RequestClass
    after_ns: int | None
    tenant: str
    model: ModelKey


@dataclass(frozen=True, slots=True)
class ArriveLater:
    """Rows arrive that are in no hurry."""

    lengths: list[int]
    request_class: RequestClass


@dataclass(frozen=True, slots=True)
class Run:
    """The lane takes a batch, and needs this part of what was predicted."""

    speed: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody who waits goes away."""

    number: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Time passes."""

    duration_ns: int


Gesture = Arrive | ArriveLater | Run | Cancel | Wait
arrivals = st.builds(
    Arrive,
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=12),
    request_class=st.sampled_from([RequestClass.LIVE_CRITICAL, RequestClass.LIVE]),
    after_ns=st.none() | st.integers(1, 60 * MS),
    tenant=st.sampled_from("abc"),
    model=st.sampled_from([MODEL, OTHER]),
)
later_arrivals = st.builds(
    ArriveLater,
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    request_class=st.sampled_from([RequestClass.FLEX, RequestClass.BULK]),
)
gestures: st.SearchStrategy[list[Gesture]] = st.lists(
    st.one_of(
        arrivals,
        arrivals,
        later_arrivals,
        st.builds(Run, speed=st.floats(0.1, 1.0)),
        st.builds(Cancel, number=st.integers(0, 50)),
        st.builds(Wait, duration_ns=st.integers(0, 20 * MS)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(gestures, st.sampled_from([0.0, 0.1]))
def test_what_is_admitted_is_on_time_and_nothing_is_lost(found: list[Gesture], share: float) -> None:
    """G3, G6 and the sums: whatever comes and goes, while batches cost at most what is predicted."""
    lane = Lane(replace(LIMITS, bulk_share=share))
    works: list[Work] = []
    for gesture in found:
        match gesture:
            case Arrive(lengths, request_class, after_ns, tenant, model):
                try:
                    works.append(lane.submit(lengths, after_ns, request_class, tenant=tenant, model=model))
                except (Overloaded, DeadlineUnmeetable, InvalidRequest):
                    continue
            case ArriveLater(lengths, request_class):
                works.append(lane.submit(lengths, None, request_class))
            case Run(speed):
                live_waits = lane.waits(RequestClass.LIVE_CRITICAL, RequestClass.LIVE) > 0
                assert (lane.run(speed) is not None) == live_waits
            case Cancel(number):
                if works:
                    lane.scheduler.cancel(works[number % len(works)])
            case Wait(duration_ns):
                # Time passes only while a batch runs: a lane that idles while work waits promises nothing.
                lane.now_ns = max(lane.now_ns, min(lane.free_ns, lane.now_ns + duration_ns))
    while lane.run() is not None:
        pass
    while (batch := lane.scheduler.plan(LaneKind.BULK, lane.now_ns).batch) is not None:
        for part in batch.parts:
            lane.rows[part.work] += len(part.rows)
    assert lane.expired == []
    for work in works:
        if not work.cancelled:
            assert lane.rows[work] == len(work.rows)
        if work.deadline_ns is not None and work in lane.ends:
            assert lane.ends[work] <= work.deadline_ns
    assert lane.waits(*RequestClass) == 0


@settings(deadline=None)
@given(gestures, st.floats(0.01, 0.5))
def test_bulk_goes_before_live_for_its_credit_only(found: list[Gesture], share: float) -> None:
    """G1: what bulk took of the live lane never exceeds its part of what live took, and one batch."""
    lane = Lane(replace(LIMITS, bulk_share=share))
    for gesture in found:
        match gesture:
            case Arrive(lengths, request_class, _, tenant, model):
                lane.submit(lengths, None, request_class, tenant=tenant, model=model)
            case ArriveLater(lengths, request_class):
                lane.submit(lengths, None, request_class)
            case Run(speed):
                lane.run(speed)
            case Cancel() | Wait():
                pass
        assert lane.bulk_ns <= share / (1 - share) * lane.live_ns + 1


def test_batch_that_bulk_has_coming_is_no_larger_than_what_was_asked_for() -> None:
    """The head's rows alone were measured against the credit and the slack; others would make it dearer."""
    lane = Lane(replace(LIMITS, bulk_share=0.375))
    lane.submit([1, 18], None, RequestClass.FLEX)
    lane.submit([1, 1, 1, 1, 1, 1, 23, 23, 54])
    lane.run(0.5)
    lane.run(0.5)
    lane.submit([1], None, RequestClass.FLEX)
    lane.run()
    assert 0 < lane.bulk_ns <= 0.6 * lane.live_ns + 1


def test_no_work_that_is_due_is_forgotten() -> None:
    """However many are due at once: a plan offers a few, and the next ones those that are left."""
    lane = Lane()
    works = [lane.submit([20], 60 * MS, RequestClass.FLEX) for _ in range(30)]
    lane.now_ns = lane.free_ns = 10 * MS
    for _ in range(30):
        lane.run()
    assert all(lane.ends[work] <= 60 * MS for work in works)


def test_window_of_a_job_with_a_deadline_leaves_live_calls_their_room() -> None:
    lane = Lane()
    lane.submit([20] * 500, 500 * MS, RequestClass.BULK, flow="job")
    for _ in range(150):
        lane.submit([20] * 4, 20 * MS, tenant="b")
        lane.run()
    assert lane.bulk_ns == 0


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_bulk_gets_its_share_of_a_lane_that_live_work_saturates(share: float) -> None:
    """G4: its part of every stretch of time, but for a batch; the gap is as long as the share says."""
    lane = Lane(replace(LIMITS, bulk_share=share))
    lane.submit([20] * 4000, None, RequestClass.BULK, flow="job")
    starts_ns: list[int] = []
    while len(starts_ns) < 12:
        while lane.waits(RequestClass.LIVE) < 40:
            lane.submit([20] * 8)
        batch = lane.run()
        assert batch is not None
        if batch.parts[0].work.request_class is RequestClass.BULK:
            starts_ns.append(lane.now_ns)
    gaps_ns = np.diff([0, *starts_ns])
    assert max(gaps_ns) <= FULL_NS / share + 2 * FULL_NS
    assert lane.bulk_ns >= share * (lane.now_ns - 2 * FULL_NS / share)


def test_bulk_that_idle_cycles_serve_takes_nothing_of_the_live_lane() -> None:
    lane = Lane(replace(LIMITS, bulk_share=0.1))
    lane.submit([20] * 4000, None, RequestClass.BULK, flow="job")
    for _ in range(200):
        lane.submit([20] * 8)
        lane.run()
        batch = lane.scheduler.plan(LaneKind.BULK, lane.now_ns).batch
        assert batch is not None
        lane.scheduler.complete(LaneKind.BULK, batch, BatchTimes(0, 1, 1))
    assert lane.bulk_ns == 0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(st.integers(1, 60), min_size=1, max_size=4)), min_size=8
    ),
    st.sampled_from([1.0, 3.0]),
)
def test_tenants_that_both_wait_are_served_by_weight(
    found: list[tuple[str, list[int]]], weight: float
) -> None:
    """G5: whatever each sends, as long as both have work waiting."""
    limits = replace(LIMITS, tenants={"a": TenantPolicy(weight=weight)})
    lane = Lane(limits)
    for tenant, lengths in found:
        lane.submit(lengths, tenant=tenant)
    for tenant in "ab":
        for _ in range(40):
            lane.submit([20], tenant=tenant)
    low = high = 0.0
    waiting = {tenant: 40 + sum(len(rows) for name, rows in found if name == tenant) for tenant in "ab"}
    while True:
        batch = lane.run()
        assert batch is not None
        for part in batch.parts:
            waiting[part.work.tenant] -= len(part.rows)
        if not all(waiting.values()):
            break
        apart = lane.served_ns["a"] / weight - lane.served_ns["b"]
        low, high = min(low, apart), max(high, apart)
    assert high - low <= 2 * (LIMITS.quantum_ns + 2 * FULL_NS)


def test_many_tenants_of_a_lane_that_is_hardly_used_are_all_served() -> None:
    """Sixty tenants with a call every nine seconds: a sixtieth of the time until a deadline is no limit."""
    lane = Lane()
    for number in range(600):
        lane.now_ns = number * 150 * MS
        # 60 ms over 60 tenants are less than the 1.6 ms that the call takes.
        work = lane.submit([30], 60 * MS, tenant=f"tenant {number % 60}")
        lane.run()
        assert lane.ends[work] <= lane.now_ns + 60 * MS


def test_tenant_may_use_what_others_leave_but_for_a_quantum() -> None:
    lane = Lane()
    lane.submit([20], 100 * MS, tenant="quiet")
    admitted = 0
    limits: set[object] = set()
    for _ in range(300):
        try:
            lane.submit([20], 100 * MS, tenant="flood")
            admitted += 1
        except Overloaded as err:
            limits.add(err.metadata["limit"])
    assert limits == {"OVER_SHARE"}
    # 8 rows take 4.2 ms: about 180 rows fit into 100 ms, and nobody else wants more than two of them.
    assert admitted >= 150
    late = lane.submit([20], 100 * MS, tenant="late comer")
    while lane.run() is not None:
        pass
    assert lane.ends[late] <= 20 * MS


def test_flooding_tenant_leaves_another_what_it_uses_and_its_turn() -> None:
    """A tenant that uses a third of the lane goes on doing so, and waits for batches, not for the flood."""
    lane = Lane(replace(LIMITS, quantum_ns=FULL_NS))
    refused = 0
    came_ns: dict[Work, int] = {}
    for number in range(1500):
        if number % 3 == 0:
            came_ns[lane.submit([20] * 8, 100 * MS, tenant="quiet")] = lane.now_ns
        for _ in range(20):
            try:
                lane.submit([20], 100 * MS, tenant="flood")
            except Overloaded as err:
                refused += err.metadata["limit"] == "OVER_SHARE"
        lane.run()
    while lane.run() is not None:
        pass
    assert refused > 5000
    waited_ns = [lane.ends[work] - at_ns for work, at_ns in came_ns.items()]
    # The running batch, a batch of the flood within its quantum, and its own; once its use is known.
    assert max(waited_ns[300:]) <= 4 * FULL_NS


def bulk_tokens(lane: Lane, batches: int, by: Callable[[Work], str]) -> Counter[str]:
    """Tokens that a bulk lane takes in some batches."""
    tokens: Counter[str] = Counter()
    for _ in range(batches):
        batch = lane.scheduler.plan(LaneKind.BULK, 0).batch
        assert batch is not None
        for part in batch.parts:
            tokens[by(part.work)] += int(part.work.tokens.lengths[part.rows].sum())
    return tokens


def test_tenant_has_no_more_for_having_more_jobs() -> None:
    lane = Lane(replace(LIMITS, quantum_ns=0))
    for number in range(10):
        lane.submit([20] * 400, None, RequestClass.BULK, tenant="many", flow=f"job {number}")
    lane.submit([20] * 900, None, RequestClass.BULK, tenant="one", flow="job")
    tokens = bulk_tokens(lane, 100, lambda work: work.tenant)
    assert tokens["one"] == pytest.approx(tokens["many"], rel=0.05)


@pytest.mark.parametrize("request_class", [RequestClass.FLEX, RequestClass.BULK])
def test_tenants_share_bulk_lanes_by_their_policies(request_class: RequestClass) -> None:
    lane = Lane(replace(LIMITS, quantum_ns=0, tenants={"gold": TenantPolicy(weight=3.0)}))
    for tenant in ("gold", "tin"):
        lane.submit([20] * 1500, None, request_class, tenant=tenant, flow="job", weight=1.0)
    tokens = bulk_tokens(lane, 150, lambda work: work.tenant)
    assert tokens["gold"] == pytest.approx(3 * tokens["tin"], rel=0.05)


def test_jobs_of_a_tenant_share_what_is_its_own_by_weight() -> None:
    lane = Lane(replace(LIMITS, quantum_ns=0))
    for flow, weight in (("slow", 1.0), ("fast", 3.0)):
        lane.submit([20] * 1000, None, RequestClass.BULK, tenant="a", flow=flow, weight=weight)
    lane.submit([20] * 1000, None, RequestClass.BULK, tenant="b", flow="slow")
    tokens = bulk_tokens(lane, 160, lambda work: work.tenant + work.flow)
    assert tokens["aslow"] + tokens["afast"] == pytest.approx(tokens["bslow"], rel=0.05)
    assert tokens["afast"] == pytest.approx(3 * tokens["aslow"], rel=0.05)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.1, 0.1), (0.5, 0.5)])
def test_bulk_gets_its_share_of_bulk_lanes_though_flex_never_ends(share: float, expected: float) -> None:
    lane = Lane(replace(LIMITS, bulk_beside_flex=share))
    for request_class in (RequestClass.FLEX, RequestClass.BULK):
        lane.submit([20] * 3000, None, request_class)
    tokens = bulk_tokens(lane, 200, lambda work: work.request_class.name)
    assert tokens["BULK"] / tokens.total() == pytest.approx(expected, abs=0.01)


def test_bulk_gets_its_part_of_what_the_live_lane_gives_beside_flex() -> None:
    lane = Lane(replace(LIMITS, bulk_share=0.3, bulk_beside_flex=0.2))
    for request_class in (RequestClass.FLEX, RequestClass.BULK):
        lane.submit([20] * 3000, None, request_class)
    rows: Counter[RequestClass] = Counter()
    for _ in range(600):
        while lane.waits(RequestClass.LIVE) < 40:
            lane.submit([20] * 8)
        batch = lane.run()
        assert batch is not None
        rows[batch.parts[0].work.request_class] += batch.rows
    bulk, flex = rows[RequestClass.BULK], rows[RequestClass.FLEX]
    assert bulk / (bulk + flex) == pytest.approx(0.2, abs=0.03)


def test_flow_of_jobs_share_bulk_lanes_by_weight() -> None:
    lane = Lane(replace(LIMITS, quantum_ns=0))
    for flow, weight in (("slow", 1.0), ("fast", 3.0)):
        lane.submit([20] * 800, None, RequestClass.BULK, flow=flow, weight=weight)
    rows: Counter[str] = Counter()
    for _ in range(80):
        batch = lane.scheduler.plan(LaneKind.BULK, 0).batch
        assert batch is not None
        rows[batch.parts[0].work.flow] += batch.rows
    assert rows["fast"] == pytest.approx(3 * rows["slow"], abs=3 * 8)


def test_work_that_would_be_late_is_refused_and_fits_after_the_delay() -> None:
    lane = Lane()
    while True:
        try:
            lane.submit([20] * 8, 50 * MS)
        except Overloaded as err:
            delay_ns = err.retry_after_s * 1e9
            break
    assert 0 < delay_ns < 60 * MS
    # By a fifth more or less: after the longest of such delays there is room.
    while lane.now_ns < delay_ns * 1.5:
        lane.run()
    lane.submit([20] * 8, 50 * MS)


def test_delays_of_callers_refused_together_differ() -> None:
    lane = Lane()
    lane.submit([20] * 80, 43 * MS)
    delays: set[float] = set()
    for _ in range(20):
        with pytest.raises(Overloaded) as caught:
            lane.submit([90] * 5, 40 * MS)
        delays.add(caught.value.retry_after_s)
    assert len(delays) == 20
    assert max(delays) <= 1.5 * min(delays) + 1e-9


def test_deadline_that_an_idle_lane_could_not_make_is_told_apart() -> None:
    lane = Lane()
    with pytest.raises(DeadlineUnmeetable, match="idle"):
        lane.submit([20] * 80, 10 * MS)
    lane.submit([20] * 80, 43 * MS)
    with pytest.raises(Overloaded):
        lane.submit([20] * 8, 10 * MS)


@pytest.mark.parametrize(("has_bulk", "error"), [(False, None), (True, Overloaded)])
def test_time_is_kept_for_bulk_only_while_there_is_some(
    has_bulk: bool, error: type[Exception] | None
) -> None:
    """An idle lane makes it, so nobody hears that it could not; with bulk work waiting a part is bulk's."""
    lane = Lane(replace(LIMITS, bulk_share=0.3))
    if has_bulk:
        lane.submit([20] * 8, None, RequestClass.BULK)
    after_ns = round(FULL_NS * 1.1)
    if error is None:
        work = lane.submit([20] * 8, after_ns)
        lane.run()
        assert lane.ends[work] <= after_ns
    else:
        with pytest.raises(error):
            lane.submit([20] * 8, after_ns)


def test_time_is_not_kept_any_more_once_bulk_has_gone() -> None:
    lane = Lane(replace(LIMITS, bulk_share=0.3))
    bulk = lane.submit([20] * 8, None, RequestClass.BULK)
    lane.scheduler.cancel(bulk)
    lane.submit([20] * 8, round(FULL_NS * 1.1))


def test_row_that_would_make_another_late_is_refused() -> None:
    lane = Lane()
    lane.submit([80, 80, 80], 3 * round(BATCH_NS + 80 * TOKEN_NS) + 100)
    with pytest.raises(Overloaded, match="admitted before"):
        lane.submit([80], 6 * MS)


@pytest.mark.parametrize(
    ("overload", "expected"),
    [(OverloadPolicy.DEMOTE_TO_FLEX, RequestClass.FLEX), (OverloadPolicy.DEMOTE_TO_BULK, RequestClass.BULK)],
)
def test_work_that_would_be_late_is_demoted_where_its_caller_allows(
    overload: OverloadPolicy, expected: RequestClass
) -> None:
    lane = Lane()
    lane.submit([20] * 80, 43 * MS)
    work = lane.submit([20] * 8, 10 * MS, overload=overload)
    assert work.request_class is expected
    assert lane.scheduler.depth(expected).rows == 8


def test_flex_work_moves_to_the_live_lane_when_its_deadline_comes_near() -> None:
    lane = Lane()
    work = lane.submit([20] * 8, 500 * MS, RequestClass.FLEX)
    lane.submit([20] * 8, None, RequestClass.FLEX)
    assert lane.run() is None
    lane.now_ns = 450 * MS
    decision = lane.scheduler.plan(LaneKind.LIVE, lane.now_ns)
    assert decision.batch is not None
    assert decision.wakes == (LaneKind.LIVE,)
    assert [part.work for part in decision.batch.parts] == [work]
    assert lane.scheduler.plan(LaneKind.LIVE, lane.now_ns).batch is None


def test_plan_promotes_a_few_works_and_no_more_after_a_refusal() -> None:
    """Thousands of calls with one deadline are due at once: each plan takes a few, none looks at them all."""
    lane = Lane()
    for _ in range(3000):
        lane.submit([20], 500 * MS, RequestClass.FLEX)
    offers: Counter[int] = Counter()
    offer = lane.scheduler._live.offer  # pyright: ignore[reportPrivateUsage]

    def counted(*arguments: Any, **options: Any) -> Any:
        offers[lane.now_ns] += 1
        return offer(*arguments, **options)

    lane.scheduler._live.offer = counted  # type: ignore[method-assign]  # pyright: ignore
    lane.now_ns = 455 * MS
    while lane.now_ns < 500 * MS and lane.run() is not None:
        pass
    assert max(offers.values()) <= 8
    assert sum(lane.rows.values()) >= 60
    # The lane is full of calls that must end by then: what is refused is not offered over and over.
    for _ in range(12):
        lane.submit([20] * 8, 70 * MS)
    offers.clear()
    for _ in range(50):
        lane.scheduler.plan(LaneKind.BULK, lane.now_ns)
    assert offers.total() <= 8


def test_models_are_promoted_beside_each_other() -> None:
    lane = Lane()
    for model in (MODEL, OTHER):
        for _ in range(4):
            lane.submit([20] * 8, 500 * MS, RequestClass.FLEX, model=model)
    lane.now_ns = 490 * MS
    lane.run()
    assert lane.scheduler.depth(RequestClass.LIVE).rows + lane.scheduler.depth(RequestClass.FLEX).rows
    assert {work.model for work in lane.ends} | {MODEL, OTHER} == {MODEL, OTHER}


def test_promotion_breaks_no_promise() -> None:
    lane = Lane()
    flex = lane.submit([80] * 40, 200 * MS, RequestClass.FLEX)
    live = [lane.submit([80, 80], 200 * MS) for _ in range(30)]
    while lane.run() is not None:
        pass
    assert all(lane.ends[work] <= 200 * MS for work in live)
    assert lane.rows[flex] == 0


def test_tenant_over_its_rate_is_refused_until_its_bucket_fills() -> None:
    policy = TenantPolicy(tokens_per_s=1000, burst_tokens=100)
    lane = Lane(replace(LIMITS, tenants={"slow": policy}))
    lane.submit([50, 50], tenant="slow")
    with pytest.raises(Overloaded) as caught:
        lane.submit([50], tenant="slow")
    assert caught.value.metadata["limit"] == "TENANT_RATE"
    assert caught.value.retry_after_s == pytest.approx(0.05)
    lane.submit([50], tenant="other")
    lane.now_ns = 50 * MS
    lane.submit([50], tenant="slow")
    lane.submit([50] * 20, None, RequestClass.BULK, tenant="slow", flow="job")


def test_tenant_with_too_much_waiting_is_refused_until_some_is_computed() -> None:
    lane = Lane(replace(LIMITS, tenant=TenantPolicy(queue_tokens_max=100)))
    lane.submit([50], tenant="a")
    lane.submit([50], None, RequestClass.FLEX, tenant="a")
    with pytest.raises(Overloaded) as caught:
        lane.submit([50], tenant="a")
    assert caught.value.metadata["limit"] == "TENANT_QUEUE"
    lane.submit([50], tenant="b")
    while lane.run() is not None:
        pass
    lane.submit([50], tenant="a")


def known(lane: Lane) -> Tenants:
    return lane.scheduler._tenants  # pyright: ignore[reportPrivateUsage]


def test_names_of_tenants_that_come_and_go_are_forgotten() -> None:
    lane = Lane()
    for number in range(10_000):
        lane.now_ns += 20 * MS
        lane.submit([5], tenant=f"tenant {number}")
        lane.run()
    assert len(known(lane)) <= 4096


def test_tenants_that_are_all_active_share_the_last_place() -> None:
    """However many names callers make up within ten seconds, memory and time are bounded."""
    lane = Lane()
    places: list[int] = []

    def add(weight: float) -> int:
        places.append(lane.scheduler._live.queue.add_tenant(weight))  # pyright: ignore[reportPrivateUsage]
        return places[-1]

    known(lane)._add_index = add  # pyright: ignore[reportPrivateUsage]
    for number in range(6000):
        lane.now_ns += 1
        lane.submit([5], tenant=f"tenant {number}")
    assert len(known(lane)) == 4096
    assert len(places) == 4097
    assert lane.waits(RequestClass.LIVE) == 6000


def test_longest_silent_tenant_is_forgotten_first() -> None:
    lane = Lane()
    for number in range(4096):
        lane.now_ns += 1
        lane.submit([5], tenant=f"tenant {number}")
        lane.run()
    lane.now_ns += 60_000 * MS
    lane.submit([5], tenant="tenant 0")
    lane.submit([5], tenant="new")
    names = set(known(lane)._tenants)  # pyright: ignore[reportPrivateUsage]
    assert {"tenant 0", "new"} <= names
    assert "tenant 1" not in names


def test_tenant_that_owes_tokens_is_not_forgotten() -> None:
    """Or its debt would be gone with it, also if it sends FLEX alone."""
    policy = TenantPolicy(tokens_per_s=10, burst_tokens=100)
    lane = Lane(replace(LIMITS, tenant=policy))
    lane.submit([90] * 10, None, RequestClass.FLEX, tenant="debtor")
    for number in range(4095):
        lane.now_ns += 1
        lane.submit([5], None, RequestClass.FLEX, tenant=f"tenant {number}")
    while lane.scheduler.plan(LaneKind.BULK, lane.now_ns).batch is not None:
        pass
    # It owes 800 tokens: 80 seconds.
    lane.now_ns += 30_000 * MS
    for number in range(200):
        lane.now_ns += 1
        lane.submit([5], None, RequestClass.FLEX, tenant=f"newer {number}")
    with pytest.raises(Overloaded) as caught:
        lane.submit([5], None, RequestClass.FLEX, tenant="debtor")
    assert caught.value.metadata["limit"] == "TENANT_RATE"


def test_batch_that_failed_leaves_no_trace() -> None:
    """The lane is free once the dispatcher says so, and a call that fits into an idle lane is admitted."""
    lane = Lane()
    lane.submit([20] * 8)
    plan = lane.run()
    assert plan is not None
    with pytest.raises(Overloaded):
        lane.submit([20] * 8, FULL_NS + MS)
    lane.scheduler.failed(LaneKind.LIVE, plan, MS)
    lane.now_ns = MS
    lane.submit([20] * 8, FULL_NS + MS)
    for _ in range(100):
        lane.scheduler.failed(LaneKind.LIVE, plan, MS)
    assert lane.scheduler._live._running == []  # pyright: ignore[reportPrivateUsage]


def test_lane_is_not_free_while_halves_of_a_failed_batch_run_again() -> None:
    lane = Lane()
    lane.submit([20] * 8)
    plan = lane.run()
    assert plan is not None
    halves = split(plan)
    half_ns = round(BATCH_NS + 80 * TOKEN_NS)
    lane.scheduler.failed(LaneKind.LIVE, plan, MS, halves)
    lane.now_ns = MS
    with pytest.raises(Overloaded):
        lane.submit([20], 2 * half_ns)
    lane.submit([20], 2 * half_ns + 2 * MS)
    lane.scheduler.complete(LaneKind.LIVE, halves[0], BatchTimes(MS, 2 * MS, MS))
    lane.scheduler.failed(LaneKind.LIVE, halves[1], 2 * MS)
    lane.now_ns = 2 * MS
    lane.submit([20] * 7, FULL_NS + MS)


def test_batches_that_never_end_leave_no_trace() -> None:
    """Should nobody tell of a failure, the next batch that ends tells the true state of the lane."""
    lane = Lane()
    for _ in range(3):
        lane.submit([20] * 8)
        assert lane.run() is not None
        lane.running = None
    lane.submit([20] * 8)
    lane.run()
    lane.run()
    lane.submit([20] * 8, FULL_NS + MS)
