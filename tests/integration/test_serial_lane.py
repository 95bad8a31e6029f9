"""A server whose live and bulk work run on one serial lane."""

from __future__ import annotations

import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from penstock import BatchExplanation, Client, JobState, RequestClass
from tests.support.server import ServerThread, running_server, server_process

ROWS = 200
TIMEOUT_S = 60
# A machine that other work slows down still fills batches.
LANES = {"kind": "serial", "serial": {"fill_us_max": 1_000_000}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerThread]:
    with running_server(tmp_path_factory.mktemp("serial") / "data", lanes=LANES) as server:
        yield server


def text_of(kind: str, number: int) -> str:
    """All of one length, so that bulk rows fit into live batches without padding."""
    return f"{kind} {number // 20} of {number % 20} tells of water" + " and power" * 5


def texts_of(rows: int) -> list[str]:
    return [text_of("row", number) for number in range(rows)]


def source(folder: Path, texts: list[str]) -> Path:
    path = folder / "rows.jsonl"
    lines = [json.dumps({"key": str(row), "text": text}) for row, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_live_calls_and_a_job_share_the_lane_and_its_batches(server: ServerThread, tmp_path: Path) -> None:
    texts = texts_of(ROWS)
    batches: list[BatchExplanation] = []
    calls: list[tuple[str, list[float]]] = []
    with Client(server.address, timeout_s=TIMEOUT_S) as client:
        job_id = client.bulk.submit(
            source(tmp_path, texts), model="minilm", task="embed", key_column="key"
        ).id
        while client.bulk.get(job_id).end_time is None:
            text = text_of("call", len(calls))
            answer = client.embed([text], model="minilm", explain=True)
            calls.append((text, list(answer[0])))
            assert answer.info.explanation is not None
            batches += answer.info.explanation.batches
        job = client.bulk.get(job_id)
        rows = list(client.bulk.results(job_id))
        expected = client.embed([*texts, *(text for text, _ in calls)], model="minilm").to_numpy()
    assert (job.state, job.succeeded) == (JobState.SUCCEEDED, ROWS)
    assert [(row.row, row.key) for row in rows] == [(row, str(row)) for row in range(ROWS)]
    found = [*(list(row.embedding or ()) for row in rows), *(vector for _, vector in calls)]
    assert float((np.array(found) * expected).sum(axis=1).min()) > 0.9999
    assert {batch.lane for batch in batches} == {"serial-0"}
    assert any({RequestClass.LIVE, RequestClass.BULK} <= batch.shared_with.keys() for batch in batches)


def test_drain_answers_live_calls_and_the_next_server_ends_the_job(tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text('[lanes]\nkind = "serial"\n')
    texts = texts_of(2 * ROWS)
    with (
        server_process(tmp_path / "data", "--config", str(config)) as server,
        Client(server.address, timeout_s=TIMEOUT_S) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        job_id = client.bulk.submit(source(tmp_path, texts), model="minilm", task="embed").id
        next(job for job in client.bulk.watch(job_id) if job.state is JobState.RUNNING)
        call = pool.submit(client.embed, texts[:100], model="minilm")
        client.embed(["a call that comes behind that one"], model="minilm")
        assert server.terminate() == 0
        assert len(call.result(TIMEOUT_S)) == 100
    with (
        running_server(tmp_path / "data", lanes=LANES) as again,
        Client(again.address, timeout_s=TIMEOUT_S) as client,
    ):
        job = client.bulk.wait(job_id)
        assert (job.state, job.succeeded) == (JobState.SUCCEEDED, len(texts))
