"""Result rows as an Arrow table: row, key, carried columns, the answer, and why a row failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock_server.bulk.arrow import pa
from penstock_server.bulk.carried import RESERVED, CarriedTypes, column_of
from penstock_server.bulk.parts import RowStatus
from penstock_server.bulk.results import ResultRows
from penstock_server.bulk.rows import Key
from penstock_server.bulk.spool import Spool
from penstock_server.domain.answer import Vectors
from penstock_server.domain.job import RowSelection
from penstock_server.domain.tasks import Task

_LABELS_TYPE = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))
ERROR_FIELDS = (pa.field("error_code", pa.string()), pa.field("error", pa.string()))


def result_schema(
    spool: Spool, task: Task, *, has_keys: bool, carried: Sequence[str], selection: RowSelection
) -> Any:
    """The schema of a job's result rows; keys and carried columns have types that fit all of their values.

    Args:
        spool: The job's rows.
        task: What the job computes.
        has_keys: Whether rows have keys.
        carried: Names of the carried columns.
        selection: Succeeded rows have no error columns, failed ones no answer.
    """
    fields: list[Any] = [pa.field("row", pa.int64(), nullable=False)]
    if has_keys:
        fields.append(pa.field("key", _key_type(spool)))
    if carried:
        fields += _carried_fields(spool, carried)
    if selection is not RowSelection.FAILED:
        fields.append(answer_field(task))
    if selection is not RowSelection.SUCCEEDED:
        fields += ERROR_FIELDS
    return pa.schema(fields)


def answer_field(task: Task) -> Any:
    """The column of a task's answers: ``embedding``, or ``labels`` as a list of label and score."""
    if task is Task.EMBED:
        return pa.field("embedding", pa.list_(pa.float32()))
    return pa.field("labels", _LABELS_TYPE)


def result_batch(rows: ResultRows, schema: Any) -> Any:
    """Result rows as a record batch, with the columns of `result_schema` or some of them."""
    return pa.record_batch([_column(field, rows) for field in schema], schema=schema)


def _key_type(spool: Spool) -> Any:
    """int64 if all keys are whole numbers, else text."""
    has_texts, has_numbers = spool.key_kinds()
    return pa.int64() if has_numbers and not has_texts else pa.string()


def _carried_fields(spool: Spool, names: Sequence[str]) -> list[Any]:
    types = CarriedTypes(names)
    for number in range(spool.windows):
        for row in spool.carried(number):
            types.see(row)
    return [pa.field(name, types.type_of(name)) for name in names]


def _column(field: Any, rows: ResultRows) -> Any:
    indices: list[int] = rows.indices.tolist()
    if field.name == "row":
        return pa.array(rows.indices + rows.start_row)
    if field.name == "key":
        keys: list[Key] = [rows.keys[index] for index in indices]
        if pa.types.is_string(field.type):
            keys = [None if key is None else str(key) for key in keys]
        return pa.array(keys, type=field.type)
    if field.name in ("error_code", "error"):
        failures = [rows.part.failures.get(index) for index in indices]
        texts = [
            None if failure is None else (failure.code if field.name == "error_code" else failure.message)
            for failure in failures
        ]
        return pa.array(texts, type=pa.string())
    if field.name not in RESERVED:
        return column_of([rows.carried[index] for index in indices], field.name, field.type)
    return _answers(field, rows)


def _answers(field: Any, rows: ResultRows) -> Any:
    answers = rows.part.answers
    succeeded = rows.part.status[rows.indices] == RowStatus.SUCCEEDED
    if answers is None:
        return pa.nulls(len(rows.indices), field.type)
    if isinstance(answers, Vectors):
        values, width = answers.values[rows.indices], answers.values.shape[1]
        items: Any = pa.array(values.reshape(-1))
    else:
        width = answers.scores.shape[1]
        names = pa.array(answers.labels, type=pa.string())
        labels = names.take(pa.array(answers.label_ids[rows.indices].reshape(-1)))
        scores = pa.array(answers.scores[rows.indices].reshape(-1))
        items = pa.StructArray.from_arrays([labels, scores], fields=list(field.type.value_type))
    offsets = pa.array(np.arange(0, (len(succeeded) + 1) * width, width, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, items, type=field.type, mask=pa.array(~succeeded))
