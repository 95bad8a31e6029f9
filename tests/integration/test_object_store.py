"""Jobs whose input and results are in an S3 bucket, of a real S3 server on this machine."""

from __future__ import annotations

import gzip
import json
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest

import penstock
from penstock.v1 import bulk_pb2, common_pb2, schedule_pb2, schedule_pb2_grpc
from penstock_server.bulk.arrow import pq
from tests.support.reviews import reviews
from tests.support.server import running_server

BUCKET = "penstock"
TEXTS = [text[:60] for text in reviews(40)]
ROOTS = {"input_roots": [f"s3://{BUCKET}/in"], "output_roots": [f"s3://{BUCKET}/out"]}


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Generator[Any]:
    """The store's files; the server's processes find it as those of an operator would, by the environment."""
    moto: Any = import_module("moto.server")
    store = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs: Any = import_module("s3fs")
    found = s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}", skip_instance_cache=True)
    found.makedirs(BUCKET, exist_ok=True)
    yield found
    store.stop()


def test_a_job_reads_from_a_bucket_and_delivers_to_it(files: Any, tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"id": row, "text": text}).encode() + b"\n" for row, text in enumerate(TEXTS))
    files.pipe_file(f"{BUCKET}/in/rows.jsonl.gz", gzip.compress(lines))
    with (
        running_server(tmp_path / "data", bulk=ROOTS) as server,
        penstock.Client(server.address) as client,
    ):
        bulk = client.bulk
        options: dict[str, Any] = {"model": "minilm", "task": "embed", "key_column": "id"}
        out = f"s3://{BUCKET}/out/today"
        job = bulk.create(input_url=f"s3://{BUCKET}/in/rows.jsonl.gz", output_url=out, **options)
        job = bulk.wait(job.id, timeout_s=120)
        assert (job.state.value, job.succeeded, job.input_url) == (
            "succeeded",
            len(TEXTS),
            f"s3://{BUCKET}/in/rows.jsonl.gz",
        )
        delivered = tmp_path / "results.parquet"
        files.get_file(f"{BUCKET}/out/today/{job.id}/results.parquet", str(delivered))
        table = pq.read_table(delivered)
        assert table.column("key").to_pylist() == list(range(len(TEXTS)))
        assert [len(vector) for vector in table.column("embedding").to_pylist()] == [384] * len(TEXTS)
        # What is not there fails the job; what is elsewhere is refused.
        missing = bulk.wait(bulk.create(input_url=f"s3://{BUCKET}/in/none.csv", **options).id, timeout_s=120)
        assert missing.state.value == "failed"
        assert missing.error is not None
        assert "nothing at" in missing.error.message
        with pytest.raises(penstock.InvalidRequestError, match="input_url"):
            bulk.create(input_url=f"s3://{BUCKET}/elsewhere/rows.csv", **options)


def test_a_job_reads_a_pattern_and_delivers_in_parts(files: Any, tmp_path: Path) -> None:
    days = [TEXTS[:15], TEXTS[15:39], TEXTS[39:]]
    for day, texts in enumerate(days):
        lines = [json.dumps({"id": f"{day}-{row}", "text": text}) for row, text in enumerate(texts)]
        data = "\n".join(lines).encode()
        name = "rows.jsonl.gz" if day == 1 else "rows.jsonl"
        files.pipe_file(f"{BUCKET}/in/day={day}/{name}", gzip.compress(data) if day == 1 else data)
    files.pipe_file(f"{BUCKET}/in/day=1/notes.txt", b"no input")
    files.pipe_file(f"{BUCKET}/in/day=2/_SUCCESS", b"")
    files.pipe_file(f"{BUCKET}/in/day=3/bad.csv", b"id,text\n1,\n2,a film\n")
    with (
        running_server(tmp_path / "data", bulk=ROOTS) as server,
        penstock.Client(server.address) as client,
    ):
        bulk = client.bulk
        job = bulk.create(
            input_url=f"s3://{BUCKET}/in/day=*/",
            output_url=f"s3://{BUCKET}/out",
            output_format="jsonl",
            output_rows_per_file=17,
            model="minilm",
            task="embed",
            key_column="id",
        )
        job = bulk.wait(job.id, timeout_s=120)
        assert (job.state.value, job.succeeded, job.failed) == ("succeeded", len(TEXTS) + 1, 1)
        assert (job.output_format.value, job.output_rows_per_file) == ("jsonl", 17)
        keys = [f"{day}-{row}" for day, texts in enumerate(days) for row in range(len(texts))]
        rows = list(bulk.results(job.id))
        assert [row.key for row in rows] == [*keys, "1", "2"]
        assert rows[-2].error is not None
        assert rows[-2].error.message == "day=3/bad.csv: Line 2: text is empty; every row needs a text."
        folder = f"{BUCKET}/out/{job.id}"
        manifest = json.loads(files.cat_file(f"{folder}/_SUCCESS"))
        assert (manifest["job_id"], manifest["state"], manifest["pending"]) == (job.id, "SUCCEEDED", 0)
        names = [file["name"] for file in manifest["files"]]
        assert names == [
            *(f"results-{part:05d}-of-00003.jsonl" for part in range(3)),
            "errors-00000-of-00001.jsonl",
        ]
        assert sorted(path.rpartition("/")[2] for path in files.find(folder)) == sorted([*names, "_SUCCESS"])
        read = [
            json.loads(line) for name in names[:3] for line in files.cat_file(f"{folder}/{name}").splitlines()
        ]
        assert [line["key"] for line in read] == [*keys, "2"]
        nothing = bulk.create(input_url=f"s3://{BUCKET}/in/night=*/*.csv", model="minilm", task="embed")
        nothing = bulk.wait(nothing.id, timeout_s=120)
        assert nothing.error is not None
        assert nothing.error.message == f"There is no file at s3://{BUCKET}/in/night=*/*.csv."
        with pytest.raises(penstock.InvalidRequestError, match="input_url"):
            bulk.create(input_url=f"s3://{BUCKET}/*/rows.csv", model="minilm", task="embed")


def test_a_bucket_that_cannot_be_reached_pauses_the_job(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.pipe_file(f"{BUCKET}/in/rows.csv", b"text\na film\n")
    with monkeypatch.context() as broken:
        # Nobody listens there; and no patience, which is the operator's to choose.
        broken.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        broken.setenv("AWS_MAX_ATTEMPTS", "1")
        with (
            running_server(tmp_path / "data", bulk=ROOTS) as server,
            penstock.Client(server.address) as client,
        ):
            job = client.bulk.create(input_url=f"s3://{BUCKET}/in/rows.csv", model="minilm", task="embed")
            states = client.bulk.watch(job.id, timeout_s=120)
            paused = next(state for state in states if state.state.value == "paused")
            assert paused.error is not None
            assert paused.error.reason == "PLACE_FAILED"
            broken.undo()
            client.bulk.resume(job.id)
            assert client.bulk.wait(job.id, timeout_s=120).state.value == "succeeded"


def test_a_schedule_takes_what_is_new_in_a_bucket(files: Any, tmp_path: Path) -> None:
    folder = f"{BUCKET}/in"
    files.pipe_file(f"{folder}/day=1/rows.csv", b"text\na film\n")
    job = bulk_pb2.JobSpec(
        model=common_pb2.ModelRef(name="minilm"),
        task=common_pb2.TASK_EMBED,
        input_url=f"s3://{folder}/day=*/rows.csv",
    )
    with (
        running_server(tmp_path / "data", bulk=ROOTS) as server,
        penstock.Client(server.address) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        service = schedule_pb2_grpc.ScheduleServiceStub(channel)
        spec = schedule_pb2.ScheduleSpec(job=job, cron="0 0 * * *")
        schedule = service.CreateSchedule(schedule_pb2.CreateScheduleRequest(spec=spec)).schedule

        def run() -> list[str]:
            ran = service.RunSchedule(schedule_pb2.RunScheduleRequest(schedule_id=schedule.id))
            assert not ran.schedule.last_run.HasField("error"), ran
            return [client.bulk.wait(job_id, timeout_s=120).input_url for job_id in ran.job_ids]

        assert run() == [f"s3://{folder}/day=1/rows.csv"]
        assert run() == []
        files.pipe_file(f"{folder}/day=2/rows.csv", b"text\nanother film\n")
        assert run() == [f"s3://{folder}/day=2/rows.csv"]
        files.pipe_file(f"{folder}/day=1/rows.csv", b"text\na better film\n")
        assert run() == [f"s3://{folder}/day=1/rows.csv"]
