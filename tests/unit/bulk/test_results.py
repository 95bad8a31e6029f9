"""Parts and result files: what is written is what is read, in input order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_server.bulk.arrow import pq
from penstock_server.bulk.export import ExportOrder, export
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.journal import WindowRecord
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.parts import Part, RowStatus, merge_answers, read_part, write_part
from penstock_server.bulk.rows import InputRow, Key
from penstock_server.bulk.spool import write_spool
from penstock_server.domain.answer import Classifications, Vectors
from penstock_server.domain.job import FileFormat, RowFailure, RowSelection
from penstock_server.domain.tasks import Task

OK, BAD, PENDING = RowStatus.SUCCEEDED, RowStatus.FAILED, RowStatus.PENDING
FAILURE = RowFailure("EMPTY_TEXT", 'text is "empty".')
VECTORS = np.array([[0.1, -2.5], [0, 0], [1e-8, 3], [4, 5e20]], np.float32)
LABELS = Classifications(
    label_ids=np.array([[1, 0], [0, 0], [0, 1], [1, 0]], np.int32),
    scores=np.array([[0.9, 0.1], [0, 0], [0.7, 0.3], [0.6, 0.4]], np.float32),
    labels=("no", 'y"es'),
)


def job_folder(
    tmp_path: Path,
    answers: Vectors | Classifications | None,
    keys: list[Key],
    status: list[int] | None = None,
) -> tuple[JobFolder, tuple[WindowRecord, ...]]:
    """A job of four rows in two windows; the second row failed unless told otherwise."""
    folder = JobFolder(tmp_path / "job")
    folder.create()
    rows = [InputRow(b"text", key=key) for key in keys]
    write_spool(folder.spool_path, rows, has_pairs=False, limits=BulkLimits(window_rows=2))
    whole = np.array(status or [OK, BAD, OK, OK], np.uint8)
    records: list[WindowRecord] = []
    for number in range(2):
        part_status = whole[number * 2 : number * 2 + 2]
        failures = {int(i): FAILURE for i in np.flatnonzero(part_status == BAD)}
        part = Part(part_status, _half(answers, number), failures)
        record = WindowRecord(number, 2, part.count(OK), part.count(BAD), 8, folder.part_name(number, ""))
        write_part(folder.part_path(record.file_name), part)
        records.append(record)
    return folder, tuple(records)


def _half(answers: Vectors | Classifications | None, number: int) -> Vectors | Classifications | None:
    rows = slice(number * 2, number * 2 + 2)
    if isinstance(answers, Vectors):
        return Vectors(answers.values[rows])
    if isinstance(answers, Classifications):
        return Classifications(answers.label_ids[rows], answers.scores[rows], answers.labels)
    return None


def result(
    folder: JobFolder,
    records: tuple[WindowRecord, ...],
    file_format: FileFormat,
    selection: RowSelection,
    task: Task = Task.EMBED,
    has_keys: bool = True,
) -> Path:
    return export(ExportOrder(folder.path, records, task, has_keys, (), "minilm", file_format, selection))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_part_reads_back_as_it_was_written(tmp_path: Path) -> None:
    status = np.array([OK, BAD, PENDING, OK], np.uint8)
    for answers in (Vectors(VECTORS), LABELS, None):
        write_part(tmp_path / "part", Part(status, answers, {1: FAILURE}))
        part = read_part(tmp_path / "part")
        assert part.status.tolist() == status.tolist()
        assert part.failures == {1: FAILURE}
        if isinstance(part.answers, Vectors):
            np.testing.assert_array_equal(part.answers.values, VECTORS)
        elif isinstance(part.answers, Classifications):
            np.testing.assert_array_equal(part.answers.label_ids, LABELS.label_ids)
            np.testing.assert_array_equal(part.answers.scores, LABELS.scores)
            assert part.answers.labels == LABELS.labels
        assert type(part.answers) is type(answers)


def test_answers_of_two_turns_are_joined_by_row() -> None:
    first = merge_answers(4, np.array([True, False, False, True]), Vectors(VECTORS[[0, 3]]), None)
    both = merge_answers(4, np.array([False, False, True, False]), Vectors(VECTORS[[2]]), first)
    assert isinstance(both, Vectors)
    np.testing.assert_array_equal(both.values, VECTORS)
    assert merge_answers(4, np.zeros(4, np.bool_), None, both) is both


def test_jsonl_of_vectors_has_the_shortest_digits_that_give_the_same_float32(tmp_path: Path) -> None:
    folder, records = job_folder(tmp_path, Vectors(VECTORS), ["a", "b", 3, None])
    path = result(folder, records, FileFormat.JSONL, RowSelection.ALL)
    lines = lines_of(path)
    error = {"code": "EMPTY_TEXT", "message": 'text is "empty".'}
    assert [line["row"] for line in lines] == [0, 1, 2, 3]
    assert [line["key"] for line in lines] == ["a", "b", 3, None]
    assert lines[1] == {"row": 1, "key": "b", "error": error}
    read = np.array([lines[row]["embedding"] for row in (0, 2, 3)], np.float32)
    np.testing.assert_array_equal(read, VECTORS[[0, 2, 3]])
    assert "[0.1,-2.5]" in path.read_text()


def test_jsonl_of_labels(tmp_path: Path) -> None:
    folder, records = job_folder(tmp_path, LABELS, [None] * 4)
    path = result(folder, records, FileFormat.JSONL, RowSelection.SUCCEEDED, Task.CLASSIFY, has_keys=False)
    assert lines_of(path) == [
        {"row": 0, "labels": [{"label": 'y"es', "score": 0.9}, {"label": "no", "score": 0.1}]},
        {"row": 2, "labels": [{"label": "no", "score": 0.7}, {"label": 'y"es', "score": 0.3}]},
        {"row": 3, "labels": [{"label": 'y"es', "score": 0.6}, {"label": "no", "score": 0.4}]},
    ]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [([7, 8, 9, None], [7, 8, 9, None]), (["a", 8, None, "d"], ["a", "8", None, "d"])],
)
def test_parquet_of_vectors_keeps_whole_number_keys(
    tmp_path: Path, keys: list[Key], expected: list[Key]
) -> None:
    folder, records = job_folder(tmp_path, Vectors(VECTORS), keys)
    table = pq.read_table(result(folder, records, FileFormat.PARQUET, RowSelection.ALL))
    assert table.schema.names == ["row", "key", "embedding", "error_code", "error"]
    assert table.column("key").to_pylist() == expected
    assert table.column("embedding").to_pylist()[1] is None
    assert table.column("embedding").to_pylist()[2] == VECTORS[2].tolist()
    assert table.column("error_code").to_pylist() == [None, "EMPTY_TEXT", None, None]


def test_parquet_of_labels_and_the_separate_file_of_errors(tmp_path: Path) -> None:
    folder, records = job_folder(tmp_path, LABELS, ["a", "b", "c", "d"])
    path = result(folder, records, FileFormat.PARQUET, RowSelection.SUCCEEDED, Task.CLASSIFY)
    table = pq.read_table(path)
    assert table.schema.names == ["row", "key", "labels"]
    assert table.column("row").to_pylist() == [0, 2, 3]
    assert [label["label"] for label in table.column("labels").to_pylist()[1]] == ["no", 'y"es']
    errors = pq.read_table(result(folder, records, FileFormat.PARQUET, RowSelection.FAILED, Task.CLASSIFY))
    assert errors.to_pylist() == [
        {"row": 1, "key": "b", "error_code": "EMPTY_TEXT", "error": 'text is "empty".'}
    ]


def test_a_job_without_any_answer_has_empty_result_files(tmp_path: Path) -> None:
    folder, records = job_folder(tmp_path, None, ["a", "b", "c", "d"], [BAD, BAD, BAD, PENDING])
    assert pq.read_table(result(folder, records, FileFormat.PARQUET, RowSelection.SUCCEEDED)).num_rows == 0
    assert result(folder, records, FileFormat.JSONL, RowSelection.SUCCEEDED).read_bytes() == b""
    assert pq.read_table(result(folder, records, FileFormat.PARQUET, RowSelection.ALL)).num_rows == 3


def test_pending_rows_are_in_no_file(tmp_path: Path) -> None:
    folder, records = job_folder(tmp_path, Vectors(VECTORS), list("abcd"), [OK, PENDING, PENDING, OK])
    for file_format in (FileFormat.JSONL, FileFormat.PARQUET):
        path = result(folder, records, file_format, RowSelection.ALL)
        rows = lines_of(path) if file_format is FileFormat.JSONL else pq.read_table(path).to_pylist()
        assert [row["row"] for row in rows] == [0, 3]
