"""Bulk jobs through the Python client against the real server."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

import penstock
from penstock import AsyncClient, Client, JobState, Progress
from tests.support.relay import relayed
from tests.support.server import ServerThread

ROWS = 300
EMPTY_ROW = 7
WORDS = ("river", "dam", "turbine", "water", "pipe", "power", "valve", "lake", "spring", "storm", "flood")


@pytest.fixture
def client(live_server: ServerThread) -> Generator[Client]:
    with Client(live_server.address, timeout_s=60) as client:
        yield client


@pytest.fixture(scope="module")
def texts() -> list[str]:
    choose = random.Random(20261123)
    texts = [" ".join(choose.choices(WORDS, k=choose.randint(1, 60))) for _ in range(ROWS)]
    texts[EMPTY_ROW] = ""
    return texts


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    path = tmp_path_factory.mktemp("bulk") / "reviews.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "id"])
        writer.writerows([text, f"key-{row}"] for row, text in enumerate(texts))
    return path


@pytest.fixture(scope="module")
def ended(live_server: ServerThread, source: Path) -> tuple[penstock.Job, list[Progress]]:
    seen: list[Progress] = []
    with Client(live_server.address, timeout_s=60) as client:
        job = client.bulk.submit(
            source,
            model="minilm",
            task="embed",
            text_column="review",
            key_column="id",
            wait=True,
            progress=seen.append,
        )
    return job, seen


def test_a_job_counts_every_row(ended: tuple[penstock.Job, list[Progress]], source: Path) -> None:
    job, seen = ended
    assert (job.state, job.total, job.succeeded, job.failed, job.pending) == (
        JobState.SUCCEEDED,
        ROWS,
        ROWS - 1,
        1,
        0,
    )
    assert (job.model, job.version, job.task) == ("minilm", "1", penstock.Task.EMBED)
    assert job.end_time is not None
    uploads = [each for each in seen if each.phase == "upload"]
    assert uploads[-1].done == uploads[-1].total == source.stat().st_size
    counted = [each.job for each in seen if each.job is not None and each.job.total]
    assert all(each.succeeded + each.failed + each.pending == ROWS for each in counted)


def test_results_agree_with_live_calls(
    client: Client, ended: tuple[penstock.Job, list[Progress]], texts: list[str]
) -> None:
    rows = list(client.bulk.results(ended[0].id))
    assert [(row.row, row.key) for row in rows] == [(number, f"key-{number}") for number in range(ROWS)]
    failed = rows.pop(EMPTY_ROW)
    assert failed.answer is None
    assert isinstance(failed.error, penstock.InvalidRequestError)
    bulk = np.stack([row.embedding.to_numpy() for row in rows if row.embedding is not None])
    live = client.embed([text for text in texts if text], model="minilm").to_numpy()
    assert float((bulk * live).sum(axis=1).min()) > 0.9999


def test_results_are_read_in_parts_and_selections(
    client: Client, ended: tuple[penstock.Job, list[Progress]]
) -> None:
    job = ended[0]
    assert [row.row for row in client.bulk.results(job.id, start_row=ROWS - 2)] == [ROWS - 2, ROWS - 1]
    assert [row.row for row in client.bulk.results(job.id, selection="failed")] == [EMPTY_ROW]
    assert len(list(client.bulk.results(job.id, selection="succeeded"))) == ROWS - 1


def test_result_files_are_whole(
    client: Client, ended: tuple[penstock.Job, list[Progress]], tmp_path: Path
) -> None:
    job = ended[0]
    lines = client.bulk.download(job.id, tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [f"key-{number}" for number in range(ROWS)]
    path = client.bulk.download(job.id, tmp_path / "out.parquet", format="parquet", selection="succeeded")
    with parquet.ParquetFile(path) as file:
        assert file.metadata.num_rows == ROWS - 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.jsonl", "out.parquet"]


def test_a_missing_column_fails_the_job_with_the_columns(client: Client, source: Path) -> None:
    job = client.bulk.submit(source, model="minilm", task="embed", text_column="body", wait=True)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "review" in job.error.message


def test_a_job_for_the_wrong_model_is_refused(client: Client, source: Path) -> None:
    upload_id = client.bulk.upload(source)
    with pytest.raises(penstock.NotFoundError):
        client.bulk.create(upload_id, model="nope", task="embed")
    with pytest.raises(penstock.TaskNotSupportedError):
        client.bulk.create(upload_id, model="minilm", task="classify")


def test_the_same_request_id_makes_one_job(client: Client, source: Path) -> None:
    upload_id = client.bulk.upload(source)
    options = {"model": "minilm", "task": "embed", "text_column": "review", "request_id": "once"}
    first, second = (client.bulk.create(upload_id, **options) for _ in range(2))  # type: ignore[arg-type]
    assert first.id == second.id
    client.bulk.cancel(first.id)
    client.bulk.wait(first.id)
    client.bulk.delete(first.id)


def test_a_job_is_paused_resumed_cancelled_and_deleted(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    # Each is another one: those that are alike would be computed once.
    path.write_text(
        "".join(json.dumps({"text": " ".join([str(n), *WORDS * 18])}) + "\n" for n in range(2000))
    )
    job = client.bulk.submit(path, model="minilm", task="embed", display_name="long")
    running = next(each for each in client.bulk.watch(job.id) if each.state is JobState.RUNNING)
    assert running.total == 2000
    with pytest.raises(penstock.WrongStateError):
        client.bulk.delete(job.id)
    assert client.bulk.pause(job.id).state is JobState.PAUSED
    assert client.bulk.resume(job.id).state in {JobState.RUNNING, JobState.VALIDATING}
    listed = {each.id: each.state for each in client.bulk.list()}
    assert listed[job.id] in {JobState.RUNNING, JobState.VALIDATING}
    assert job.id in {each.id for each in client.bulk.list(states=[JobState.RUNNING, "validating"])}
    client.bulk.cancel(job.id)
    ended = client.bulk.wait(job.id)
    assert ended.state is JobState.CANCELLED
    assert ended.succeeded + ended.failed + ended.pending == ended.total
    client.bulk.delete(job.id)
    with pytest.raises(penstock.NotFoundError):
        client.bulk.get(job.id)


def test_a_wait_ends_with_its_timeout(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"text": " ".join(WORDS * 18)}) + "\n" for _ in range(2000)))
    job = client.bulk.submit(path, model="minilm", task="embed")
    with pytest.raises(penstock.DeadlineExceededError):
        client.bulk.wait(job.id, timeout_s=0.3)
    client.bulk.cancel(job.id)
    client.bulk.wait(job.id)


def test_an_upload_survives_cut_connections(live_server: ServerThread, tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    path.write_text("text\n" + "".join(f"row {number} {'x' * 400}\n" for number in range(20_000)))
    size_bytes = path.stat().st_size
    with relayed(live_server.address, [size_bytes // 3, size_bytes // 3], counts="sent") as relay:
        with Client(relay.address) as client:
            upload_id = client.bulk.upload(path)
        assert relay.cuts == 2
    with Client(live_server.address) as client:
        # Complete, with the checksum of the whole file: a job may be made of it.
        job = client.bulk.create(upload_id, model="minilm", task="embed")
        client.bulk.cancel(job.id)
        client.bulk.wait(job.id)


def test_results_survive_cut_connections(
    live_server: ServerThread, ended: tuple[penstock.Job, list[Progress]]
) -> None:
    with relayed(live_server.address, [100_000, 100_000], counts="received") as relay:
        with Client(relay.address) as client:
            rows = [row.row for row in client.bulk.results(ended[0].id)]
        assert relay.cuts == 2
    assert rows == list(range(ROWS))


async def test_the_async_client_runs_a_job(live_server: ServerThread, source: Path) -> None:
    async with AsyncClient(live_server.address) as client:
        job = await client.bulk.submit(
            source, model="minilm", task="embed", text_column="review", key_column="id", wait=True
        )
        keys = [row.key async for row in client.bulk.results(job.id)]
    assert job.state is JobState.SUCCEEDED
    assert keys == [f"key-{number}" for number in range(ROWS)]


def test_a_job_whose_time_runs_out_expires_and_keeps_what_is_done(
    live_server: ServerThread, tmp_path: Path, texts: list[str]
) -> None:
    rows = 40_000
    path = tmp_path / "many.jsonl"
    long = " ".join(texts[:10])
    with path.open("w") as file:
        file.writelines(json.dumps({"id": row, "text": f"{row} {long}"}) + "\n" for row in range(rows))
    with Client(live_server.address, timeout_s=60) as client:
        upload_id = client.bulk.upload(path)
        expire_time = datetime.now(UTC) + timedelta(seconds=4)
        job = client.bulk.create(
            upload_id, model="minilm", task="embed", key_column="id", weight=500, expire_time=expire_time
        )
        assert (job.weight, job.expire_time) == (500, expire_time)
        ended = client.bulk.wait(job.id)
        assert ended.state is JobState.EXPIRED
        assert ended.end_time is not None
        assert ended.end_time >= expire_time
        assert ended.error is None
        assert ended.total == rows
        assert 0 < ended.succeeded < rows
        assert ended.succeeded + ended.failed + ended.pending == rows
        done = list(client.bulk.results(job.id))
        assert len(done) == ended.succeeded
        assert all(row.key == row.row and row.embedding is not None for row in done)
        client.bulk.download(job.id, tmp_path / "done.parquet", format="parquet")
        assert parquet.ParquetFile(tmp_path / "done.parquet").metadata.num_rows == ended.succeeded
        with pytest.raises(penstock.InvalidRequestError, match="has passed"):
            client.bulk.create(upload_id, model="minilm", task="embed", expire_time=expire_time)
        client.bulk.delete(job.id)
