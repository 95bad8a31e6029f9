"""Reads the metrics of a server as a scraper does."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import ServerThread

Samples = Callable[..., float | None]


def samples_of(server: ServerThread) -> Samples:
    """Fetches all samples; returns what finds the sum of those with a name and labels, or None."""
    with urllib.request.urlopen(f"http://{server.server.metrics_address}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))

    def value(name: str, **labels: str) -> float | None:
        found = [
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    return value
