"""Seeded runs over measured costs, each under all checkers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from penstock_server.simulation.metrics import figures_of
from penstock_server.simulation.report import Comparison, compare
from penstock_server.simulation.runner import BULK_ONLY, LIVE_ONLY, OURS, POLICIES, Run, run_policy
from penstock_server.simulation.scenario import (
    BulkJob,
    BulkTraffic,
    LiveTraffic,
    Machine,
    Noise,
    TenantMix,
)
from tests.support.simulation import drawn, faults, run_ours

ONE_JOB = BulkTraffic(jobs=(BulkJob(lengths="sentences"),))
SENTENCES = LiveTraffic(rate=40.0, lengths="sentences")


def traced(run: Run) -> list[tuple[object, ...]]:
    """Everything that happened, comparable."""
    return [
        (batch.lane, batch.planned_ns, batch.start_ns, batch.end_ns, batch.rows, batch.padded_length)
        for batch in run.record.batches
    ]


SCENARIOS: dict[str, dict[str, Any]] = {
    "poisson beside bulk": {"live": SENTENCES, "bulk": ONE_JOB},
    "mixed lengths beside bulk": {"live": LiveTraffic(rate=20.0), "bulk": ONE_JOB},
    "bursts beside bulk": {
        "live": LiveTraffic(rate=30.0, lengths="sentences", arrivals="mmpp", deadline_ms=2000.0),
        "bulk": ONE_JOB,
    },
    "classes and callers that leave": {
        "live": LiveTraffic(
            rate=60.0, lengths="sentences", critical_share=0.2, flex_share=0.3, cancel_share=0.2, rows=2
        ),
        "bulk": ONE_JOB,
    },
    "two jobs, one later": {
        "live": SENTENCES,
        "bulk": BulkTraffic(jobs=(BulkJob(name="a"), BulkJob(name="b", weight=3.0, start_s=3.0))),
    },
    "no deadlines": {"live": LiveTraffic(rate=40.0, deadline_ms=0.0), "bulk": ONE_JOB},
    "serial lane": {"live": SENTENCES, "bulk": ONE_JOB, "machine": Machine(kind="serial")},
    "four cores": {"live": LiveTraffic(rate=60.0), "bulk": ONE_JOB, "machine": Machine(cores=4)},
    "noise and stalls": {
        "live": LiveTraffic(rate=20.0, lengths="sentences", deadline_ms=2000.0),
        "bulk": ONE_JOB,
        "noise": Noise(sigma=0.3, drift_sigma=0.2, stalls_per_s=0.3, stall_ms=50.0),
    },
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scheduler_keeps_every_promise(name: str) -> None:
    run = run_ours(drawn(**SCENARIOS[name]))
    assert faults(run) == {}
    assert any(work.is_answered for work in run.record.works)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_answers_each_row_once(policy: str) -> None:
    run = run_policy(policy, drawn(live=LiveTraffic(rate=60.0, cancel_share=0.1), bulk=ONE_JOB))
    assert faults(run) == {}
    assert len(run.record.batches) > 3


def test_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    setting = {"live": SENTENCES, "bulk": ONE_JOB}
    first, again, other = (traced(run_ours(drawn(seed=seed, **setting))) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_all_policies_meet_the_same_calls() -> None:
    setting = drawn(live=SENTENCES, bulk=ONE_JOB)
    calls = {
        policy: [work.call for work in run_policy(policy, setting).record.works if not work.call.flow]
        for policy in POLICIES
        if policy != BULK_ONLY
    }
    assert all(found == calls[OURS] for found in calls.values())


@pytest.fixture(scope="module")
def beside_bulk() -> Comparison:
    setting = drawn(live=SENTENCES, bulk=ONE_JOB, duration_s=20.0)
    return compare(setting, POLICIES, checked=False)


def test_bulk_takes_what_live_leaves_and_live_does_not_feel_it(beside_bulk: Comparison) -> None:
    ours = beside_bulk.outcomes[POLICIES.index(OURS)]
    assert ours.harvest is not None
    assert ours.harvest >= 0.98
    for percentile in ("p50", "p99"):
        inflation = ours.inflation[percentile]
        assert inflation is not None
        assert inflation <= 1.05


def test_others_pay_for_bulk_with_live_latency(beside_bulk: Comparison) -> None:
    """As measured: Triton's live median went from 12 to 327 ms, and its bulk work was at a quarter."""
    triton = beside_bulk.outcomes[POLICIES.index("triton")]
    median = triton.inflation["p50"]
    assert median is not None
    assert median > 10
    assert triton.total is not None
    assert triton.total < 0.6


def test_references_are_their_own_measure(beside_bulk: Comparison) -> None:
    alone = {outcome.figures.policy: outcome for outcome in beside_bulk.outcomes}
    assert alone[LIVE_ONLY].inflation == {"p50": 1.0, "p99": 1.0}
    assert alone[BULK_ONLY].harvest == pytest.approx(1.0)


def test_flex_and_live_finish_after_the_arrivals_end() -> None:
    run = run_ours(drawn(live=LiveTraffic(rate=100.0, flex_share=0.9), duration_s=3.0))
    assert all(work.is_answered for work in run.record.works if work.is_admitted and work.failed.sum() == 0)
    assert sum(work.is_answered for work in run.record.works) > 200


def shares(run: Run) -> dict[str, float]:
    live = figures_of(run).live
    assert live is not None
    return live.tenant_service


def test_tenants_get_service_that_figures_tell() -> None:
    tenants = (TenantMix(name="a", share=3.0), TenantMix(name="b", share=1.0))
    served = shares(run_ours(drawn(live=LiveTraffic(rate=20.0, lengths="sentences", tenants=tenants))))
    # Nobody waits at this load, so service follows the calls.
    assert served["a"] / served["b"] == pytest.approx(3.0, rel=0.35)


def residuals(path_of: Callable[[str], Any]) -> None:
    """Writes factors with a heavy tail."""
    random = np.random.default_rng(3)
    factors = np.where(random.random(500) < 0.02, 3.0, random.uniform(0.9, 1.1, 500))
    path_of("residuals.txt").write_text("\n".join(f"{factor:.4f}" for factor in factors))


def test_measured_residuals_take_the_place_of_a_distribution(tmp_path: Any) -> None:
    residuals(lambda name: tmp_path / name)
    noise = Noise(residuals=tmp_path / "residuals.txt", drift_sigma=0.0, stalls_per_s=0.0)
    run = run_ours(drawn(live=LiveTraffic(rate=20.0, lengths="sentences"), noise=noise))
    slow = [batch.busy_ns / batch.live_cost_ns > 2.5 for batch in run.record.batches]
    assert 0 < sum(slow) < 0.06 * len(slow)


def waits_of_the_quiet(flood_rate: float) -> tuple[list[float], int]:
    """Times of a tenant's 20 calls a second beside another's, and how many of them were refused."""
    tenants = (TenantMix(name="flood", share=flood_rate), TenantMix(name="quiet", share=20.0))
    waited_ns: list[float] = []
    refused = 0
    for seed in (1, 2):
        live = LiveTraffic(rate=flood_rate + 20.0, lengths="sentences", tenants=tenants)
        run = run_ours(drawn(live=live, duration_s=15.0, seed=seed))
        quiet = [work for work in run.record.works if work.call.tenant == "quiet"]
        waited_ns += [(work.done_ns or 0) - work.submitted_ns for work in quiet if work.is_admitted]
        refused += sum(not work.is_admitted for work in quiet)
    return waited_ns, refused


def test_tenant_that_sends_ten_times_as_much_does_not_slow_another_down() -> None:
    """Ten times what saturates the lane with it: below that, a call meets a busy lane less often."""
    (before, _), (after, refused) = waits_of_the_quiet(200.0), waits_of_the_quiet(2000.0)
    assert refused <= 0.01 * len(after)
    for percentile in (50, 90, 95):
        assert np.percentile(after, percentile) <= 1.1 * np.percentile(before, percentile)
