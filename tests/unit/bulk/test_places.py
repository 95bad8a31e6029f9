"""Inputs and result folders that callers name by URL: what is allowed, what is refused, what is copied."""

from __future__ import annotations

import errno
import gzip
from collections.abc import AsyncGenerator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.arrow import pq
from penstock_server.bulk.formats import format_of_name
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.places import allowed_place, deliver, fetch, place_of
from penstock_server.domain.errors import InvalidRequest, PlaceFailed
from penstock_server.domain.job import InputColumns, Job, JobState
from penstock_server.domain.tasks import RequestClass, RequestOptions
from tests.support.bulk_jobs import Bench, settle

ROWS = b"".join(b'{"id": "k%d", "text": "%c"}\n' % (row, 97 + row) for row in range(6))
MEMORY: Any = import_module("fsspec").filesystem("memory")


def allowed(url: str, *roots: str, tenant: str = "") -> str:
    return allowed_place(url, roots, tenant, "spec.input_url").url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file:///in/a.csv", "/in/a.csv"),
        ("/in/a.csv", "/in/a.csv"),
        ("/in//x/./a.csv", "/in/x/a.csv"),
        ("s3://bucket/in/a.csv", "s3://bucket/in/a.csv"),
        ("S3://bucket/in/b c?.csv".replace("?", ""), "s3://bucket/in/b c.csv"),
    ],
)
def test_what_is_below_a_root_is_allowed(url: str, told: str) -> None:
    assert allowed(url, "/in", "s3://bucket/in") == told


@pytest.mark.parametrize(
    "url",
    [
        "",
        "in/a.csv",
        "/in",
        "/inside/a.csv",
        "/in/../etc/passwd",
        "file:///in/../etc/passwd",
        "file://host/in/a.csv",
        "/etc/passwd",
        "s3://bucket/a.csv",
        "s3://bucket/inside/a.csv",
        "s3://other/in/a.csv",
        "s3://bucket/in/../a.csv",
        "s3://key:secret@bucket/in/a.csv",
        "s3:///in/a.csv",
        "s3://bucket",
        "http://bucket/in/a.csv",
        "zip://a::s3://bucket/in/a.zip",
        "simplecache::s3://bucket/in/a.csv",
        "s3://bucket/in/a.csv?versionId=1",
        "/in/a\0.csv",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"spec\.input_url"):
        allowed(url, "/in", "s3://bucket/in")


def test_nothing_is_allowed_unless_somebody_says_so() -> None:
    with pytest.raises(InvalidRequest, match="is not allowed by this server"):
        allowed("/in/a.csv")


def test_a_link_does_not_lead_out_of_a_root(tmp_path: Path) -> None:
    root, secret = tmp_path / "in", tmp_path / "secret"
    root.mkdir()
    secret.mkdir()
    (root / "way out").symlink_to(secret)
    (root / "file").symlink_to(secret / "a.csv")
    for url in (root / "way out" / "a.csv", root / "file"):
        with pytest.raises(InvalidRequest):
            allowed(str(url), str(root))
    (tmp_path / "other name").symlink_to(root)
    assert allowed(str(root / "b.csv"), str(tmp_path / "other name")) == str(root / "b.csv")


def test_a_root_may_be_each_tenants_own() -> None:
    assert allowed("/in/acme/a.csv", "/in/{tenant}", tenant="acme") == "/in/acme/a.csv"
    for tenant in ("", "other", "..", ".", "acme/..", "/acme"):
        with pytest.raises(InvalidRequest):
            allowed("/in/acme/a.csv", "/in/{tenant}", tenant=tenant)


def test_a_file_is_fetched_whole_or_not_at_all(tmp_path: Path) -> None:
    MEMORY.pipe_file("/bucket/fetch/a.bin", b"x" * 3_000_000)
    target = tmp_path / "a.bin"
    with pytest.raises(InvalidRequest, match="is larger than 2,999,999 bytes"):
        fetch(place_of("memory://bucket/fetch/a.bin"), target, 2_999_999)
    with pytest.raises(InvalidRequest, match=r"There is nothing at memory://bucket/fetch/b\.bin"):
        fetch(place_of("memory://bucket/fetch/b.bin"), target, 3_000_000)
    with pytest.raises(PlaceFailed, match="cannot be reached"):
        fetch(place_of("nothing://bucket/a.bin"), target, 3_000_000)
    assert list(tmp_path.iterdir()) == []
    fetch(place_of("memory://bucket/fetch/a.bin"), target, 3_000_000)
    assert target.read_bytes() == b"x" * 3_000_000


def test_files_are_delivered_and_replaced(tmp_path: Path) -> None:
    source = tmp_path / "results.parquet"
    for data in (b"first", b"second"):
        source.write_bytes(data)
        deliver([source], place_of(str(tmp_path / "out" / "job")))
        deliver([source], place_of("memory://bucket/deliver"))
        assert (tmp_path / "out" / "job" / "results.parquet").read_bytes() == data
        assert MEMORY.cat_file("/bucket/deliver/results.parquet") == data
    assert [path.name for path in (tmp_path / "out" / "job").iterdir()] == ["results.parquet"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PlaceFailed, match="cannot be reached"):
        deliver([source], place_of(str(tmp_path / "file" / "job")))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    limits = BulkLimits(
        window_rows=4,
        disk_free_bytes_min=0,
        input_roots=(str(tmp_path / "in"), "memory://bucket/in"),
        output_roots=(str(tmp_path / "out"), "memory://bucket/out"),
    )
    (tmp_path / "in").mkdir()
    bench = Bench(tmp_path, limits)
    await bench.start()
    yield bench
    await bench.stop()


async def job_over(bench: Bench, url: str, **changes: Any) -> Job:
    spec = bench.spec("", input_url=url, input_format=format_of_name(url), **changes)
    job = await bench.runner.create(spec)
    await settle()
    while bench.lane.waiting_rows:
        bench.lane.compute(1)
        await settle()
    return await bench.runner.get(job.id)


@pytest.mark.parametrize("scheme", ["local", "memory"])
async def test_a_job_reads_its_input_from_a_place_and_delivers_its_results_to_one(
    bench: Bench, tmp_path: Path, scheme: str
) -> None:
    if scheme == "local":
        (tmp_path / "in" / "rows.jsonl.gz").write_bytes(gzip.compress(ROWS))
        url, out = str(tmp_path / "in" / "rows.jsonl.gz"), str(tmp_path / "out")
    else:
        MEMORY.pipe_file("/bucket/in/rows.jsonl.gz", gzip.compress(ROWS))
        url, out = "memory://bucket/in/rows.jsonl.gz", "memory://bucket/out/"
    job = await job_over(bench, url, output_url=out)
    assert (job.state, job.progress.succeeded) == (JobState.SUCCEEDED, 6)
    assert [row.answer for row in await bench.read(job.id)] == bench.expected(list("abcdef"))
    if scheme == "local":
        delivered = tmp_path / "out" / job.id / "results.parquet"
    else:
        delivered = tmp_path / "delivered.parquet"
        delivered.write_bytes(MEMORY.cat_file(f"/bucket/out/{job.id}/results.parquet"))
    assert pq.read_table(delivered).column("key").to_pylist() == [f"k{row}" for row in range(6)]
    # Nothing of the input is kept but the spool, and deleting the job takes no upload with it.
    assert "input" not in {path.name for path in (tmp_path / "jobs" / job.id).iterdir()}
    await bench.runner.delete(job.id)


async def test_an_input_that_is_not_there_fails_the_job(bench: Bench, tmp_path: Path) -> None:
    for url in (str(tmp_path / "in" / "none.jsonl"), "memory://bucket/in/none.jsonl"):
        job = await job_over(bench, url)
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert "not there" in job.error.message or "nothing at" in job.error.message


def test_a_failing_bucket_is_not_taken_for_a_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MEMORY.pipe_file("/bucket/in/rows.jsonl", ROWS)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "InternalError")

    monkeypatch.setattr(import_module("fsspec.implementations.memory").MemoryFile, "read", fail)
    with pytest.raises(PlaceFailed, match="InternalError"):
        fetch(place_of("memory://bucket/in/rows.jsonl"), tmp_path / "input", 1000)
    assert list(tmp_path.iterdir()) == []


async def test_a_place_that_cannot_be_reached_pauses_the_job_until_it_can(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "in" / "rows.jsonl").write_bytes(ROWS)
    (tmp_path / "out").write_bytes(b"in the way")
    job = await job_over(bench, str(tmp_path / "in" / "rows.jsonl"), output_url=str(tmp_path / "out" / "x"))
    assert job.state is JobState.PAUSED
    assert job.error is not None
    assert job.error.reason == "PLACE_FAILED"
    (tmp_path / "out").unlink()
    await bench.runner.resume(job.id)
    await settle()
    assert (await bench.runner.get(job.id)).state is JobState.SUCCEEDED
    assert (tmp_path / "out" / "x" / job.id / "results.parquet").exists()
    assert bench.lane.computed_rows == 6


async def test_places_that_are_not_allowed_are_refused_before_anything_is_made(
    bench: Bench, tmp_path: Path
) -> None:
    options = RequestOptions(request_class=RequestClass.BULK)
    for changes, told in (
        ({"input_url": "/etc/passwd"}, r"spec\.input_url"),
        ({"input_url": str(tmp_path / "in" / "a.jsonl"), "output_url": "/etc"}, r"spec\.output_url"),
    ):
        with pytest.raises(InvalidRequest, match=told):
            await bench.runner.create(bench.spec("", columns=InputColumns(), options=options, **changes))
    assert (await bench.runner.page(9, "", ())).jobs == ()
