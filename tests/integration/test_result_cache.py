"""Calls and jobs share what was computed before; metrics tell how much."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from penstock import Client
from tests.support.metrics import samples_of
from tests.support.server import ServerThread, running_server

TEXTS = ["A quiet film.", "A loud one!", "Too long by an hour."]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerThread]:
    folder = tmp_path_factory.mktemp("cache") / "data"
    with running_server(folder, cache={"bytes_max": 1 << 20}, metrics={"port": 0}) as server:
        yield server


def vectors(client: Client, texts: list[str]) -> list[list[float]]:
    return [list(embedding) for embedding in client.embed(texts, model="minilm")]


def cached_rows(client: Client, texts: list[str], tenant: str = "") -> int:
    explanation = client.embed(texts, model="minilm", explain=True, tenant=tenant).info.explanation
    assert explanation is not None
    return explanation.cached_rows


def test_a_call_finds_what_a_job_has_computed_and_the_other_way_round(
    server: ServerThread, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    with Client(server.address) as client:
        first = vectors(client, TEXTS[:1])
        job = client.bulk.wait(client.bulk.submit(path, model="minilm", task="embed").id)
        assert job.succeeded == 3
        rows = [list(row.embedding or ()) for row in client.bulk.results(job.id)]
        # The very numbers, not another computation of them.
        assert rows[0] == first[0]
        assert cached_rows(client, [*TEXTS, "New."]) == 3
        assert vectors(client, TEXTS) == rows
        # The same output under another option of the head.
        (short,) = client.embed(TEXTS[:1], model="minilm", dimensions=8)
        assert len(short) == 8


def test_no_tenant_finds_what_another_has_asked(server: ServerThread) -> None:
    with Client(server.address) as client:
        assert cached_rows(client, ["Mine alone."], tenant="a") == 0
        assert cached_rows(client, ["Mine alone."], tenant="b") == 0
        assert cached_rows(client, ["Mine alone."], tenant="a") == 1


def test_metrics_tell_how_the_cache_does(server: ServerThread) -> None:
    with Client(server.address) as client:
        client.embed(["Counted."], model="minilm")
        client.embed(["Counted."], model="minilm")
    value = samples_of(server)
    assert (value("penstock_cache_rows_total", found="true") or 0) >= 1
    assert (value("penstock_cache_rows_total", found="false") or 0) >= 1
    assert (value("penstock_cache_entries") or 0) >= 1
    assert 0 < (value("penstock_cache_bytes") or 0) <= 1 << 20
