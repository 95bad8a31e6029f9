"""Arrivals made to break the scheduler, over exact costs: whatever comes, each promise is kept."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_server.domain.tasks import RequestClass
from penstock_server.simulation.arrivals import Call
from penstock_server.simulation.scenario import NS_PER_MS, Limits, Machine
from tests.support.simulation import call, faults, run_ours, world

# A world takes some milliseconds, so examples are few and rich; `make simulate-long` has thousands.
adversarial = settings(
    max_examples=int(os.environ.get("PENSTOCK_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
SMALL = Limits(live_tokens_max=2000, live_batch_tokens_max=64, bulk_batch_tokens=32, lookahead_rows=8)
DURATION_MS = 400

moments_ms = st.integers(0, DURATION_MS - 1).map(float) | st.floats(0, DURATION_MS - 1)
patience_ms = st.none() | st.integers(1, 300).map(float)
classes = st.sampled_from([RequestClass.LIVE, RequestClass.LIVE_CRITICAL, RequestClass.FLEX])


@st.composite
def single(draw: st.DrawFn) -> list[Call]:
    """A call of any kind, whose caller may go away."""
    at_ms = draw(moments_ms)
    return [
        call(
            at_ms,
            draw(st.lists(st.integers(1, 90), min_size=1, max_size=6)),
            deadline_ms=draw(patience_ms),
            request_class=draw(classes),
            tenant=draw(st.sampled_from("abc")),
            cancel_ms=draw(st.none() | st.floats(0, 200).map(lambda after: at_ms + after)),
        )
    ]


@st.composite
def sorted_burst(draw: st.DrawFn) -> list[Call]:
    """Many calls at once while the clock stands still, shortest or longest first."""
    at_ms = draw(moments_ms)
    lengths = sorted(draw(st.lists(st.integers(1, 60), min_size=2, max_size=25)), reverse=draw(st.booleans()))
    deadline_ms = draw(patience_ms)
    return [call(at_ms, [length], deadline_ms=deadline_ms) for length in lengths]


@st.composite
def flood(draw: st.DrawFn) -> list[Call]:
    """One tenant sends as fast as it can."""
    at_ms, every_ms = draw(moments_ms), draw(st.sampled_from([0.0, 0.001, 1.0]))
    deadline_ms, length = draw(patience_ms), draw(st.integers(1, 30))
    return [
        call(at_ms + index * every_ms, [length], deadline_ms=deadline_ms, tenant="flood", weight=2.0)
        for index in range(draw(st.integers(10, 60)))
    ]


gestures = st.lists(single() | sorted_burst() | flood(), min_size=1, max_size=8)
machines = st.sampled_from(
    [
        Machine(live_gap_us=0.0, bulk_gap_us=0.0, answer_us=0.0, call_us=0.0),
        Machine(live_gap_us=100.0, bulk_gap_us=100.0, bulk_lanes=3, bulk_slots=1),
        Machine(kind="serial", live_gap_us=0.0, answer_us=0.0, call_us=0.0),
    ]
)


@adversarial
@given(gestures, st.booleans(), machines)
def test_no_arrivals_break_a_promise(found: list[list[Call]], bulk: bool, machine: Machine) -> None:
    calls = [each for gesture in found for each in gesture]
    setting = world(calls, bulk=bulk, machine=machine, limits=SMALL, duration_s=DURATION_MS / 1000)
    assert faults(run_ours(setting), late_share_max=0.0) == {}


@adversarial
@given(st.integers(0, 3), st.integers(1, 40), st.booleans())
def test_call_that_just_misses_every_batch_waits_for_one_at_most(
    after_ns: int, length: int, bulk: bool
) -> None:
    """Each call comes as soon after the start of a batch as can be, so that it waits for nearly all of it."""
    first = world([call(50.0 * index, [length]) for index in range(8)], bulk=bulk, limits=SMALL)
    starts = [batch.start_ns for batch in run_ours(first).record.batches if not batch.is_bulk]
    missing = [call(50.0 * index, [length], deadline_ms=500.0) for index in range(8)]
    missing += [call((start_ns + after_ns) / NS_PER_MS, [length], deadline_ms=500.0) for start_ns in starts]
    run = run_ours(world(missing, bulk=bulk, limits=SMALL))
    assert faults(run, late_share_max=0.0) == {}
    alone_ns = max(batch.busy_ns for batch in run.record.batches if not batch.is_bulk)
    waited_ns = [(work.done_ns or 0) - work.submitted_ns for work in run.record.works if work.is_live]
    assert max(waited_ns) <= 2 * alone_ns
