from __future__ import annotations

import re
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from penstock_server.domain.answer import AnswerInfo
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan, BatchTimes
from penstock_server.observability.exporter import Exporter, ServerState, registry_of
from penstock_server.observability.meters import Distribution
from penstock_server.observability.metrics import OTHER_TENANTS, Metrics
from tests.support.work import MODEL, make_work

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
STATE = ServerState(
    queue=lambda request_class: (int(request_class), 10 * int(request_class)),
    rpcs_in_flight=lambda: 3,
    worker_restarts=lambda: 2,
    cache=lambda: (5, 6, 7, 8),
)
INFO = AnswerInfo(
    model=MODEL,
    served_class=RequestClass.FLEX,
    total_ns=20_000_000,
    tokenise_ns=1_000_000,
    queue_ns=5_000_000,
    compute_ns=10_000_000,
    tokens=30,
    truncated_rows=0,
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({"live": 100, "bulk": 50}, tenants_max=2)


@pytest.fixture
def registry(metrics: Metrics) -> CollectorRegistry:
    return registry_of(metrics, STATE)


def test_documentation_lists_every_metric_with_its_labels(registry: CollectorRegistry) -> None:
    documented = {
        name: (kind, tuple(re.findall(r"\w+", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", DOCS.read_text(), re.MULTILINE
        )
    }
    registered = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in registry.collect()
    }
    assert {name: kind for name, (kind, _) in documented.items()} == registered
    metrics = Metrics({}, 0)
    meters = [*(each.name for each in metrics.counters()), *(each.name for each in metrics.histograms())]
    for meter in meters:
        name = meter.name
        labels = documented.get(f"{name}_total", documented.get(name))
        assert labels is not None
        assert labels[1] == meter.labels


def test_an_answer_is_counted_with_its_times(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.answered("Embed", "acme", 4, INFO)
    labels = {
        "method": "Embed", "request_class": "flex", "model": "model", "version": "1", "outcome": "ok",
    }  # fmt: skip
    assert registry.get_sample_value("penstock_requests_total", labels) == 1
    assert registry.get_sample_value("penstock_request_rows_total", labels) == 4
    flex = {"request_class": "flex"}
    assert registry.get_sample_value("penstock_request_tokens_total", flex) == 30
    assert registry.get_sample_value("penstock_request_duration_seconds_sum", flex) == pytest.approx(0.02)
    assert registry.get_sample_value("penstock_request_duration_seconds_bucket", {**flex, "le": "0.02"}) == 1
    assert registry.get_sample_value("penstock_request_duration_seconds_bucket", {**flex, "le": "0.015"}) == 0
    assert registry.get_sample_value("penstock_request_duration_seconds_bucket", {**flex, "le": "+Inf"}) == 1
    assert registry.get_sample_value("penstock_request_queue_seconds_sum", flex) == pytest.approx(0.005)
    assert registry.get_sample_value("penstock_tenant_tokens_total", {"tenant": "acme"}) == 30


def test_refusals_are_told_from_failures(metrics: Metrics, registry: CollectorRegistry) -> None:
    for why in ("OVERLOADED", "OVERLOADED", "ENGINE_FAILED"):
        metrics.not_answered("Embed", "", 1, MODEL, RequestClass.LIVE, why)
    live = {"request_class": "live"}
    assert registry.get_sample_value("penstock_refused_requests_total", {**live, "reason": "overloaded"}) == 2
    assert (
        registry.get_sample_value("penstock_refused_requests_total", {**live, "reason": "engine_failed"})
        is None
    )
    labels = {**live, "method": "Embed", "model": "model", "version": "1", "outcome": "engine_failed"}
    assert registry.get_sample_value("penstock_requests_total", labels) == 1


def test_tenants_beyond_the_limit_share_their_numbers(metrics: Metrics, registry: CollectorRegistry) -> None:
    for tenant in ("a", "b", "c", "d", "a"):
        metrics.answered("Embed", tenant, 1, INFO)
    counts = {
        tenant: registry.get_sample_value(
            "penstock_tenant_requests_total", {"tenant": tenant, "outcome": "ok"}
        )
        for tenant in ("a", "b", "c", OTHER_TENANTS)
    }
    assert counts == {"a": 2, "b": 1, "c": None, OTHER_TENANTS: 2}


def test_padding_and_fill_of_batches(metrics: Metrics, registry: CollectorRegistry) -> None:
    work, _ = make_work([30, 10])
    plan = BatchPlan(MODEL, (BatchPart(work, work.rows),), 2, 30, 40)
    metrics.batch_ran("live", plan, BatchTimes(0, 2_000_000, 2_000_000))
    live = {"lane_kind": "live"}
    assert registry.get_sample_value("penstock_batch_tokens_total", live) == 40
    assert registry.get_sample_value("penstock_batch_padded_tokens_total", live) == 60
    assert registry.get_sample_value("penstock_batch_fill_ratio_sum", live) == pytest.approx(0.6)
    assert registry.get_sample_value("penstock_computed_rows_total", {"request_class": "live"}) == 2


def test_predictions_are_compared_with_what_a_batch_cost(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    work, _ = make_work([30])
    for predicted_ns in (0, 1_000_000, 4_000_000):
        plan = BatchPlan(MODEL, (BatchPart(work, work.rows),), 1, 30, 30, predicted_ns)
        # On a bulk lane the time that passes says how much live work there was, not what the batch cost.
        metrics.batch_ran("bulk", plan, BatchTimes(0, 9_000_000, 2_000_000))
    bulk = {"lane_kind": "bulk"}
    assert registry.get_sample_value("penstock_cost_error_ratio_count", bulk) == 2
    assert registry.get_sample_value("penstock_cost_error_ratio_sum", bulk) == pytest.approx(2.5)


def test_state_is_read_when_it_is_asked_for(registry: CollectorRegistry) -> None:
    assert registry.get_sample_value("penstock_queue_tokens", {"request_class": "bulk"}) == 40
    assert registry.get_sample_value("penstock_worker_restarts_total") == 2
    assert registry.get_sample_value("penstock_rpcs_in_flight") == 3


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    distribution = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        distribution.add(value)
    assert (distribution.counts, distribution.total) == ([2, 2, 1], 7.5)


@pytest.fixture
def exporter(metrics: Metrics) -> Generator[Exporter]:
    exporter = Exporter(metrics, STATE, "127.0.0.1", 0)
    yield exporter
    exporter.close()


def test_metrics_are_served_over_http(metrics: Metrics, exporter: Exporter) -> None:
    metrics.not_answered("Stream", "", 1, ModelKey('odd"name\n', "1"), None, "CANCELLED")
    with urllib.request.urlopen(f"http://{exporter.address}/metrics") as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    (sample,) = families["penstock_requests"].samples
    assert (sample.labels["model"], sample.labels["request_class"]) == ('odd"name\n', "unspecified")


def test_a_taken_port_is_named(metrics: Metrics, exporter: Exporter) -> None:
    port = int(exporter.address.rpartition(":")[2])
    with pytest.raises(InvalidRequest, match=rf"127\.0\.0\.1:{port}.*metrics\.port"):
        Exporter(metrics, STATE, "127.0.0.1", port)
