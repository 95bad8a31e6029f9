"""Metrics over HTTP in Prometheus' text format, on a port and a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.tasks import RequestClass
from penstock_server.observability.meters import Counters, Distribution, Histograms
from penstock_server.observability.metrics import Metrics, class_label


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is read when somebody asks, on the exporter's thread: each call must only read.

    Attributes:
        queue: Rows and tokens that wait in a class.
        rpcs_in_flight: Calls under way.
        worker_restarts: How often the bulk worker process was started anew.
        cache: Rows that were found in the cache, that were not, that are kept, and bytes they take; None if
            nothing is kept.
    """

    queue: Callable[[RequestClass], tuple[int, int]]
    rpcs_in_flight: Callable[[], int]
    worker_restarts: Callable[[], int]
    cache: Callable[[], tuple[int, int, int, int]] | None = None


class Exporter:
    """Serves metrics at ``http://host:port/metrics`` until it is closed.

    Raises:
        InvalidRequest: The port is taken, or the address is not of this machine.
    """

    def __init__(self, metrics: Metrics, state: ServerState, host: str, port: int) -> None:
        registry = registry_of(metrics, state)
        try:
            self._server: WSGIServer
            self._thread: threading.Thread
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as err:
            raise InvalidRequest(
                f"Cannot serve metrics on {host}:{port}: {err.strerror}. Set metrics.port to another "
                "(0 takes any free one)."
            ) from err
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stops serving and waits for the thread; blocks for up to half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def registry_of(metrics: Metrics, state: ServerState) -> CollectorRegistry:
    """Registers everything that is served."""
    registry = CollectorRegistry()
    registry.register(_Meters(metrics))
    registry.register(_State(state))
    ProcessCollector(registry=registry)
    return registry


class _Meters(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for counters in self._metrics.counters():
            yield _counter_family(counters)
        for histograms in self._metrics.histograms():
            yield _histogram_family(histograms)


class _State(Collector):
    def __init__(self, state: ServerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        rows = GaugeMetricFamily("penstock_queue_rows", "Rows that wait.", labels=["request_class"])
        tokens = GaugeMetricFamily("penstock_queue_tokens", "Tokens that wait.", labels=["request_class"])
        for request_class in RequestClass:
            waiting_rows, waiting_tokens = self._state.queue(request_class)
            rows.add_metric([class_label(request_class)], waiting_rows)
            tokens.add_metric([class_label(request_class)], waiting_tokens)
        yield rows
        yield tokens
        yield GaugeMetricFamily(
            "penstock_rpcs_in_flight", "Calls under way.", value=self._state.rpcs_in_flight()
        )
        yield CounterMetricFamily(
            "penstock_worker_restarts",
            "How often the bulk worker process was started anew.",
            value=self._state.worker_restarts(),
        )
        if self._state.cache is not None:
            yield from _cache_families(*self._state.cache())


def _cache_families(hits: int, misses: int, entries: int, size_bytes: int) -> Iterator[Metric]:
    rows = CounterMetricFamily("penstock_cache_rows", "Rows that were looked up.", labels=["found"])
    rows.add_metric(["true"], hits)
    rows.add_metric(["false"], misses)
    yield rows
    yield GaugeMetricFamily("penstock_cache_entries", "Rows whose outputs are kept.", value=entries)
    yield GaugeMetricFamily("penstock_cache_bytes", "Memory that they take.", value=size_bytes)


def _labels_of(key: object) -> list[str]:
    parts = cast("tuple[object, ...]", key) if isinstance(key, tuple) else (key,)
    return [str(part) for part in parts]


def _counter_family(counters: Counters[object]) -> CounterMetricFamily:
    name = counters.name
    family = CounterMetricFamily(name.name, name.help, labels=name.labels)
    # The list is made in one step of the interpreter, so the writing thread cannot change the dict meanwhile.
    for key, number in list(counters.numbers.items()):
        family.add_metric(_labels_of(key), number.value)
    return family


def _histogram_family(histograms: Histograms[object]) -> HistogramMetricFamily:
    name = histograms.name
    family = HistogramMetricFamily(name.name, name.help, labels=name.labels)
    for key, distribution in list(histograms.distributions.items()):
        buckets = _cumulative(histograms.bounds, distribution)
        family.add_metric(_labels_of(key), buckets, distribution.total)
    return family


def _cumulative(bounds: tuple[float, ...], distribution: Distribution) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each counts all values up to its bound."""
    counts = distribution.counts.copy()
    seen = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, map(float, bounds)), "+Inf"), counts, strict=True):
        seen += count
        buckets.append((bound, seen))
    return buckets
