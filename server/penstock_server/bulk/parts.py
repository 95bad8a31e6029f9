"""Part files: what became of the rows of one window.

An Arrow IPC file with one record batch: a status for each row, the answers, and why rows failed. A part
may hold pending rows, when a job was paused or the server stopped in the middle of a window; the next part
of that window then begins from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.bulk.arrow import pa
from penstock_server.bulk.durable import replacing
from penstock_server.domain.answer import Classifications, Vectors
from penstock_server.domain.job import RowFailure


class RowStatus(IntEnum):
    """Where a row stands."""

    PENDING = 0
    SUCCEEDED = 1
    FAILED = 2


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What became of the rows of one window.

    Attributes:
        status: uint8 ``[rows]`` of `RowStatus`.
        answers: Answers of all rows, in order; rows that have none are zeros. None if no row succeeded.
        failures: Why rows failed, by index in the window.
    """

    status: NDArray[np.uint8]
    answers: Vectors | Classifications | None
    failures: dict[int, RowFailure]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.status)

    def count(self, status: RowStatus) -> int:
        """Number of rows of a status."""
        return int(np.count_nonzero(self.status == status))


def write_part(path: Path, part: Part) -> None:
    """Writes a part durably.

    Raises:
        StorageFull: The disk has no room.
        StorageFailed: The disk failed.
    """
    columns: dict[str, Any] = {
        "status": pa.array(part.status),
        "error_code": _texts(part, lambda failure: failure.code),
        "error": _texts(part, lambda failure: failure.message),
    }
    metadata: dict[str, str] = {}
    if isinstance(part.answers, Vectors):
        columns["vector"] = _matrix(part.answers.values)
    elif isinstance(part.answers, Classifications):
        columns["label_id"] = _matrix(part.answers.label_ids)
        columns["score"] = _matrix(part.answers.scores)
        metadata["labels"] = json.dumps(part.answers.labels)
    batch = pa.RecordBatch.from_pydict(columns).replace_schema_metadata(metadata)
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, batch.schema) as writer,
    ):
        writer.write_batch(batch)


def read_part(path: Path) -> Part:
    """Reads a part. Its arrays are read-only views of the file."""
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        batch = reader.get_batch(0)
    metadata: dict[bytes, bytes] = reader.schema.metadata or {}
    status = batch.column("status").to_numpy()
    return Part(status, _answers_of(batch, metadata), _failures_of(batch, status))


def merge_answers(
    rows: int,
    done: NDArray[np.bool_],
    fresh: Vectors | Classifications | None,
    earlier: Vectors | Classifications | None,
) -> Vectors | Classifications | None:
    """Joins answers of an earlier part with those computed since.

    Args:
        rows: Rows of the window.
        done: bool ``[rows]``: which rows ``fresh`` answers.
        fresh: Their answers, in order; None if there are none.
        earlier: Answers of all rows from the earlier part, or None.

    Returns:
        Answers of all rows; zeros where there is none.
    """
    if fresh is None:
        return earlier
    if isinstance(fresh, Vectors):
        before = earlier.values if isinstance(earlier, Vectors) else None
        return Vectors(_scatter(rows, done, fresh.values, before))
    known = earlier if isinstance(earlier, Classifications) else None
    return Classifications(
        label_ids=_scatter(rows, done, fresh.label_ids, known.label_ids if known else None),
        scores=_scatter(rows, done, fresh.scores, known.scores if known else None),
        labels=fresh.labels,
    )


def _scatter(
    rows: int, done: NDArray[np.bool_], fresh: NDArray[Any], earlier: NDArray[Any] | None
) -> NDArray[Any]:
    if earlier is None:
        # A window that was computed in one go needs no second copy.
        if len(fresh) == rows:
            return fresh
        joined = np.zeros((rows, fresh.shape[1]), fresh.dtype)
    else:
        joined = earlier.copy()
    joined[done] = fresh
    return joined


def _matrix(values: NDArray[Any]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _rows_of(column: Any) -> NDArray[Any]:
    width = column.type.list_size
    values: NDArray[Any] = column.flatten().to_numpy()
    return values.reshape(-1, width)


def _texts(part: Part, choose: Callable[[RowFailure], str]) -> Any:
    values: list[str | None] = [None] * part.rows
    for index, failure in part.failures.items():
        values[index] = choose(failure)
    return pa.array(values, type=pa.string())


def _answers_of(batch: Any, metadata: dict[bytes, bytes]) -> Vectors | Classifications | None:
    if "vector" in batch.schema.names:
        return Vectors(_rows_of(batch.column("vector")))
    if "label_id" in batch.schema.names:
        return Classifications(
            label_ids=_rows_of(batch.column("label_id")),
            scores=_rows_of(batch.column("score")),
            labels=tuple(json.loads(metadata[b"labels"])),
        )
    return None


def _failures_of(batch: Any, status: NDArray[np.uint8]) -> dict[int, RowFailure]:
    codes, messages = batch.column("error_code"), batch.column("error")
    return {
        int(i): RowFailure(codes[int(i)].as_py(), messages[int(i)].as_py())
        for i in np.flatnonzero(status == RowStatus.FAILED)
    }
