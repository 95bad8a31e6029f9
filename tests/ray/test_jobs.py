"""Jobs on a Ray cluster of several nodes on this machine, beside a server's job over the same rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock_server.bulk.arrow import pq
from penstock_server.domain.errors import InvalidRequest, PlaceFailed
from penstock_server.domain.job import InputColumns, JobProgress
from penstock_server.domain.tasks import Truncation
from penstock_server.ray.job import run_ray_job
from penstock_server.ray.model import ModelOrder
from penstock_server.ray.plan import RayJob, check, prepare
from tests.ray.conftest import NODE
from tests.support.reviews import reviews
from tests.support.server import MODELS, running_server

# Ray's own code warns of its own future, and leaves sockets and files to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = 1600
CHARS_MAX = 40
TOKENS_MAX = 64
MINILM = ModelOrder(models=str(MODELS), model="minilm", tokens_max=TOKENS_MAX, truncation=Truncation.ERROR)
COLUMNS = InputColumns(text="review", key="id", carried=("stars",))


def lines() -> list[bytes]:
    """Real texts, some of them twice, and every kind of row that fails."""
    texts = list(reviews(ROWS))
    found = [
        json.dumps({"id": f"k{row}", "review": text[:CHARS_MAX], "stars": row % 5}).encode()
        for row, text in enumerate(texts)
    ]
    found[10] = found[900] = found[11]
    found[3] = b'{"id": "k3", "review": ""}'
    found[4] = b'{"id": "k4", "review": 7}'
    found[5] = b'{"id": "k5"}'
    found[6] = b'{"id": "k6", "review": "half'
    found[1500] = b'{"id": "k1500", "review": "\xff"}'
    found[1501] = json.dumps({"id": "long", "review": texts[0]}).encode()
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "reviews.jsonl"
    path.write_bytes(b"\n".join(lines()) + b"\n")
    return path


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a server's job makes of the rows."""
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder / "data") as server, penstock.Client(server.address) as client:
        job = client.bulk.submit(
            str(source),
            model="minilm",
            task="embed",
            text_column="review",
            key_column="id",
            carry_columns=["stars"],
            truncation="error",
            tokens_max=TOKENS_MAX,
        )
        client.bulk.wait(job.id, timeout_s=120)
        client.bulk.download(job.id, folder / "rows.parquet", format="parquet")
    return pq.read_table(folder / "rows.parquet")


def job_over(source: Path, output: Path) -> RayJob:
    return RayJob(input_url=str(source), output_url=str(output), model=MINILM, columns=COLUMNS)


def rows_in(folder: Path) -> Any:
    """The rows of a folder as any reader of Parquet finds them, in order."""
    return pq.read_table(folder).sort_by("row")


def check_alike(found: Any, expected: Any) -> None:
    """Fails unless all rows are the same, but for the last digits of vectors."""
    assert found.schema.equals(expected.schema)
    assert found.drop_columns("embedding").equals(expected.drop_columns("embedding"))
    assert found.column("embedding").is_null().equals(expected.column("embedding").is_null())
    one, other = (_vectors(table) for table in (found, expected))
    assert one.shape == other.shape
    assert np.einsum("nd,nd->n", one, other).min() >= 0.99999


def _vectors(table: Any) -> Any:
    return np.array(table.column("embedding").drop_null().to_pylist(), np.float64)


def written(folder: Path) -> dict[str, int]:
    """When each part was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


@pytest.fixture(scope="module")
def done(cluster: Any, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that has ended."""
    output = tmp_path_factory.mktemp("ray") / "out"
    shown: list[JobProgress] = []
    result = run_ray_job(job_over(source, output), on_progress=shown.append)
    assert result.parts == result.parts_computed == len(shown) == 7
    assert [progress.done for progress in shown] == sorted(progress.done for progress in shown)
    assert result.progress.total == ROWS
    assert (result.progress.failed, result.progress.pending) == (6, 0)
    return output


def test_rows_are_those_of_a_servers_job(done: Path, expected: Any) -> None:
    check_alike(rows_in(done), expected)
    assert json.loads((done / "_SUCCESS").read_text()) == {
        "total": ROWS,
        "succeeded": ROWS - 6,
        "failed": 6,
        "parts": 7,
    }
    # The texts have served.
    assert [path.name for path in (done / "_penstock").iterdir()] == ["job.json"]


def test_a_later_run_computes_only_the_parts_that_are_not_there(
    cluster: Any, done: Path, source: Path, expected: Any
) -> None:
    before = written(done)
    for number in (1, 4):
        (done / f"part-{number:08d}.parquet").unlink()
    result = run_ray_job(job_over(source, done), workers=1)
    after = written(done)
    assert {name for name in after if after[name] != before[name]} == {
        "part-00000001.parquet",
        "part-00000004.parquet",
    }
    assert (result.parts, result.parts_computed, result.progress.failed) == (7, 2, 6)
    check_alike(rows_in(done), expected)
    assert run_ray_job(job_over(source, done)).parts_computed == 0


def test_another_job_is_refused_and_the_difference_named(cluster: Any, done: Path, source: Path) -> None:
    before = written(done)
    other = replace(job_over(source, done), model=replace(MINILM, tokens_max=32))
    with pytest.raises(InvalidRequest, match=r"holds another job .*tokens_max: 64, now 32"):
        run_ray_job(other)
    assert written(done) == before


def test_a_node_that_is_lost_takes_no_row_with_it(
    cluster: Any, source: Path, expected: Any, tmp_path: Path
) -> None:
    lost = next(iter(cluster.worker_nodes))

    def lose_one(progress: JobProgress) -> None:
        if lost in cluster.worker_nodes:
            cluster.remove_node(lost, allow_graceful=False)

    result = run_ray_job(job_over(source, tmp_path / "out"), on_progress=lose_one)
    cluster.add_node(**NODE)
    assert result.progress.done == ROWS
    assert lost not in cluster.worker_nodes
    check_alike(rows_in(tmp_path / "out"), expected)


def test_what_a_worker_runs_into_ends_the_job_and_is_told(cluster: Any, source: Path, tmp_path: Path) -> None:
    job = job_over(source, tmp_path / "out")
    prepare(check(job), workers=1)
    window = tmp_path / "out" / "_penstock" / "window-00000000.arrow"
    window.unlink()
    window.mkdir()
    with pytest.raises(PlaceFailed, match=r"window-00000000\.arrow cannot be reached: IsADirectoryError"):
        run_ray_job(job, workers=1)


def test_input_and_output_may_be_in_a_bucket(
    cluster: Any, store: Any, source: Path, expected: Any, tmp_path: Path
) -> None:
    store.makedirs("penstock-ray", exist_ok=True)
    head = b"\n".join(lines()[:300])
    store.pipe_file("penstock-ray/in/reviews.jsonl", head)
    job = replace(
        job_over(source, tmp_path),
        input_url="s3://penstock-ray/in/reviews.jsonl",
        output_url="s3://penstock-ray/out",
    )
    assert run_ray_job(job, workers=1).progress.done == 300
    store.invalidate_cache()
    store.get("penstock-ray/out/", str(tmp_path / "out"), recursive=True)
    check_alike(rows_in(tmp_path / "out"), expected.slice(0, 300))
    store.rm_file("penstock-ray/out/part-00000001.parquet")
    assert run_ray_job(job, workers=1).parts_computed == 1
    store.pipe_file("penstock-ray/in/reviews.jsonl", head + b"\n")
    with pytest.raises(InvalidRequest, match="version of the input"):
        run_ray_job(job)
