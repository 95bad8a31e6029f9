"""Input columns that are carried to the results, from every input format to every output format."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.carried import check_carried
from penstock_server.bulk.formats import format_of_name
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, InputColumns, Job, JobState, RowSelection
from tests.support.bulk_jobs import Bench, running_bench, settle

LIMITS = BulkLimits(window_rows=2, disk_free_bytes_min=0, carried_bytes_max=200)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


async def job_over(bench: Bench, name: str, data: bytes, *carried: str, key: str | None = None) -> Job:
    upload_id = bench.upload(name, data)
    columns = InputColumns("text", None, key, carried)
    job = await bench.runner.create(bench.spec(upload_id, input_format=format_of_name(name), columns=columns))
    await settle()
    while bench.lane.waiting_rows:
        bench.lane.compute(1)
        await settle()
    return await bench.runner.get(job.id)


async def lines_of(
    bench: Bench, job: Job, selection: RowSelection = RowSelection.ALL
) -> list[dict[str, Any]]:
    path = await bench.runner.result_file(job.id, FileFormat.JSONL, selection)
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def table_of(bench: Bench, job: Job, selection: RowSelection = RowSelection.ALL) -> Any:
    return pq.read_table(await bench.runner.result_file(job.id, FileFormat.PARQUET, selection))


async def test_columns_of_csv_are_texts(bench: Bench) -> None:
    data = 'id,text,stars,"who, when"\n1,a,5,Zoë\n2,,4,\n3,c,x,"a ""b"""\n'.encode()
    job = await job_over(bench, "in.csv", data, "who, when", "stars", key="id")
    lines = await lines_of(bench, job)
    assert [list(line)[:4] for line in lines] == [["row", "key", "who, when", "stars"]] * 3
    assert [(line["who, when"], line["stars"]) for line in lines] == [("Zoë", "5"), ("", "4"), ('a "b"', "x")]
    assert lines[1]["error"]["code"] == "EMPTY_TEXT"
    table = await table_of(bench, job, RowSelection.SUCCEEDED)
    assert table.column_names == ["row", "key", "who, when", "stars", "embedding"]
    assert table.column("stars").to_pylist() == ["5", "x"]


async def test_fields_of_json_keep_their_values(bench: Bench) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "a", "n": 1, "x": 1.5, "ok": True, "tags": ["p", {"q": None}], "mixed": "s"},
        {"text": "b", "n": None, "x": 2, "ok": False, "mixed": 7},
        {"text": "c", "n": -3, "ok": None, "tags": "plain"},
    ]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    names = ("n", "x", "ok", "tags", "mixed")
    job = await job_over(bench, "in.jsonl", data, *names)
    for line, row in zip(await lines_of(bench, job), rows, strict=True):
        assert {name: line[name] for name in names} == {name: row.get(name) for name in names}
    table = await table_of(bench, job)
    assert [str(table.schema.field(name).type) for name in names] == [
        "int64",
        "double",
        "bool",
        "string",
        "string",
    ]
    assert table.column("n").to_pylist() == [1, None, -3]
    assert table.column("x").to_pylist() == [1.5, 2.0, None]
    assert table.column("tags").to_pylist() == ['["p",{"q":null}]', None, "plain"]
    assert table.column("mixed").to_pylist() == ["s", "7", None]


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
async def test_columns_of_tables_are_carried_by_value(bench: Bench, tmp_path: Path, name: str) -> None:
    table = pa.table(
        {
            "text": ["a", "b", "c"],
            "n": pa.array([1, None, 3], pa.int16()),
            "when": pa.array(
                [datetime(2026, 11, 27, 12, 30, tzinfo=UTC), None, None], pa.timestamp("ns", "UTC")
            ),
            "day": [date(2026, 11, 27), None, date(2026, 11, 28)],
            "price": [Decimal("1.10"), None, Decimal("2.20")],
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        }
    )
    path = tmp_path / name
    if name == "in.parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    job = await job_over(bench, name, path.read_bytes(), "n", "when", "day", "price", "kind")
    assert job.state is JobState.SUCCEEDED
    lines = await lines_of(bench, job)
    assert [line["n"] for line in lines] == [1, None, 3]
    assert lines[0]["when"] == "2026-11-27T12:30:00Z"
    assert [line["day"] for line in lines] == ["2026-11-27", None, "2026-11-28"]
    assert [line["price"] for line in lines] == ["1.10", None, "2.20"]
    assert [line["kind"] for line in lines] == ["x", "y", "x"]


async def test_a_column_that_is_not_there_or_cannot_be_carried_fails_the_job(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a"], "lists": [[1, 2]]}), path)
    for name, data, column, told in (
        ("in.csv", b"text\na\n", "stars", "no column 'stars'"),
        ("in.jsonl", b'{"text": "a"}\n', "stars", "No line has a field 'stars', which is to be carried"),
        ("in.parquet", path.read_bytes(), "stars", "no column 'stars'"),
        ("in.parquet", path.read_bytes(), "lists", "can be carried"),
    ):
        job = await job_over(bench, name, data, column)
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert told in job.error.message


async def test_what_is_too_large_or_no_text_fails_its_row(bench: Bench) -> None:
    data = b"text,note\na,fine\nb," + b"x" * 300 + b"\nc,caf\xe9\n"
    job = await job_over(bench, "in.csv", data, "note")
    lines = await lines_of(bench, job)
    assert [line["error"]["code"] if "error" in line else None for line in lines] == [
        None,
        "CARRIED_TOO_LARGE",
        "INVALID_UTF8",
    ]
    assert [line["note"] for line in lines] == ["fine", None, None]


async def test_rows_that_are_tried_again_keep_their_columns(bench: Bench) -> None:
    data = b"".join(b'{"text": "%c", "n": %d}\n' % (97 + row, row) for row in range(5))
    upload_id = bench.upload("in.jsonl", data)
    job = await bench.runner.create(bench.spec(upload_id, columns=InputColumns("text", None, None, ("n",))))
    await settle()
    bench.lane.fail(2)
    await bench.finish(job.id)
    failed = await lines_of(bench, job, RowSelection.FAILED)
    again = await bench.runner.retry(job.id)
    await settle()
    await bench.finish(again.id)
    lines = await lines_of(bench, again)
    assert [line["n"] for line in lines] == [line["n"] for line in failed] == [line["key"] for line in lines]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["embedding"], "'embedding' cannot be carried"),
        ([""], "'' cannot be carried"),
        (["a", "b", "a"], "must name each column once"),
        ([str(number) for number in range(65)], "must be at most 64"),
    ],
)
def test_names_that_cannot_be_carried_are_refused(names: list[str], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        check_carried(names, BulkLimits())
