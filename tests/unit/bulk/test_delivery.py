"""Results that are delivered elsewhere: formats, files of so many rows, and a manifest when all is there."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.arrow import pq
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.places import Place, deliver
from penstock_server.domain.errors import InvalidRequest, PlaceFailed
from penstock_server.domain.job import FileFormat, InputColumns, Job, JobState
from penstock_server.domain.tasks import Task
from tests.support.bulk_jobs import Bench, settle

MEMORY: Any = import_module("fsspec").filesystem("memory")
TEXTS = ["a", "b", "", "c", "d", "e", "f", "g", "", "h"]
KEYS = [f"k{row}" for row, text in enumerate(TEXTS) if text]


@pytest.fixture(params=["local", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "out")
    return f"memory://bucket/{tmp_path.name}/out"


@pytest.fixture
async def bench(tmp_path: Path, out: str) -> AsyncGenerator[Bench]:
    bench = Bench(
        tmp_path,
        BulkLimits(
            window_rows=4, disk_free_bytes_min=0, output_roots=(out, f"{out}/deep"), output_files_max=9
        ),
    )
    await bench.start()
    yield bench
    await bench.stop()


def delivered(out: str, job_id: str) -> dict[str, bytes]:
    """What is in the job's folder there, by name."""
    if not out.startswith("memory"):
        return {path.name: path.read_bytes() for path in (Path(out) / job_id).iterdir()}
    folder = f"{out.removeprefix('memory://')}/{job_id}"
    return {path.rpartition("/")[2]: MEMORY.cat_file(path) for path in MEMORY.find(folder)}


def manifest_of(files: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files.pop("_SUCCESS"))
    assert {file["name"] for file in found["files"]} == set(files)
    assert all(file["bytes"] == len(files[file["name"]]) for file in found["files"])
    return found


async def finished(bench: Bench, out: str, **changes: Any) -> Job:
    job = await bench.submit(TEXTS, output_url=f"{out}/deep", **changes)
    return await bench.finish(job.id)


def parquet_rows(data: bytes, tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "read.parquet"
    path.write_bytes(data)
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


async def test_parquet_in_files_of_three_rows(bench: Bench, out: str, tmp_path: Path) -> None:
    job = await finished(bench, out, output_rows_per_file=3)
    assert job.state is JobState.SUCCEEDED
    files = delivered(f"{out}/deep", job.id)
    manifest = manifest_of(files)
    assert [(file["name"], file["selection"], file["rows"]) for file in manifest["files"]] == [
        ("results-00000-of-00003.parquet", "succeeded", 3),
        ("results-00001-of-00003.parquet", "succeeded", 3),
        ("results-00002-of-00003.parquet", "succeeded", 2),
        ("errors-00000-of-00001.parquet", "failed", 2),
    ]
    assert {name: manifest[name] for name in manifest if name != "files"} == {
        "job_id": job.id,
        "state": "SUCCEEDED",
        "total": 10,
        "succeeded": 8,
        "failed": 2,
        "pending": 0,
        "format": "parquet",
    }
    parts = [parquet_rows(files[file["name"]], tmp_path) for file in manifest["files"]]
    assert [row["key"] for part in parts[:3] for row in part] == KEYS
    assert [row["embedding"] for part in parts[:3] for row in part] == bench.expected(
        [text for text in TEXTS if text]
    )
    assert [(row["row"], row["error_code"]) for row in parts[3]] == [(2, "EMPTY_TEXT"), (8, "EMPTY_TEXT")]
    # One file at a time was beside the job's own, and none is left.
    assert not (tmp_path / "jobs" / job.id / "delivery").exists()


@pytest.mark.parametrize("rows_per_file", [0, 8, 100])
async def test_json_lines_in_one_file(bench: Bench, out: str, rows_per_file: int) -> None:
    job = await finished(bench, out, output_format=FileFormat.JSONL, output_rows_per_file=rows_per_file)
    files = delivered(f"{out}/deep", job.id)
    part = "-00000-of-00001" if rows_per_file else ""
    assert manifest_of(files)["format"] == "jsonl"
    assert set(files) == {f"results{part}.jsonl", f"errors{part}.jsonl"}
    lines = [json.loads(line) for line in files[f"results{part}.jsonl"].splitlines()]
    assert [line["key"] for line in lines] == KEYS
    assert [json.loads(line)["row"] for line in files[f"errors{part}.jsonl"].splitlines()] == [2, 8]


async def test_lines_as_of_a_batch_api(bench: Bench, out: str) -> None:
    job = await finished(bench, out, output_format=FileFormat.OPENAI_BATCH, output_rows_per_file=5)
    files = delivered(f"{out}/deep", job.id)
    manifest_of(files)
    names = ["results-00000-of-00002.jsonl", "results-00001-of-00002.jsonl"]
    assert sorted(files) == ["errors-00000-of-00001.jsonl", *names]
    lines = [json.loads(line) for name in names for line in files[name].splitlines()]
    assert [line["custom_id"] for line in lines] == KEYS
    assert lines[0]["response"]["body"]["data"][0]["embedding"] == bench.expected(["a"])[0]


async def test_a_job_of_which_nothing_succeeded_has_one_empty_file(
    bench: Bench, out: str, tmp_path: Path
) -> None:
    job = await bench.submit(["", ""], output_url=f"{out}/deep", output_rows_per_file=1)
    await bench.finish(job.id)
    files = delivered(f"{out}/deep", job.id)
    assert manifest_of(files)["failed"] == 2
    assert sorted(files) == [
        "errors-00000-of-00002.parquet",
        "errors-00001-of-00002.parquet",
        "results-00000-of-00001.parquet",
    ]
    assert parquet_rows(files["results-00000-of-00001.parquet"], tmp_path) == []


async def test_a_cancelled_job_says_what_is_missing(bench: Bench, out: str) -> None:
    job = await bench.submit(TEXTS, output_url=f"{out}/deep")
    bench.lane.compute(2)
    await settle()
    await bench.runner.cancel(job.id)
    await settle()
    files = delivered(f"{out}/deep", job.id)
    manifest = manifest_of(files)
    assert (manifest["state"], manifest["succeeded"]) == ("CANCELLED", 2)
    assert manifest["pending"] == manifest["total"] - manifest["succeeded"] - manifest["failed"] > 0


async def test_the_manifest_comes_last_and_a_broken_delivery_is_begun_again(
    bench: Bench, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def cut(paths: list[Path], folder: Place) -> None:
        if len(sent) == 2:
            raise PlaceFailed("The bucket is gone.")
        sent.extend(path.name for path in paths)
        deliver(paths, folder)

    monkeypatch.setattr("penstock_server.bulk.delivery.deliver", cut)
    job = await bench.submit(TEXTS, output_url=f"{out}/deep", output_rows_per_file=3)
    while bench.lane.waiting_rows:
        bench.lane.compute(9)
        await settle()
    assert (await bench.runner.get(job.id)).state is JobState.PAUSED
    assert sorted(delivered(f"{out}/deep", job.id)) == sent
    monkeypatch.undo()
    await bench.runner.resume(job.id)
    await settle()
    assert (await bench.runner.get(job.id)).state is JobState.SUCCEEDED
    assert len(manifest_of(delivered(f"{out}/deep", job.id))["files"]) == 4


async def test_too_many_files_fail_the_job_before_anything_is_computed(bench: Bench, out: str) -> None:
    job = await bench.submit(TEXTS, output_url=f"{out}/deep", output_rows_per_file=1)
    failed = await bench.runner.get(job.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.message == (
        "spec.output_rows_per_file: makes more than 9 files of 10 rows; give at least 2"
    )
    assert bench.lane.arrivals == 0


async def test_lines_of_a_batch_api_are_for_embeddings(tmp_path: Path) -> None:
    bench = Bench(tmp_path, BulkLimits(disk_free_bytes_min=0, output_roots=("/out",)), Task.CLASSIFY)
    await bench.start()
    upload_id = bench.upload("rows.jsonl", b'{"text": "a"}\n')
    spec = bench.spec(
        upload_id, columns=InputColumns(), output_url="/out/x", output_format=FileFormat.OPENAI_BATCH
    )
    with pytest.raises(InvalidRequest, match=r"spec\.output_format: OPENAI_BATCH is for embeddings"):
        await bench.runner.create(spec)
    await bench.stop()
