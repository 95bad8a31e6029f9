"""What a run finds in a folder, and what it makes of it; no cluster needed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.places import place_of
from penstock_server.bulk.spool import Spool
from penstock_server.domain.errors import InvalidRequest, PenstockError, PlaceFailed, UnknownModel
from penstock_server.domain.job import FileFormat, InputColumns
from penstock_server.ray.model import ModelOrder
from penstock_server.ray.output import OutputFolder, PartCounts, Success
from penstock_server.ray.plan import RayJob, check, prepare
from tests.support.server import MODELS

MINILM = ModelOrder(models=str(MODELS), model="minilm")


@pytest.fixture
def job(tmp_path: Path) -> RayJob:
    """A job over 1,000 rows, of which one is bad."""
    lines = [f"{row},text {row},{row % 2}" for row in range(1000)]
    lines[700] = "700,,0"
    (tmp_path / "rows.csv").write_text("id,text,even\n" + "\n".join(lines) + "\n")
    return RayJob(
        input_url=str(tmp_path / "rows.csv"),
        output_url=str(tmp_path / "out"),
        model=MINILM,
        columns=InputColumns(key="id", carried=("even",)),
    )


def write_parts(folder: OutputFolder, numbers: list[int]) -> None:
    for number in numbers:
        folder.write_part(number, pa.record_batch({"row": [number]}), PartCounts(number, 1))


def test_an_input_is_cut_so_that_each_worker_has_some_windows(job: RayJob, tmp_path: Path) -> None:
    assert prepare(check(job), workers=1).windows == (250, 250, 250, 250)
    many = replace(job, output_url=str(tmp_path / "many"))
    assert prepare(check(many), workers=100).windows == (250, 250, 250, 250)
    (tmp_path / "long.csv").write_text("text\n" + "a\n" * 20_000)
    long = replace(job, input_url=str(tmp_path / "long.csv"), columns=InputColumns())
    for workers, rows in ((1, 4096), (2, 2048), (4, 1024)):
        folder = str(tmp_path / f"long-{workers}")
        assert prepare(check(replace(long, output_url=folder)), workers).windows[0] == rows


def test_windows_hold_the_rows_in_order_with_keys_and_what_is_wrong(job: RayJob, tmp_path: Path) -> None:
    checked = check(job)
    manifest = prepare(checked, workers=2)
    assert manifest.start_rows() == [0, 250, 500, 750]
    keys: list[Any] = []
    for number, rows in enumerate(manifest.windows):
        checked.output.fetch_window(number, tmp_path / "window")
        spool = Spool(tmp_path / "window")
        window = spool.window(0)
        assert (spool.windows, window.rows) == (1, rows)
        first = window.text.data[window.text.offsets[0] : window.text.offsets[1]].tobytes()
        assert first.decode() == f"text {manifest.start_rows()[number]}"
        assert list(window.failures) == ([700 - 500] if number == 2 else [])
        keys += spool.keys(0)
        spool.close()
    assert keys == [str(row) for row in range(1000)]
    assert manifest.arrow_schema().names == ["row", "key", "even", "embedding", "error_code", "error"]


def test_a_later_run_goes_on_with_the_same_windows(job: RayJob, tmp_path: Path) -> None:
    checked = check(job)
    first = prepare(checked, workers=1)
    window = tmp_path / "out" / "_penstock" / "window-00000000.arrow"
    written_ns = window.stat().st_mtime_ns
    # Another number of workers does not cut anew.
    assert prepare(checked, workers=50) == first
    assert window.stat().st_mtime_ns == written_ns
    write_parts(checked.output, [0, 1, 3])
    checked.output.remove_windows([0, 1, 3])
    assert prepare(checked, workers=1) == first
    assert checked.output.windows() == {2}


def test_windows_that_are_gone_are_read_again(job: RayJob) -> None:
    checked = check(job)
    first = prepare(checked, workers=1)
    write_parts(checked.output, [0, 1, 3])
    checked.output.remove_windows([0, 1, 2, 3])
    assert prepare(checked, workers=7) == first
    assert 2 in checked.output.windows()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"columns": InputColumns(key="id")}, r"carried column: \[\"even\"\], now \[\]"),
        ({"model": replace(MINILM, tokens_max=16)}, "tokens_max: 256, now 16"),
        ({"input_format": FileFormat.JSONL}, "input format"),
    ],
)
def test_another_job_in_the_folder_is_refused(job: RayJob, change: dict[str, Any], told: str) -> None:
    prepare(check(job), workers=1)
    with pytest.raises(InvalidRequest, match=told):
        prepare(check(replace(job, **change)), workers=1)


def test_an_input_that_was_written_anew_is_another_job(job: RayJob) -> None:
    prepare(check(job), workers=1)
    os.utime(job.input_url, ns=(1, 1))
    with pytest.raises(InvalidRequest, match="version of the input"):
        prepare(check(job), workers=1)


def test_a_folder_with_other_peoples_parts_is_refused(job: RayJob, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "out" / "part-00000000.parquet")
    with pytest.raises(InvalidRequest, match="parts of something else"):
        prepare(check(job), workers=1)


def test_a_manifest_that_cannot_be_read_is_told(job: RayJob, tmp_path: Path) -> None:
    (tmp_path / "out" / "_penstock").mkdir(parents=True)
    (tmp_path / "out" / "_penstock" / "job.json").write_text("{}")
    with pytest.raises(InvalidRequest, match=r"job\.json cannot be read"):
        prepare(check(job), workers=1)


def test_a_run_that_stops_before_the_manifest_begins_anew(
    job: RayJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise PlaceFailed("The store is gone.")

        broken.setattr(OutputFolder, "write_manifest", fail)
        with pytest.raises(PlaceFailed):
            prepare(check(job), workers=1)
    assert prepare(check(job), workers=1).rows == 1000


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"input_url": "rows.csv"}, InvalidRequest, "input_url: a local path must be absolute"),
        ({"input_url": "/in/*.csv"}, InvalidRequest, "input_url: must be one file"),
        ({"output_url": "out"}, InvalidRequest, "output_url: a local path must be absolute"),
        ({"input_url": "/none/rows.csv"}, InvalidRequest, "There is nothing at /none/rows.csv"),
        ({"input_url": "/none/rows.txt"}, InvalidRequest, "cannot be told from the name"),
        ({"model": replace(MINILM, model="other")}, UnknownModel, "no model other"),
        ({"model": replace(MINILM, tokens_max=1)}, InvalidRequest, "tokens_max"),
        ({"columns": InputColumns(carried=("key",))}, InvalidRequest, "'key' cannot be carried"),
        ({"columns": InputColumns(text="body")}, InvalidRequest, "no column 'body'"),
        ({"input_format": FileFormat.OPENAI_BATCH}, InvalidRequest, "name no columns"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
    job: RayJob, tmp_path: Path, change: dict[str, Any], error: type[PenstockError], told: str
) -> None:
    with pytest.raises(error, match=told):
        prepare(check(replace(job, **change)), workers=1)
    assert not (tmp_path / "out").exists()


def test_counts_are_read_from_the_parts(tmp_path: Path) -> None:
    folder = OutputFolder(place_of(str(tmp_path / "out")))
    assert (folder.parts(), folder.windows(), folder.manifest()) == (frozenset(), frozenset(), None)
    write_parts(folder, [0, 12])
    (tmp_path / "out" / "_part-00000001.parquet").touch()
    assert folder.parts() == {0, 12}
    assert folder.counts([0, 12]) == [PartCounts(0, 1), PartCounts(12, 1)]
    folder.write_success(Success(total=2, succeeded=1, failed=1, parts=2))
    assert (tmp_path / "out" / "_SUCCESS").is_file()
    assert pq.read_table(tmp_path / "out").num_rows == 2
    for _ in range(2):
        folder.take_back_success()
        assert not (tmp_path / "out" / "_SUCCESS").exists()
