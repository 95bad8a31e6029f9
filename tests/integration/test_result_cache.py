"""Calls and jobs share what was computed before; metrics tell how much."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from penstock import Client
from tests.support.server import ServerThread, running_server

TEXTS = ["A quiet film.", "A loud one!", "Too long by an hour."]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerThread]:
    folder = tmp_path_factory.mktemp("cache") / "data"
    with running_server(folder, cache={"bytes_max": 1 << 20}, metrics={"port": 0}) as server:
        yield server


def cached_rows(client: Client, texts: list[str], **options: str) -> int:
    explanation = client.embed(texts, model="minilm", explain=True, **options).info.explanation
    assert explanation is not None
    return explanation.cached_rows


def test_a_call_finds_what_a_job_has_computed_and_the_other_way_round(
    server: ServerThread, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    with Client(server.address) as client:
        first = client.embed(TEXTS[:1], model="minilm")
        job = client.bulk.wait(client.bulk.submit(path, model="minilm", task="embed").id)
        assert job.succeeded == 3
        vectors = [row.embedding for row in client.bulk.results(job.id)]
        # The very numbers, not another computation of them.
        assert np.array_equal(vectors[0], first.vectors[0])
        assert cached_rows(client, [*TEXTS, "New."]) == 3
        assert np.array_equal(client.embed(TEXTS, model="minilm").vectors, np.array(vectors))
        # The same output under another head's options.
        short = client.embed(TEXTS[:1], model="minilm", dimensions=8)
        assert short.vectors.shape == (1, 8)


def test_no_tenant_finds_what_another_has_asked(server: ServerThread) -> None:
    with Client(server.address) as client:
        assert cached_rows(client, ["Mine alone."], tenant="a") == 0
        assert cached_rows(client, ["Mine alone."], tenant="b") == 0
        assert cached_rows(client, ["Mine alone."], tenant="a") == 1


def test_metrics_tell_how_the_cache_does(server: ServerThread) -> None:
    with Client(server.address) as client:
        client.embed(["Counted."], model="minilm")
        client.embed(["Counted."], model="minilm")
    with urlopen(f"http://{server.metrics_address}/metrics") as page:
        lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[0] != "#")
    assert float(lines['penstock_cache_rows_total{found="true"}']) >= 1
    assert float(lines['penstock_cache_rows_total{found="false"}']) >= 1
    assert float(lines["penstock_cache_entries"]) >= 1
    assert 0 < float(lines["penstock_cache_bytes"]) <= 1 << 20
