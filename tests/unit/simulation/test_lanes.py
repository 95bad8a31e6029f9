"""The model of the machine, against times worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest

from penstock_server.simulation.record import BatchRecord
from penstock_server.simulation.runner import LIVE_ONLY, run_policy
from penstock_server.simulation.scenario import NS_PER_MS, Machine, Noise
from tests.support.simulation import EXACT, call, run_ours, straight_costs, world


def ended_ms(batches: list[BatchRecord]) -> list[float]:
    return [batch.end_ns / NS_PER_MS for batch in batches]


def test_call_on_an_idle_machine_takes_what_the_table_says() -> None:
    run = run_ours(world([call(5.0, [9])]))
    # (1 + 9) ms over two cores.
    assert ended_ms(run.record.batches) == [10.0]
    assert run.record.works[0].done_ns == 10 * NS_PER_MS


def test_calls_that_wait_share_the_next_batch() -> None:
    run = run_ours(world([call(0.0, [9]), call(1.0, [8]), call(2.0, [8])]))
    assert ended_ms(run.record.batches) == [5.0, 5.0 + (1 + 2 * 8) / 2]


def test_live_batch_over_all_cores_stops_bulk_lanes() -> None:
    machine = Machine(
        cores=2, bulk_lanes=1, bulk_slots=1, live_gap_us=0.0, bulk_gap_us=0.0, answer_us=0.0, call_us=0.0
    )
    busy = world([call(10.0, [99])], bulk=True, machine=machine, duration_s=0.5)
    calm = world([], bulk=True, machine=machine, duration_s=0.5)
    first_busy = run_ours(busy).record.batches[0]
    first_calm = run_ours(calm).record.batches[0]
    assert first_calm.end_ns > 10 * NS_PER_MS
    # The live batch keeps both cores for 50 ms, and the bulk batch gets none.
    assert first_busy.end_ns == first_calm.end_ns + 50 * NS_PER_MS
    assert first_busy.busy_ns == first_calm.busy_ns


def test_live_batch_that_leaves_a_core_slows_two_bulk_lanes_to_half() -> None:
    machine = Machine(
        cores=2,
        live_threads=1,
        bulk_lanes=2,
        bulk_slots=1,
        live_gap_us=0.0,
        bulk_gap_us=0.0,
        answer_us=0.0,
        call_us=0.0,
    )
    costs = straight_costs(live_cores=1.0)
    busy = world([call(0.0, [9])], bulk=True, machine=machine, costs=costs, duration_s=0.5)
    calm = world([], bulk=True, machine=machine, costs=costs, duration_s=0.5)
    late_by = [
        with_live.end_ns - without.end_ns
        for with_live, without in zip(
            [batch for batch in run_ours(busy).record.batches if batch.is_bulk][:2],
            run_ours(calm).record.batches[:2],
            strict=True,
        )
    ]
    # 10 ms of live work on one core: each bulk lane has half a core meanwhile.
    assert late_by == [5 * NS_PER_MS, 5 * NS_PER_MS]


def test_bulk_lanes_of_an_idle_machine_run_at_full_speed() -> None:
    run = run_ours(world([], bulk=True, duration_s=1.0))
    done = [batch for batch in run.record.batches if batch.is_done]
    assert len(done) > 4
    assert all(batch.end_ns - batch.start_ns == batch.busy_ns for batch in done)


def test_what_a_batch_costs_beside_computing_delays_its_start() -> None:
    run = run_ours(world([call(0.0, [9])], machine=Machine(live_gap_us=500.0, answer_us=0.0, call_us=0.0)))
    assert run.record.batches[0].start_ns == NS_PER_MS // 2
    assert ended_ms(run.record.batches) == [5.5]


def test_answers_and_the_next_batch_follow_some_time_after_a_batch() -> None:
    machine = Machine(live_gap_us=0.0, answer_us=500.0)
    run = run_ours(world([call(0.0, [9]), call(1.0, [99])], machine=machine))
    first, second = run.record.works
    assert ended_ms(run.record.batches) == [5.0, 55.5]
    assert (first.done_ns, second.done_ns) == (5.5 * NS_PER_MS, 56 * NS_PER_MS)


def test_edge_delays_the_arrival_and_the_answer_by_half_each() -> None:
    machine = Machine(live_gap_us=0.0, answer_us=0.0, call_us=0.0, edge_us=2000.0)
    run = run_ours(world([call(0.0, [9])], machine=machine))
    assert run.record.works[0].submitted_ns == NS_PER_MS
    assert ended_ms(run.record.batches) == [6.0]


def test_stalls_and_noise_are_the_same_under_every_policy() -> None:
    noise = Noise(sigma=0.2, drift_sigma=0.1, stalls_per_s=5.0)
    setting = world([call(20.0 * index, [9]) for index in range(40)], noise=noise)
    ours, alone = run_ours(setting), run_policy(LIVE_ONLY, setting)
    exact = run_ours(world([call(20.0 * index, [9]) for index in range(40)], noise=EXACT))
    assert [batch.busy_ns for batch in ours.record.batches] == [
        batch.busy_ns for batch in alone.record.batches
    ]
    assert len({batch.busy_ns for batch in ours.record.batches}) == 40
    assert len({batch.busy_ns for batch in exact.record.batches}) == 1


def test_serial_machine_runs_live_and_bulk_one_after_the_other() -> None:
    machine = Machine(kind="serial", live_gap_us=0.0, answer_us=0.0, call_us=0.0)
    run = run_ours(world([call(50.0 * index, [9]) for index in range(20)], bulk=True, machine=machine))
    spans = [(batch.start_ns, batch.end_ns) for batch in run.record.batches]
    assert spans == sorted(spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert {batch.is_bulk for batch in run.record.batches} == {True, False}


@pytest.mark.parametrize("factor", [0.8, 1.5])
def test_live_batches_beside_bulk_ones_take_their_factor(factor: float) -> None:
    noise = Noise(sigma=0.0, drift_sigma=0.0, stalls_per_s=0.0, live_beside_bulk=factor)
    run = run_ours(world([call(100.0, [9])], bulk=True, noise=noise))
    (live,) = [batch for batch in run.record.batches if not batch.is_bulk]
    assert live.end_ns - live.start_ns == pytest.approx(5 * NS_PER_MS * factor, abs=2)
