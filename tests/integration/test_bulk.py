"""Bulk jobs over gRPC with the real models, while live calls run."""

from __future__ import annotations

import csv
import functools
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

import penstock
from penstock.v1 import bulk_pb2, bulk_pb2_grpc, common_pb2
from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.checksum import crc32c
from penstock_server.bulk.limits import BulkLimits
from tests.support.reviews import reviews
from tests.support.server import ServerThread, running_server, server_process

# Short pieces of the reviews keep the test quick; every text is real.
CHARS_MAX = 40
WINDOW_ROWS = 64


@pytest.fixture
def client(live_server: ServerThread) -> Generator[penstock.Client]:
    with penstock.Client(live_server.address) as client:
        yield client


@pytest.fixture
def stub(live_server: ServerThread) -> Generator[Any]:
    with grpc.insecure_channel(live_server.address) as channel:
        yield bulk_pb2_grpc.BulkServiceStub(channel)


def texts_of(count: int) -> list[str]:
    return [review[:CHARS_MAX] for review in reviews(count)]


def write_csv(path: Path, texts: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "review"])
        writer.writerows((f"review-{row}", text) for row, text in enumerate(texts))
    return path


def check_sum(job: penstock.Job) -> penstock.Job:
    assert job.succeeded + job.failed + job.pending == job.total
    return job


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str, str]:
    """Status, reason and message of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    trailers: dict[str, bytes] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return error.code(), info.reason, status.message


def upload(stub: Any, name: str, data: bytes, chunk_bytes: int = 1 << 20) -> bulk_pb2.Upload:
    def messages() -> Iterator[bulk_pb2.UploadRequest]:
        header = bulk_pb2.UploadHeader(file_name=name, size_bytes=len(data), crc32c=crc32c(data))
        yield bulk_pb2.UploadRequest(header=header)
        for offset in range(0, len(data), chunk_bytes):
            part = data[offset : offset + chunk_bytes]
            chunk = bulk_pb2.UploadChunk(offset=offset, data=part, crc32c=crc32c(part))
            yield bulk_pb2.UploadRequest(chunk=chunk)

    response: bulk_pb2.UploadResponse = stub.Upload(messages())
    return response.upload


def spec_of(upload_id: str, **fields: Any) -> bulk_pb2.JobSpec:
    values: dict[str, Any] = {
        "model": common_pb2.ModelRef(name="minilm"),
        "task": common_pb2.TASK_EMBED,
        "upload_id": upload_id,
        **fields,
    }
    return bulk_pb2.JobSpec(**values)


def run_job(stub: Any, spec: bulk_pb2.JobSpec) -> bulk_pb2.Job:
    job: bulk_pb2.Job = stub.CreateJob(bulk_pb2.CreateJobRequest(spec=spec)).job
    for response in stub.WatchJob(bulk_pb2.WatchJobRequest(job_id=job.id, interval_ms=100)):
        job = response.job
    return job


def test_thousands_of_reviews_keep_count_order_and_keys_while_live_calls_are_answered(
    client: penstock.Client, tmp_path: Path
) -> None:
    texts = texts_of(2000)
    texts[7] = ""
    path = write_csv(tmp_path / "reviews.csv", texts)
    live_answers: list[int] = []
    ended = threading.Event()

    def live() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            answer = client.embed([texts[100 + number % 100]], model="minilm")
            live_answers.append(len(answer))

    caller = threading.Thread(target=live)
    job = client.bulk.submit(path, model="minilm", task="embed", text_column="review", key_column="key")
    caller.start()
    try:
        states = [check_sum(state) for state in client.bulk.watch(job.id)]
    finally:
        ended.set()
        caller.join()
    assert live_answers
    assert states[-1].state.value == "succeeded"
    assert (states[-1].total, states[-1].succeeded, states[-1].failed) == (2000, 1999, 1)
    assert any(0 < state.pending < state.total for state in states)

    rows = list(client.bulk.results(job.id))
    assert [row.row for row in rows] == list(range(2000))
    assert [row.key for row in rows] == [f"review-{row}" for row in range(2000)]
    assert [row.row for row in rows if row.error is not None] == [7]
    chosen = [0, 1, 1500, 1999]
    live_vectors = client.embed([texts[row] for row in chosen], model="minilm")
    for row, alone in zip(chosen, live_vectors, strict=True):
        together = rows[row].embedding
        assert together is not None
        assert np.dot(np.asarray(together), np.asarray(alone)) > 0.9999

    table = pq.read_table(client.bulk.download(job.id, tmp_path / "out.parquet", format="parquet"))
    assert table.column("key").to_pylist() == [row.key for row in rows]
    np.testing.assert_array_equal(table.column("embedding")[1500].values, np.asarray(rows[1500].embedding))
    lines = client.bulk.download(job.id, tmp_path / "errors.jsonl", selection="failed").read_text()
    assert [json.loads(line)["key"] for line in lines.splitlines()] == ["review-7"]


def test_labels_of_a_job_equal_those_of_live_calls(client: penstock.Client, tmp_path: Path) -> None:
    texts = texts_of(60)
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(texts)))
    job = client.bulk.submit(path, model="injection", task="classify", key_column="n", wait=True)
    rows = list(client.bulk.results(job.id))
    assert [row.key for row in rows] == list(range(60))
    for row, alone in zip(rows, client.classify(texts, model="injection"), strict=True):
        assert row.classification is not None
        assert [label.label for label in row.classification.labels] == [label.label for label in alone.labels]
        scores = [label.score for label in row.classification.labels]
        assert scores == pytest.approx([label.score for label in alone.labels], abs=1e-4)


def test_a_cut_upload_goes_on_from_the_committed_bytes(stub: Any) -> None:
    data = b"text\n" + b"a line of text\n" * 100
    header = bulk_pb2.UploadHeader(file_name="in.csv", size_bytes=len(data), crc32c=crc32c(data))
    cut = threading.Event()

    def first_half() -> Iterator[bulk_pb2.UploadRequest]:
        yield bulk_pb2.UploadRequest(header=bulk_pb2.UploadHeader(upload_id=upload_id))
        yield bulk_pb2.UploadRequest(chunk=bulk_pb2.UploadChunk(offset=0, data=data[:700]))
        cut.wait(10)

    upload_id = stub.Upload(iter([bulk_pb2.UploadRequest(header=header)])).upload.id
    call = stub.Upload.future(first_half())
    call.cancel()
    cut.set()
    committed = stub.GetUpload(bulk_pb2.GetUploadRequest(upload_id=upload_id)).upload.committed_bytes

    def rest() -> Iterator[bulk_pb2.UploadRequest]:
        yield bulk_pb2.UploadRequest(header=bulk_pb2.UploadHeader(upload_id=upload_id))
        # The cut call may have committed more meanwhile; opening the upload took it over.
        now = stub.GetUpload(bulk_pb2.GetUploadRequest(upload_id=upload_id)).upload.committed_bytes
        assert committed <= now <= 700
        yield bulk_pb2.UploadRequest(chunk=bulk_pb2.UploadChunk(offset=now, data=data[now:]))

    done = stub.Upload(rest()).upload
    assert done.complete
    assert done.committed_bytes == len(data)


def test_a_file_that_was_sent_before_is_not_sent_again(
    client: penstock.Client, stub: Any, tmp_path: Path
) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text\n" + "".join(f"film {row} {'x' * 100}\n" for row in range(12_000)))
    first = client.bulk.upload(path)
    renamed = path.rename(tmp_path / "other.csv")
    sent: list[int] = []
    assert client.bulk.upload(renamed, progress=lambda progress: sent.append(progress.done)) == first
    assert sent == [renamed.stat().st_size]
    known = stub.GetUpload(bulk_pb2.GetUploadRequest(upload_id=first)).upload
    kept = known.expire_time.ToDatetime() - known.create_time.ToDatetime()
    assert timedelta(days=7) <= kept < timedelta(days=7, hours=1)
    # Another ending may mean another format, and another hash is another file.
    assert client.bulk.upload(renamed.rename(tmp_path / "other.jsonl")) != first
    # Who sends the bytes all the same gets the answer, too.
    data = b"text\na film\n"
    hashed = bulk_pb2.UploadHeader(
        file_name="b.csv", size_bytes=len(data), sha256=hashlib.sha256(data).digest()
    )
    chunk = bulk_pb2.UploadRequest(chunk=bulk_pb2.UploadChunk(data=data))
    ids = {stub.Upload(iter([bulk_pb2.UploadRequest(header=hashed), chunk])).upload.id for _ in range(3)}
    assert len(ids) == 1
    wrong = bulk_pb2.UploadHeader(file_name="a.csv", size_bytes=3, sha256=bytes(32))
    messages = [
        bulk_pb2.UploadRequest(header=wrong),
        bulk_pb2.UploadRequest(chunk=bulk_pb2.UploadChunk(data=b"abc")),
    ]
    code, reason, message = failure(lambda: stub.Upload(iter(messages)))
    assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_UPLOAD")
    assert "SHA-256" in message


def test_bad_uploads_are_refused_with_a_reason(stub: Any) -> None:
    code, reason, _ = failure(lambda: upload(stub, "a/b.csv", b"x"))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    chunk = bulk_pb2.UploadRequest(chunk=bulk_pb2.UploadChunk(data=b"x"))
    assert failure(lambda: stub.Upload(iter([chunk])))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert failure(lambda: stub.Upload(iter([])))[0] is grpc.StatusCode.INVALID_ARGUMENT
    big = bulk_pb2.UploadHeader(file_name="a.csv", size_bytes=1 << 50)
    code, reason, message = failure(lambda: stub.Upload(iter([bulk_pb2.UploadRequest(header=big)])))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
    assert "Split it" in message
    bad = bulk_pb2.UploadHeader(file_name="a.csv", size_bytes=3, crc32c=1)
    messages = [
        bulk_pb2.UploadRequest(header=bad),
        bulk_pb2.UploadRequest(chunk=bulk_pb2.UploadChunk(data=b"abc")),
    ]
    code, reason, _ = failure(lambda: stub.Upload(iter(messages)))
    assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_UPLOAD")
    unknown = bulk_pb2.GetUploadRequest(upload_id="upload-none")
    assert failure(lambda: stub.GetUpload(unknown))[:2] == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_UPLOAD")


def test_jobs_that_cannot_be_are_refused_with_a_reason(stub: Any) -> None:
    whole = upload(stub, "in.jsonl", b'{"text": "a"}\n')
    part = stub.Upload(
        iter([bulk_pb2.UploadRequest(header=bulk_pb2.UploadHeader(file_name="a.csv", size_bytes=9))])
    ).upload
    odd = upload(stub, "in.txt", b"a\n")
    minilm, other = common_pb2.ModelRef(name="minilm"), common_pb2.ModelRef(name="other")
    cases: list[tuple[bulk_pb2.JobSpec, grpc.StatusCode, str]] = [
        (spec_of(whole.id, model=other), grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL"),
        (
            spec_of(whole.id, model=minilm, task=common_pb2.TASK_CLASSIFY),
            grpc.StatusCode.FAILED_PRECONDITION,
            "TASK_NOT_SUPPORTED",
        ),
        (spec_of(part.id), grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"),
        (spec_of("upload-none"), grpc.StatusCode.NOT_FOUND, "UNKNOWN_UPLOAD"),
        (spec_of(""), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (spec_of(whole.id, task=0), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (spec_of(whole.id, model=common_pb2.ModelRef()), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (spec_of(odd.id), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (
            spec_of(whole.id, embed=common_pb2.EmbedOptions(dimensions=9999)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
        ),
    ]
    for spec, code, reason in cases:
        create = functools.partial(stub.CreateJob, bulk_pb2.CreateJobRequest(spec=spec))
        assert failure(create)[:2] == (code, reason)
    job_id = "job-none"
    for call in (
        lambda: stub.GetJob(bulk_pb2.GetJobRequest(job_id=job_id)),
        lambda: stub.PauseJob(bulk_pb2.PauseJobRequest(job_id=job_id)),
        lambda: list(stub.WatchJob(bulk_pb2.WatchJobRequest(job_id=job_id))),
        lambda: list(stub.ReadResults(bulk_pb2.ReadResultsRequest(job_id=job_id))),
    ):
        assert failure(call)[:2] == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_JOB")


def parquet_bytes(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("cut.parquet", parquet_bytes(["a"] * 99)[:-20], "may be cut short"),
        ("in.csv", b"id,body\n1,a\n", "no column 'text'. Columns of this input: id, body"),
        ("in.jsonl", b'{"body": "a"}\n', "No line has a field 'text'"),
        ("in.csv", b"text\n", "no rows"),
    ],
)
def test_inputs_that_cannot_be_read_fail_the_job_with_a_reason(
    stub: Any, name: str, data: bytes, message: str
) -> None:
    job = run_job(stub, spec_of(upload(stub, name, data).id))
    assert job.state == bulk_pb2.JOB_STATE_FAILED
    assert message in job.error.message
    assert job.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert list(stub.ReadResults(bulk_pb2.ReadResultsRequest(job_id=job.id))) == []


def test_invalid_utf8_in_a_csv_fails_its_row_alone(stub: Any) -> None:
    job = run_job(stub, spec_of(upload(stub, "in.csv", b"text\ngood\ncaf\xe9\nfine\n").id))
    assert (job.state, job.progress.succeeded, job.progress.failed) == (bulk_pb2.JOB_STATE_SUCCEEDED, 2, 1)
    request = bulk_pb2.ReadResultsRequest(job_id=job.id, selection=bulk_pb2.ROW_SELECTION_FAILED)
    (row,) = [row for response in stub.ReadResults(request) for row in response.rows]
    assert row.row == 1
    assert row.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_pause_resume_cancel_and_delete(client: penstock.Client, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "reviews.csv", texts_of(1500))
    job = client.bulk.submit(path, model="minilm", task="embed", text_column="review", key_column="key")
    for state in client.bulk.watch(job.id):
        if state.done > 0:
            break
    paused = check_sum(client.bulk.pause(job.id))
    assert paused.state.value == "paused"
    with pytest.raises(penstock.WrongStateError):
        client.bulk.delete(job.id)
    client.bulk.resume(job.id)
    client.bulk.cancel(job.id)
    ended = check_sum(client.bulk.wait(job.id))
    assert ended.state.value == "cancelled"
    assert ended.done >= paused.done > 0
    rows = list(client.bulk.results(job.id))
    assert len(rows) == ended.done
    assert all(row.key == f"review-{row.row}" for row in rows)
    assert job.id in [listed.id for listed in client.bulk.list(states=["cancelled"])]
    client.bulk.delete(job.id)
    with pytest.raises(penstock.NotFoundError):
        client.bulk.get(job.id)


def test_a_drain_waits_neither_for_silent_uploads_nor_for_watchers(tmp_path: Path) -> None:
    text = b'{"text": "a drain need not wait"}\n'
    silent = threading.Event()
    commit_bytes = BulkLimits().upload_commit_bytes

    def half() -> Iterator[bulk_pb2.UploadRequest]:
        yield bulk_pb2.UploadRequest(header=bulk_pb2.UploadHeader(upload_id=part.id))
        for offset in range(0, commit_bytes, 1 << 20):
            chunk = bulk_pb2.UploadChunk(offset=offset, data=bytes(1 << 20))
            yield bulk_pb2.UploadRequest(chunk=chunk)
        silent.wait(60)

    def committed(stub: Any) -> int:
        state: bulk_pb2.Upload = stub.GetUpload(bulk_pb2.GetUploadRequest(upload_id=part.id)).upload
        return state.committed_bytes

    with running_server(tmp_path / "data", drain_grace_s=60.0) as server:
        channel = grpc.insecure_channel(server.address)
        stub: Any = bulk_pb2_grpc.BulkServiceStub(channel)
        header = bulk_pb2.UploadHeader(file_name="in.csv", size_bytes=commit_bytes + 1)
        part = stub.Upload(iter([bulk_pb2.UploadRequest(header=header)])).upload
        sending = stub.Upload.future(half())
        job = stub.CreateJob(bulk_pb2.CreateJobRequest(spec=spec_of(upload(stub, "a.jsonl", text).id))).job
        stub.PauseJob(bulk_pb2.PauseJobRequest(job_id=job.id))
        watched = stub.WatchJob(bulk_pb2.WatchJobRequest(job_id=job.id, interval_ms=60_000))
        next(watched)
        while committed(stub) == 0:
            pass
        started = time.monotonic()
        server.call(server.server.stop())
        assert time.monotonic() - started < 20
    assert failure(sending.result)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert failure(lambda: list(watched))[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    silent.set()
    channel.close()
    with running_server(tmp_path / "data") as server, grpc.insecure_channel(server.address) as channel:
        assert committed(bulk_pb2_grpc.BulkServiceStub(channel)) == commit_bytes


def test_a_job_is_an_operation_on_the_wire(live_server: ServerThread, stub: Any) -> None:
    whole = upload(stub, "in.csv", b"text\na film\n")
    spec = bulk_pb2.JobSpec(
        model=common_pb2.ModelRef(name="minilm"), task=common_pb2.TASK_EMBED, upload_id=whole.id
    )
    job = stub.CreateJob(bulk_pb2.CreateJobRequest(spec=spec)).job
    untyped: Any = operations_pb2_grpc
    with grpc.insecure_channel(live_server.address) as channel:
        operations = untyped.OperationsStub(channel)
        name = f"operations/{job.id}"
        done = operations.WaitOperation(operations_pb2.WaitOperationRequest(name=name), timeout=60)
        answer = bulk_pb2.Job()
        assert (done.name, done.done) == (name, True)
        assert done.response.Unpack(answer)
        assert answer.progress.succeeded == 1
        operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name))
        gone = operations_pb2.GetOperationRequest(name=name)
        code, reason, _ = failure(lambda: operations.GetOperation(gone))
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_JOB")


def test_a_killed_server_goes_on_with_the_job_and_no_row_is_lost(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "reviews.csv", texts_of(700))
    settings = tmp_path / "penstock.toml"
    settings.write_text(f"[bulk]\nwindow_rows = {WINDOW_ROWS}\n")
    arguments = ("--config", str(settings))
    with (
        server_process(tmp_path / "data", *arguments) as server,
        penstock.Client(server.address) as client,
    ):
        job = client.bulk.submit(path, model="minilm", task="embed", text_column="review", key_column="key")
        for state in client.bulk.watch(job.id):
            # Four windows are in flight or being written at most, so some are surely on disk by then.
            if state.done > 5 * WINDOW_ROWS:
                break
        server.kill()
    with (
        server_process(tmp_path / "data", *arguments) as server,
        penstock.Client(server.address) as client,
    ):
        assert check_sum(client.bulk.get(job.id)).done >= WINDOW_ROWS
        ended = check_sum(client.bulk.wait(job.id))
        rows = list(client.bulk.results(job.id))
        assert (ended.state.value, ended.succeeded) == ("succeeded", 700)
        assert [row.key for row in rows] == [f"review-{row}" for row in range(700)]
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 10
