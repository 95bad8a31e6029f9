"""Files of OpenAI's batch API, in and out."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.openai_input import batch_columns, read_openai
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, JobState, RowSelection
from penstock_server.domain.tasks import Task
from tests.support.bulk_jobs import Bench, running_bench, settle

LIMITS = BulkLimits(window_rows=4, disk_free_bytes_min=0)


def line(custom_id: object, given: object, **body: object) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": "text-embedding-3-small", "input": given, **body},
    }


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


async def test_a_batch_file_comes_back_as_one(bench: Bench) -> None:
    lines = [line("a", "a b"), line("b", ["c"]), line("c", ""), line("d", "d", encoding_format="float")]
    data = "".join(json.dumps(each) + "\n" for each in lines).encode()
    upload_id = bench.upload("batch.jsonl", data)
    spec = bench.spec(upload_id, input_format=FileFormat.OPENAI_BATCH, columns=batch_columns())
    job = await bench.runner.create(spec)
    await settle()
    done = await bench.finish(job.id)
    assert (done.state, done.progress.failed) == (JobState.SUCCEEDED, 1)
    path = await bench.runner.result_file(job.id, FileFormat.OPENAI_BATCH, RowSelection.ALL)
    results = [json.loads(each) for each in path.read_bytes().splitlines()]
    assert [result["custom_id"] for result in results] == ["a", "b", "c", "d"]
    assert [result["response"]["status_code"] for result in results] == [200, 200, 400, 200]
    assert all(result["error"] is None for result in results)
    assert len({result["id"] for result in results}) == 4
    vectors = [result["response"]["body"]["data"][0]["embedding"] for result in (*results[:2], results[3])]
    assert vectors == bench.expected(["a b", "c", "d"])
    assert results[0]["response"]["body"]["model"] == spec.model.name
    assert results[2]["response"]["body"]["error"]["code"] == "EMPTY_TEXT"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"body": {"input": "a"}}, "MISSING_FIELD"),
        ({"custom_id": "1"}, "MISSING_FIELD"),
        ({"custom_id": "1", "body": "a"}, "MISSING_FIELD"),
        (line("1", None), "EMPTY_TEXT"),
        (line("1", 5), "NOT_TEXT"),
        (line("1", [1, 2, 3]), "NOT_SUPPORTED"),
        (line("1", ["a", "b"]), "NOT_SUPPORTED"),
        (line("1", "a", dimensions=256), "NOT_SUPPORTED"),
        (line("1", "a", encoding_format="base64"), "NOT_SUPPORTED"),
        ({**line("1", "a"), "url": "/v1/chat/completions"}, "NOT_SUPPORTED"),
        (line([1], "a"), "BAD_KEY"),
        ([1], "BAD_JSON"),
    ],
)
def test_a_line_that_cannot_be_answered_fails_alone(tmp_path: Path, bad: object, code: str) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text(f"{json.dumps(bad)}\n{json.dumps(line('2', 'fine'))}\n")
    first, second = read_openai(path, batch_columns(), LIMITS)
    assert first.failure is not None
    assert first.failure.code == code
    assert (second.text, second.key) == (b"fine", "2")


async def test_it_is_for_embeddings(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LIMITS, Task.CLASSIFY)
    await bench.start()
    upload_id = bench.upload("batch.jsonl", b"{}\n")
    with pytest.raises(InvalidRequest, match="is for embeddings"):
        await bench.runner.create(bench.spec(upload_id, input_format=FileFormat.OPENAI_BATCH))
    job = await bench.submit(["a"])
    await bench.finish(job.id)
    with pytest.raises(InvalidRequest, match="is for embeddings"):
        await bench.runner.result_file(job.id, FileFormat.OPENAI_BATCH, RowSelection.ALL)
    await bench.stop()
