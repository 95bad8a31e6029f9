"""Reads the JSON lines of OpenAI's batch API: a ``custom_id`` and a body for ``/v1/embeddings`` each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from penstock_server.bulk.jsonl_input import read_objects
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import BadValue, InputRow, checked_key, checked_text
from penstock_server.domain.job import InputColumns, RowFailure

ENDPOINT = "/v1/embeddings"
# What a line may hold of its own that the job decides.
_COLUMNS = InputColumns(text="input", key="custom_id")


def read_openai(path: Path, columns: InputColumns, limits: BulkLimits) -> Iterator[InputRow]:
    """Yields the rows of a batch file; the model that lines name is not looked at, as the job has one.

    Raises:
        InvalidRequest: It cannot be unpacked.
    """
    for number, found in read_objects(path, limits):
        if isinstance(found, RowFailure):
            yield InputRow(None, failure=found)
            continue
        key = None
        try:
            key = checked_key(found.get("custom_id"), "custom_id", limits)
            if key is None:
                raise BadValue("MISSING_FIELD", "there is no field 'custom_id'.")
            text = checked_text(_input_of(found), "body.input", limits)
        except BadValue as bad:
            failure = RowFailure(bad.failure.code, f"Line {number}: {bad.failure.message}")
            yield InputRow(None, key=key, failure=failure)
        else:
            yield InputRow(text, key=key)


def batch_columns() -> InputColumns:
    """The columns of a batch file, as a job's spec has them."""
    return _COLUMNS


def _input_of(line: dict[str, Any]) -> object:
    if line.get("url", ENDPOINT) != ENDPOINT:
        raise BadValue("NOT_SUPPORTED", f"url is not {ENDPOINT}.")
    body: Any = line.get("body")
    if not isinstance(body, dict):
        raise BadValue("MISSING_FIELD", "there is no object 'body'.")
    fields = cast("dict[str, Any]", body)
    if fields.get("dimensions") is not None or fields.get("encoding_format") not in (None, "float"):
        raise BadValue("NOT_SUPPORTED", "body.dimensions and encoding_format are the job's; leave them out.")
    given: Any = fields.get("input")
    if isinstance(given, list):
        texts = cast("list[object]", given)
        if len(texts) != 1:
            raise BadValue("NOT_SUPPORTED", f"body.input has {len(texts)} texts; write a line for each.")
        return texts[0]
    return given
