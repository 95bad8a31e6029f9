"""Inputs of several files: which are found, what is refused, and what is said of their rows."""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.file_sets import allowed_files, files_of, names_many
from penstock_server.bulk.formats import ending_of, known_format
from penstock_server.bulk.inputs import InputOrder, materialise
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import InvalidRequest, PlaceFailed
from penstock_server.domain.job import FileFormat, InputColumns, Job, JobState
from tests.support.bulk_jobs import Bench, settle

MEMORY: Any = import_module("fsspec").filesystem("memory")


@pytest.fixture(params=["local", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A root, on the disk or in an object store."""
    if request.param == "local":
        return str(tmp_path / "in")
    return f"memory://bucket/{tmp_path.name}/in"


def write_file(base: str, name: str, data: bytes = b"x") -> None:
    if base.startswith("memory"):
        MEMORY.pipe_file(f"{base.removeprefix('memory://')}/{name}", data)
        return
    path = Path(base, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def found(url: str, base: str, **changes: Any) -> list[str]:
    limits = replace(BulkLimits(), input_roots=(base,), **changes)
    file_set = allowed_files(url, limits.input_roots, "", "spec.input_url")
    return [file.name for file in files_of(file_set, limits)]


NAMES = (
    "b.csv",
    "a.jsonl.gz",
    "c.txt",
    ".hidden.csv",
    "_SUCCESS",
    "day=1/part-0.parquet",
    "day=1/part-1.parquet",
    "day=1/deep/er/z.csv",
    "day=2/part-0.parquet",
    "day=2/rest.parquet",
    "_temporary/part-9.csv",
)


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        (
            "/",
            [
                "a.jsonl.gz",
                "b.csv",
                "day=1/deep/er/z.csv",
                "day=1/part-0.parquet",
                "day=1/part-1.parquet",
                "day=2/part-0.parquet",
                "day=2/rest.parquet",
            ],
        ),
        ("/day=2/", ["part-0.parquet", "rest.parquet"]),
        ("/day=*/part-*.parquet", ["day=1/part-0.parquet", "day=1/part-1.parquet", "day=2/part-0.parquet"]),
        ("/day=*/", [name for name in NAMES if name.startswith("day=")]),
        ("/*.csv", ["b.csv"]),
        ("/*", ["a.jsonl.gz", "b.csv", "c.txt"]),
        ("/_*/part-*", ["_temporary/part-9.csv"]),
        ("/day=1/*/er/*.csv", ["deep/er/z.csv"]),
        ("/day=*/part-0.parquet", ["day=1/part-0.parquet", "day=2/part-0.parquet"]),
    ],
)
def test_what_a_folder_and_a_pattern_name(base: str, rest: str, names: list[str]) -> None:
    for name in NAMES:
        write_file(base, name)
    assert found(f"{base}{rest}", base) == sorted(names)


@pytest.mark.parametrize("rest", ["/x*.csv", "/day=1/none-*", "/b.csv/*", "/day=*/b.csv", "/day=3*/"])
def test_no_file_is_an_error(base: str, rest: str) -> None:
    for name in NAMES:
        write_file(base, name)
    with pytest.raises(InvalidRequest, match=r"There is no file|There is nothing"):
        found(f"{base}{rest}", base)


def test_a_folder_that_is_not_there_and_one_without_inputs(base: str) -> None:
    write_file(base, "day/c.txt")
    with pytest.raises(InvalidRequest, match="There is nothing at"):
        found(f"{base}/night/", base)
    with pytest.raises(InvalidRequest, match="There is no file with a known ending at"):
        found(f"{base}/day/", base)


def test_files_names_and_bytes_are_bounded(base: str) -> None:
    for number in range(5):
        write_file(base, f"{number}.csv", b"12345")
    assert len(found(f"{base}/", base, input_files_max=5, input_names_max=5, input_files_bytes_max=25)) == 5
    for changes, told in (
        ({"input_files_max": 4}, "names more than 4 files"),
        ({"input_names_max": 4}, "more than 4 names to look at"),
        ({"input_files_bytes_max": 24}, "have 25 bytes; at most 24"),
    ):
        with pytest.raises(InvalidRequest, match=told):
            found(f"{base}/", base, **changes)


@pytest.mark.parametrize(
    "url",
    [
        "/elsewhere/*.csv",
        "/in*/a.csv",
        "/inside/",
        "/",
        "/*/in/a.csv",
        "/in/../etc/*",
        "s3://bucket/*",
        "s3://bucket*/in/a.csv",
        "s3://*",
        "s3://bucket/in/../*.csv",
        "in/*.csv",
        "*",
        "s3://key:secret@bucket/in/*.csv",
    ],
)
def test_what_is_before_the_first_star_must_be_below_a_root(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"spec\.input_url"):
        allowed_files(url, ("/in", "s3://bucket/in"), "", "spec.input_url")


def test_a_root_itself_may_be_read() -> None:
    assert allowed_files("/in/", ("/in",), "", "f").folder.url == "/in"
    assert allowed_files("s3://b/*.csv", ("s3://b/",), "", "f").folder.url == "s3://b/"
    assert allowed_files("/in/acme/", ("/in/{tenant}",), "acme", "f").folder.url == "/in/acme"
    with pytest.raises(InvalidRequest):
        allowed_files("/in/acme/", ("/in/{tenant}",), "other", "f")
    assert [names_many(url) for url in ("/in/", "/in/*", "s3://b/d*/a", "/in/a.csv", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_link_out_of_the_root_is_refused_and_one_within_is_followed(tmp_path: Path) -> None:
    base, secret = tmp_path / "in", tmp_path / "secret"
    for folder in (base / "day", secret):
        folder.mkdir(parents=True)
        (folder / "a.csv").write_bytes(b"x")
    (base / "link.csv").symlink_to(base / "day" / "a.csv")
    (base / "again").symlink_to(base / "day")
    (base / "day" / "circle").symlink_to(base)
    (base / "broken.csv").symlink_to(base / "none.csv")
    os.mkfifo(base / "pipe.csv")
    # Each folder is read once, under whatever name it is met first.
    assert found(f"{base}/", str(base)) in (["day/a.csv", "link.csv"], ["again/a.csv", "link.csv"])
    assert found(f"{base}/again/*.csv", str(base)) == ["a.csv"]
    (base / "out").symlink_to(secret)
    (base / "out.csv").symlink_to(secret / "a.csv")
    for rest in ("/", "/out/*.csv", "/out/", "/out*.csv", "/*/a.csv"):
        with pytest.raises(InvalidRequest, match=r"leads out of|is below none"):
            found(f"{base}{rest}", str(base))
    # What does not match is not looked at.
    assert found(f"{base}/link*.csv", str(base)) == ["link.csv"]


async def test_a_name_that_is_no_utf8_can_be_read_and_told(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "in") + b"/caf\xe9.csv"
    (tmp_path / "in").mkdir()
    with open(path, "wb") as file:  # noqa: ASYNC230 - a name that Path would not take
        file.write(b"text\nfine\n\xff\n")
    bench = Bench(tmp_path, BulkLimits(disk_free_bytes_min=0, input_roots=(str(tmp_path / "in"),)))
    await bench.start()
    job = await job_over(bench, f"{tmp_path}/in/", columns=InputColumns())
    await bench.finish(job.id)
    (failed,) = [row.failure for row in await bench.read(job.id) if row.failure is not None]
    assert failed.message.startswith("caf\ufffd.csv: Line 3: text is not UTF-8")
    await bench.stop()


def test_a_pattern_of_many_stars_takes_no_longer_than_its_length(tmp_path: Path) -> None:
    write_file(str(tmp_path), "a" * 200 + ".csv")
    with pytest.raises(InvalidRequest, match="There is no file"):
        found(f"{tmp_path}/{'a*' * 90}b*", str(tmp_path))
    assert found(f"{tmp_path}/{'a*' * 90}csv", str(tmp_path)) == ["a" * 200 + ".csv"]
    for pattern, name in (("a*a", "a"), ("ab*ba", "aba"), ("*b*", "aa")):
        write_file(str(tmp_path / pattern.replace("*", "-")), name)
        with pytest.raises(InvalidRequest, match="There is no file"):
            found(f"{tmp_path}/{pattern.replace('*', '-')}/{pattern}", str(tmp_path))


def test_a_folder_that_cannot_be_listed_is_a_place_that_failed() -> None:
    limits = BulkLimits(input_roots=("nothing://bucket/in",))
    with pytest.raises(PlaceFailed, match="cannot be reached"):
        files_of(allowed_files("nothing://bucket/in/", limits.input_roots, "", "f"), limits)


def test_endings() -> None:
    assert [ending_of(name) for name in ("a.b.CSV", "a.csv.gz", "a.gz", "a", ".csv", "")] == [
        ".csv",
        ".csv.gz",
        ".gz",
        "",
        "",
        "",
    ]
    assert known_format("d/part-0.NDJSON.zst") is FileFormat.JSONL
    assert known_format("part-0") is None


def spooled(tmp_path: Path, url: str, base: str, **changes: Any) -> int:
    limits = BulkLimits(input_roots=(base,))
    order = InputOrder(
        tmp_path / "fetched",
        tmp_path / "spool.arrow",
        None,
        InputColumns(),
        limits,
        files=allowed_files(url, limits.input_roots, "", "spec.input_url"),
    )
    total = materialise(replace(order, **changes))
    assert not order.input_path.exists()
    return total


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("b.csv", b"body\n1\n", r"b\.csv: There is no column 'text'"),
        ("b.csv.gz", gzip.compress(b"text\n" + b"a\n" * 99)[:-9], r"b\.csv\.gz: The gzip file cannot be"),
        ("b.parquet", b"x", r"b\.parquet: The input is not a readable Parquet file"),
        ("d/e/b.csv", b"", r"d/e/b\.csv: The CSV file is empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    base: str, tmp_path: Path, name: str, data: bytes, told: str
) -> None:
    write_file(base, "a.csv", b"text\nfine\n")
    write_file(base, name, data)
    with pytest.raises(InvalidRequest, match=told):
        spooled(tmp_path, f"{base}/", base)
    assert not (tmp_path / "spool.arrow").exists()
    assert not (tmp_path / "fetched").exists()


def test_a_name_that_tells_no_format_is_named(base: str, tmp_path: Path) -> None:
    write_file(base, "part-0", b'{"text": "a"}\n')
    with pytest.raises(InvalidRequest, match=r"part-0: spec\.input_format: cannot be told"):
        spooled(tmp_path, f"{base}/part-*", base)
    assert spooled(tmp_path, f"{base}/part-*", base, input_format=FileFormat.JSONL) == 1


def test_empty_files_of_lines_are_no_rows_but_one_has_some(base: str, tmp_path: Path) -> None:
    write_file(base, "a.jsonl", b"")
    with pytest.raises(InvalidRequest, match="has no rows"):
        spooled(tmp_path, f"{base}/", base)
    write_file(base, "b.jsonl", b'{"text": "a", "n": 1}\n')
    assert spooled(tmp_path, f"{base}/", base, columns=InputColumns(carried=("n",))) == 1


@pytest.fixture
async def bench(tmp_path: Path, base: str) -> AsyncGenerator[Bench]:
    bench = Bench(tmp_path, BulkLimits(window_rows=4, disk_free_bytes_min=0, input_roots=(base,)))
    await bench.start()
    yield bench
    await bench.stop()


async def job_over(bench: Bench, url: str, **changes: Any) -> Job:
    job = await bench.runner.create(bench.spec("", input_url=url, input_format=None, **changes))
    await settle()
    return job


async def test_a_job_reads_many_files_as_one(bench: Bench, base: str, tmp_path: Path) -> None:
    write_file(
        base, "1/a.jsonl.gz", gzip.compress(b'{"id": 1, "text": "a"}\n{"id": 2}\n{"id": 3, "text": "b"}')
    )
    write_file(base, "1/b.csv", b"id,text\n4,c\n5,\n")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [6, 7], "text": ["d", None]}), sink)
    write_file(base, "2/c.parquet", bytes(sink.getvalue()))
    write_file(base, "2/d.jsonl", b'{"id": 8, "text": "e"}\n\n{"id": 9, "text": "f g"}\n')
    job = await job_over(bench, f"{base}/*/")
    assert (await bench.runner.get(job.id)).progress.total == 9
    bench.lane.fail(1)
    ended = await bench.finish(job.id)
    assert (ended.state, ended.progress.succeeded, ended.progress.failed) == (JobState.SUCCEEDED, 5, 4)
    rows = await bench.read(job.id)
    assert [row.row for row in rows] == list(range(9))
    assert [row.key for row in rows] == [1, 2, 3, "4", "5", 6, 7, 8, 9]
    told = {row.row: row.failure.message for row in rows if row.failure is not None}
    assert told[1] == "1/a.jsonl.gz: Line 2: there is no field 'text'."
    assert told[4] == "1/b.csv: Line 3: text is empty; every row needs a text."
    assert told[6] == "2/c.parquet: Row 1: text is null; every row needs a text."
    (computed,) = set(told) - {1, 4, 6}
    names = ["1/a.jsonl.gz, row 0", "", "1/a.jsonl.gz, row 2", "1/b.csv, row 0", "", "2/c.parquet, row 0"]
    names += ["", "2/d.jsonl, row 0", "2/d.jsonl, row 1"]
    assert told[computed] == f"{names[computed]}: The engine died on this row."
    # A job over those that failed still says where the bad ones are from.
    again = await bench.runner.retry(job.id)
    await settle()
    await bench.finish(again.id)
    retold = [row.failure.message for row in await bench.read(again.id) if row.failure is not None]
    assert retold == [told[row] for row in (1, 4, 6)]


async def test_a_job_without_a_file_fails_and_one_elsewhere_is_not_made(bench: Bench, base: str) -> None:
    write_file(base, "a.txt")
    job = await bench.runner.get((await job_over(bench, f"{base}/*.csv")).id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.message == f"There is no file at {base}/*.csv."
    with pytest.raises(InvalidRequest, match=r"spec\.input_url"):
        await job_over(bench, "/etc/*.csv")
