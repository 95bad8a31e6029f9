"""Metrics of a real server, read over HTTP while it serves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from penstock import Client, InvalidRequestError
from tests.support.metrics import samples_of
from tests.support.server import ServerThread, running_server


def test_a_server_counts_what_it_does(tmp_path: Path) -> None:
    queues = {"live_tokens_max": 4096, "live_request_tokens_max": 4096}
    with (
        running_server(tmp_path / "data", metrics={"port": 0}, queues=queues) as server,
        Client(server.address) as client,
    ):
        client.embed(["one", "two"], model="minilm", tenant="acme")
        client.classify(["three"], model="injection", request_class="flex")
        list(client.stream(["four", "five"], model="minilm", task="embed"))
        for _ in range(2):
            with pytest.raises(InvalidRequestError, match="Split it"):
                client.embed([f"{index} " * 200 for index in range(60)], model="minilm", request_class="live")
        # A call is counted when its status has been sent, so its caller may be faster.
        deadline_s = time.monotonic() + 10
        while (value := samples_of(server))("penstock_rpcs_total", code="INVALID_ARGUMENT") != 2:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    assert value("penstock_requests_total", method="Embed", outcome="ok", model="minilm") == 1
    assert value("penstock_request_rows_total", method="Embed", outcome="ok") == 2
    assert value("penstock_requests_total", method="Classify", request_class="flex") == 1
    assert value("penstock_requests_total", method="Stream", outcome="ok") == 2
    assert value("penstock_requests_total", outcome="invalid_request") == 2
    assert value("penstock_refused_requests_total", request_class="live", reason="invalid_request") == 2
    assert value("penstock_rpcs_total", method="Embed", code="OK") == 1
    assert value("penstock_rpcs_total", method="Embed", code="INVALID_ARGUMENT") == 2
    assert value("penstock_tenant_requests_total", tenant="acme") == 1
    assert value("penstock_request_duration_seconds_count", request_class="live") == 3
    assert value("penstock_computed_rows_total", request_class="live") == 4
    assert value("penstock_computed_rows_total", request_class="flex") == 1
    assert (value("penstock_batch_padded_tokens_total") or 0) >= (value("penstock_batch_tokens_total") or 1)
    assert value("penstock_queue_rows", request_class="live") == 0
    assert value("process_resident_memory_bytes") is not None


def test_no_metrics_are_served_unasked(live_server: ServerThread) -> None:
    assert live_server.server.metrics_address is None
