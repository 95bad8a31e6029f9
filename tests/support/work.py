"""Builds work for scheduler and dispatcher tests from row lengths alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import TokenRows
from penstock_server.domain.errors import PenstockError
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchTimes, Work

MODEL = ModelKey("model", "1")


@dataclass
class RecordingSink:
    """Keeps what it is given, and fails the test if a row comes twice."""

    outputs: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    errors: dict[int, PenstockError] = field(default_factory=dict[int, PenstockError])

    def deliver(self, rows: NDArray[np.int32], outputs: NDArray[np.float32], times: BatchTimes) -> None:
        for row, output in zip(rows.tolist(), outputs.tolist(), strict=True):
            assert row not in self.outputs
            assert row not in self.errors
            self.outputs[row] = output

    def fail(self, rows: NDArray[np.int32], error: PenstockError) -> None:
        for row in rows.tolist():
            assert row not in self.outputs
            assert row not in self.errors
            self.errors[row] = error


def token_rows(lengths: list[int], first_id: int = 1000) -> TokenRows:
    """Rows of the given lengths; all ids of row r are ``first_id + r``."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.repeat(np.arange(len(lengths), dtype=np.int32) + first_id, lengths).astype(np.int32)
    none = np.zeros(len(lengths), dtype=np.bool_)
    return TokenRows(ids, np.zeros(len(ids), np.uint8), starts, none, ~none)


def make_work(
    lengths: list[int],
    *,
    request_class: RequestClass = RequestClass.LIVE,
    deadline_ns: int | None = None,
    arrival_ns: int = 0,
    model: ModelKey = MODEL,
) -> tuple[Work, RecordingSink]:
    """Work with a sink that records what becomes of its rows."""
    sink = RecordingSink()
    rows = np.arange(len(lengths), dtype=np.int32)
    work = Work(model, request_class, token_rows(lengths), rows, sink, arrival_ns, deadline_ns)
    return work, sink


def zeros(rows: int, width: int) -> NDArray[np.float32]:
    """Outputs of rows that nobody looks at."""
    return np.zeros((rows, width), np.float32)
