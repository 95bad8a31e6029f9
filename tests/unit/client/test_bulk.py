"""Bulk transfers over a real wire: broken uploads, watches and results go on where they were."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import pytest

import penstock
from penstock import AsyncClient, Client, JobState, Progress
from penstock.transfer import BACKOFF_FIRST_S, BACKOFF_MAX_S, CHUNK_BYTES, FAILURES_MAX, Patience
from tests.unit.client.scripted import Refusal, Script, info_of

SIZE_BYTES = 2 * CHUNK_BYTES + 17
# Computed bit by bit, apart from any library.
CRC32C_OF_SOURCE = 0x125EADE8
CUT = Refusal(grpc.StatusCode.UNAVAILABLE, "cut", (info_of("DRAINING"),))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(bytes(range(256)) * (SIZE_BYTES // 256) + b"x" * (SIZE_BYTES % 256))
    return path


def test_a_file_is_sent_in_checked_chunks(client: Client, script: Script, source: Path) -> None:
    seen: list[Progress] = []
    job = client.bulk.submit(
        source,
        model="m",
        task="embed",
        text_column="review",
        key_column="id",
        input_format="jsonl",
        dimensions=8,
        weight=7,
        expire_time=datetime(2031, 5, 6, 9, tzinfo=timezone(timedelta(hours=2))),
        progress=seen.append,
    )
    assert script.stored == source.read_bytes()
    opening = script.requests[0]
    assert (opening.file_name, opening.size_bytes) == ("rows.jsonl", SIZE_BYTES)
    assert opening.crc32c == CRC32C_OF_SOURCE
    assert opening.sha256 == hashlib.sha256(source.read_bytes()).digest()
    assert script.chunks == [
        (0, CHUNK_BYTES, True),
        (CHUNK_BYTES, CHUNK_BYTES, True),
        (2 * CHUNK_BYTES, 17, True),
    ]
    assert [each.done for each in seen] == [CHUNK_BYTES, 2 * CHUNK_BYTES, SIZE_BYTES]
    assert {each.total for each in seen} == {SIZE_BYTES}
    spec = script.requests[-1].spec
    assert (spec.upload_id, spec.text_column, spec.key_column, spec.input_format) == ("u1", "review", "id", 1)
    assert spec.embed.dimensions == 8
    assert (spec.weight, spec.expire_time.ToJsonString()) == (7, "2031-05-06T07:00:00Z")
    assert script.requests[-1].request_id
    assert (job.id, job.state, job.total, job.succeeded, job.failed, job.pending) == (
        "j1",
        JobState.RUNNING,
        10,
        0,
        0,
        10,
    )


def test_a_file_that_the_server_has_is_not_sent(client: Client, script: Script, source: Path) -> None:
    script.upload_is_known = True
    seen: list[Progress] = []
    assert client.bulk.upload(source, progress=seen.append) == "u1"
    assert (len(script.requests), script.chunks) == (1, [])
    assert [(each.done, each.total) for each in seen] == [(SIZE_BYTES, SIZE_BYTES)]


def test_a_small_file_is_sent_without_being_asked_for(client: Client, script: Script, tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    path.write_bytes(b"x" * (CHUNK_BYTES - 1))
    client.bulk.upload(path)
    assert not script.requests[0].HasField("sha256")
    assert len(script.stored) == CHUNK_BYTES - 1


def test_where_and_how_results_are_delivered(client: Client, script: Script) -> None:
    job = client.bulk.create(
        model="m",
        task="embed",
        input_url="s3://bucket/in/",
        output_url="s3://bucket/out",
        output_format="jsonl",
        output_rows_per_file=500,
    )
    spec = script.requests[-1].spec
    assert (spec.input_url, spec.output_url) == ("s3://bucket/in/", "s3://bucket/out")
    assert (spec.output_format, spec.output_rows_per_file) == (1, 500)
    assert (job.output_format.value, job.output_rows_per_file) == ("unspecified", 0)


def test_a_broken_upload_goes_on_where_it_was(client: Client, script: Script, source: Path) -> None:
    script.cut_upload_at.extend([1, CHUNK_BYTES + 1])
    client.bulk.upload(source)
    assert script.stored == source.read_bytes()
    assert [chunk[0] for chunk in script.chunks] == [0, CHUNK_BYTES, 2 * CHUNK_BYTES]


def test_an_earlier_upload_is_gone_on_with(client: Client, script: Script, source: Path) -> None:
    script.upload.id = "u7"
    script.upload.size_bytes = SIZE_BYTES
    script.stored += source.read_bytes()[:100]
    assert client.bulk.upload(source, upload_id="u7") == "u7"
    assert script.stored == source.read_bytes()


def test_another_files_upload_is_not_gone_on_with(client: Client, script: Script, source: Path) -> None:
    script.upload.size_bytes = 5
    with pytest.raises(ValueError, match="upload the file anew"):
        client.bulk.upload(source, upload_id="u7")


def test_a_refused_upload_is_not_tried_again(client: Client, script: Script, source: Path) -> None:
    script.refusals.append(
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large", (info_of("STORAGE_FULL"),))
    )
    with pytest.raises(penstock.OverloadedError, match="too large"):
        client.bulk.upload(source)
    assert len(script.requests) == 1


def test_a_file_that_arrives_changed_is_data_loss(client: Client, script: Script, source: Path) -> None:
    script.spoil_upload = True
    with pytest.raises(penstock.DataLossError, match="changed"):
        client.bulk.upload(source)


def test_an_empty_file_is_refused_before_anything_is_sent(client: Client, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match="is empty"):
        client.bulk.submit(tmp_path / "empty.csv", model="m", task="embed")


def test_a_missing_file_is_an_os_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.bulk.submit(tmp_path / "none.csv", model="m", task="embed")


def test_waiting_tells_progress_and_survives_a_break(client: Client, script: Script, source: Path) -> None:
    seen: list[Progress] = []
    job = client.bulk.submit(source, model="m", task="embed")
    script.refusals.extend([CUT, CUT])
    ended = client.bulk.wait(job.id, progress=seen.append)
    assert ended.state is JobState.SUCCEEDED
    assert ended.succeeded + ended.failed + ended.pending == ended.total == 10
    assert [each.done for each in seen][-1] == 10
    assert seen[0].phase == "rows"
    assert (seen[0].per_second, seen[0].time_left_s) == (4.0, 8.0)


def test_results_have_rows_keys_answers_and_errors(client: Client) -> None:
    rows = list(client.bulk.results("j1"))
    assert [row.row for row in rows] == list(range(10))
    assert rows[2].key == "k2"
    assert rows[2].embedding is not None
    assert rows[2].embedding.tolist() == [2.0]
    assert rows[2].answer is rows[2].embedding
    assert (rows[3].key, rows[3].answer) == (3, None)
    assert isinstance(rows[3].error, penstock.InvalidRequestError)


def test_broken_results_go_on_at_the_next_row(client: Client, script: Script) -> None:
    script.cut_results_after.extend([4, 1])
    rows = [row.row for row in client.bulk.results("j1", start_row=2, selection="succeeded")]
    assert rows == list(range(2, 10))
    assert [request.start_row for request in script.requests] == [2, 6, 7]
    assert {request.selection for request in script.requests} == {1}


def test_a_download_appears_only_when_it_is_whole(client: Client, script: Script, tmp_path: Path) -> None:
    script.cut_results_after.append(3)
    path = client.bulk.download("j1", tmp_path / "out.jsonl")
    assert len(path.read_text().splitlines()) == 10
    script.refusals.append(Refusal(grpc.StatusCode.FAILED_PRECONDITION, "running", (info_of("WRONG_STATE"),)))
    with pytest.raises(penstock.WrongStateError):
        client.bulk.download("j1", tmp_path / "other.jsonl", format="parquet")
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]


def test_jobs_are_listed_over_pages(client: Client, script: Script) -> None:
    assert [job.id for job in client.bulk.list(states=["running"])] == ["j0", "j1", "j2", "j3", "j4"]
    assert list(script.requests[0].states) == [2]
    assert [job.id for job in client.bulk.list(jobs_max=3)] == ["j0", "j1", "j2"]


def test_the_other_job_calls(client: Client) -> None:
    job = client.bulk.get("j1")
    assert (job.model, job.task) == ("m", penstock.Task.EMBED)
    assert job.create_time is not None
    assert job.create_time.timestamp() == 1_700_000_000
    assert job.start_time is None
    assert client.bulk.cancel("j1").has_ended
    client.bulk.delete("j1")
    assert client.bulk.resume("j1").state is JobState.RUNNING
    with pytest.raises(penstock.UnimplementedError):
        client.bulk.pause("j1")


async def test_the_async_client_does_the_same(
    async_client: AsyncClient, script: Script, source: Path, tmp_path: Path
) -> None:
    script.cut_upload_at.append(1)
    script.cut_results_after.append(4)
    job = await async_client.bulk.submit(source, model="m", task="embed", wait=True)
    assert len(script.stored) == SIZE_BYTES
    assert job.state is JobState.SUCCEEDED
    assert [row.row async for row in async_client.bulk.results("j1")] == list(range(10))
    path = await async_client.bulk.download("j1", tmp_path / "out.jsonl")
    assert path.name == "out.jsonl"
    assert len(await async_client.bulk.list()) == 5


def test_patience_grows_and_ends_and_progress_restores_it() -> None:
    patience = Patience()
    broken = penstock.UnavailableError("cut")
    delays_s = [patience.delay_s(broken) for _ in range(FAILURES_MAX - 1)]
    assert delays_s == [min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**n) for n in range(FAILURES_MAX - 1)]
    with pytest.raises(penstock.UnavailableError):
        patience.delay_s(broken)
    patience.progressed()
    assert patience.delay_s(broken) == BACKOFF_FIRST_S
    with pytest.raises(penstock.NotFoundError):
        Patience().delay_s(penstock.NotFoundError("gone"))
