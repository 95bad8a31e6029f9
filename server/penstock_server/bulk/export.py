"""Writes result files: JSONL, Parquet or OpenAI's batch lines, in input order, with the input's keys.

Columns are row, key (if the job has keys), carried columns of the input, then the answer (``embedding``, or
``labels`` as a list of label and score), then ``error_code`` and ``error``. A file of succeeded rows leaves
the error columns out, a file of failed rows the answer. Runs in constant memory and is fit for a process of
its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.bulk.arrow import pa, pc, pq
from penstock_server.bulk.carried import members_of
from penstock_server.bulk.durable import replacing
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.journal import WindowRecord
from penstock_server.bulk.parts import RowStatus
from penstock_server.bulk.result_table import result_batch, result_schema
from penstock_server.bulk.results import ResultRows, read_results
from penstock_server.bulk.spool import Spool
from penstock_server.domain.answer import Classifications, Vectors
from penstock_server.domain.job import FileFormat, RowSelection
from penstock_server.domain.tasks import Task


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """Which result file is to be written; picklable.

    Attributes:
        folder: The job's folder.
        windows: Its windows in the journal, in order.
        task: What the job computed.
        has_keys: Whether the job has a key column.
        carried: Further columns of the input.
        model: The model's name.
        file_format: JSONL, PARQUET or OPENAI_BATCH.
        selection: Which rows.
    """

    folder: Path
    windows: tuple[WindowRecord, ...]
    task: Task
    has_keys: bool
    carried: tuple[str, ...]
    model: str
    file_format: FileFormat
    selection: RowSelection


def export(order: ExportOrder) -> Path:
    """Writes a result file durably, replacing an earlier one.

    Returns:
        Its path.

    Raises:
        StorageFull: The disk has no room.
        StorageFailed: The disk failed.
    """
    folder = JobFolder(order.folder)
    path = folder.result_path(order.file_format, order.selection)
    rows = read_results(folder, order.windows, has_ended=True, selection=order.selection)
    with replacing(path) as temporary:
        ResultWriter(order).write(temporary, rows)
    return path


class ResultWriter:
    """Writes rows of a job in the format of an order; all files of one writer have the same columns."""

    def __init__(self, order: ExportOrder) -> None:
        self._order = order
        is_parquet = order.file_format is FileFormat.PARQUET
        self._schema = _parquet_schema(order, JobFolder(order.folder)) if is_parquet else None

    def write(self, path: Path, rows: Iterator[ResultRows]) -> None:
        """Writes some rows to a file."""
        order = self._order
        if order.file_format is FileFormat.JSONL:
            _write_jsonl(path, rows, order.carried, has_keys=order.has_keys)
        elif order.file_format is FileFormat.OPENAI_BATCH:
            _write_openai(path, rows, order.folder.name, order.model)
        else:
            _write_parquet(path, rows, self._schema)


def _write_jsonl(path: Path, rows: Iterator[ResultRows], carried: Sequence[str], *, has_keys: bool) -> None:
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        for chunk in rows:
            answers = _json_answers(chunk)
            indices: list[int] = chunk.indices.tolist()
            for index in indices:
                head = {"row": chunk.start_row + index}
                line = encoder.encode({**head, "key": chunk.keys[index]} if has_keys else head)
                if carried:
                    line = line[:-1] + b"," + members_of(chunk.carried[index], carried) + b"}"
                failure = chunk.part.failures.get(index)
                if failure is not None:
                    error = {"code": failure.code, "message": failure.message}
                    rest = b'"error":' + encoder.encode(error)
                else:
                    rest = next(answers)
                file.write(line[:-1] + b"," + rest + b"}\n")


def _write_openai(path: Path, rows: Iterator[ResultRows], job_id: str, model: str) -> None:
    """Writes a line for each row as OpenAI's batch API does: a response of 200, or of 400 with the error."""
    encoder = msgspec.json.Encoder()
    body_end = b'}],"model":' + encoder.encode(model) + b'}},"error":null}\n'
    with path.open("wb") as file:
        for chunk in rows:
            answers = _json_answers(chunk)
            for index in chunk.indices.tolist():
                request_id = f"{job_id}-{chunk.start_row + index}"
                head = encoder.encode({"id": request_id, "custom_id": chunk.keys[index]})[:-1]
                failure = chunk.part.failures.get(index)
                status = 200 if failure is None else 400
                head += b',"response":{"status_code":%d,"request_id":"%b","body":' % (
                    status,
                    request_id.encode(),
                )
                if failure is None:
                    start = b'{"object":"list","data":[{"object":"embedding","index":0,'
                    file.write(head + start + next(answers) + body_end)
                else:
                    error = {
                        "message": failure.message,
                        "type": "invalid_request_error",
                        "code": failure.code,
                    }
                    file.write(head + encoder.encode({"error": error}) + b'},"error":null}\n')


def _json_answers(rows: ResultRows) -> Iterator[bytes]:
    """Yields the answer member of each succeeded row.

    Arrow prints float32 in the fewest digits that round-trip.
    """
    answers = rows.part.answers
    done = rows.indices[rows.part.status[rows.indices] == RowStatus.SUCCEEDED]
    if isinstance(answers, Vectors):
        for numbers in _json_numbers(answers.values[done]):
            yield b'"embedding":[' + numbers.encode() + b"]"
    elif isinstance(answers, Classifications):
        names = [msgspec.json.encode(label).decode() for label in answers.labels]
        scores = pc.cast(pa.array(answers.scores[done].reshape(-1)), pa.string()).to_pylist()
        k = answers.scores.shape[1]
        for place, label_ids in enumerate(answers.label_ids[done].tolist()):
            parts = [
                f'{{"label":{names[label_id]},"score":{score}}}'
                for label_id, score in zip(label_ids, scores[place * k : (place + 1) * k], strict=True)
            ]
            yield f'"labels":[{",".join(parts)}]'.encode()


def _json_numbers(values: NDArray[np.float32]) -> list[str]:
    rows, width = values.shape
    # 32-bit offsets, the only ones that binary_join takes; a window's numbers fit by far.
    offsets = pa.array(np.arange(0, (rows + 1) * width, width, dtype=np.int32))
    texts = pc.cast(pa.array(values.reshape(-1)), pa.string())
    lists = pa.ListArray.from_arrays(offsets, texts)
    joined: list[str] = pc.binary_join(lists, ",").to_pylist()
    return joined


def _write_parquet(path: Path, rows: Iterator[ResultRows], schema: Any) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for chunk in rows:
            writer.write_batch(result_batch(chunk, schema))


def _parquet_schema(order: ExportOrder, folder: JobFolder) -> Any:
    spool = Spool(folder.spool_path)
    try:
        return result_schema(
            spool,
            order.task,
            has_keys=order.has_keys,
            carried=order.carried,
            selection=order.selection,
        )
    finally:
        spool.close()
