"""Tiny ONNX models, written in milliseconds, whose outputs a test can compute by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penstock_server.domain.model import ModelKey, ModelManifest
from penstock_server.domain.work import Batch
from penstock_server.models.derive import derive_manifest

VOCABULARY = 50
# An id whose vector is not a number: a row with it is poison.
POISON_ID = 49
KEY = ModelKey("tiny", "1")

Shape = Literal["tokens", "vectors", "logits"]


def table(width: int) -> NDArray[np.float32]:
    """The vector of every token id, float32 ``[VOCABULARY, width]``."""
    values = np.random.default_rng(7).standard_normal((VOCABULARY, width)).astype(np.float32)
    values[POISON_ID] = np.nan
    return values


def write_graph(
    path: Path,
    *,
    shape: Shape = "tokens",
    width: int = 4,
    int32: bool = False,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
    output: str | None = None,
    declared_width: int | str | None = None,
) -> None:
    """Writes a graph that looks every id up in `table`.

    Args:
        path: The file.
        shape: ``tokens`` gives the vectors themselves; ``vectors`` and ``logits`` the sum of a row's.
        width: Numbers a vector.
        int32: Whether ids are int32 rather than int64.
        inputs: Names of the inputs; only input_ids has an effect.
        output: Name of the output; by default what exporters call it.
        declared_width: Width in the output's declared shape; a name makes it dynamic.
    """
    names = {"tokens": "last_hidden_state", "vectors": "sentence_embedding", "logits": "logits"}
    name = output or names[shape]
    axes: list[int | str] = ["batch", "sequence"]
    element = TensorProto.INT32 if int32 else TensorProto.INT64
    nodes = [helper.make_node("Gather", ["table", "input_ids"], [name if shape == "tokens" else "found"])]
    weights = [numpy_helper.from_array(table(width), "table")]
    if shape != "tokens":
        nodes.append(helper.make_node("ReduceSum", ["found", "axis"], [name], keepdims=0))
        weights.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    sizes = [*(axes if shape == "tokens" else axes[:1]), declared_width or width]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(value, element, axes) for value in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def write_model(
    folder: Path,
    *,
    settings: str | None = None,
    files: Mapping[str, Any] | None = None,
    graph: str = "model.onnx",
    **graph_options: Any,
) -> Path:
    """Writes a model folder.

    Args:
        folder: Where.
        settings: Text of ``penstock.toml``; none by default.
        files: JSON files by name.
        graph: Path of the graph below the folder.
        graph_options: As for `write_graph`.
    """
    write_graph(folder / graph, **graph_options)
    for name, content in {"tokenizer.json": {"version": "1.0"}, **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    if settings is not None:
        (folder / "penstock.toml").write_text(settings, encoding="utf-8")
    return folder


def tiny_manifest(folder: Path, settings: str = 'task = "embed"', **options: Any) -> ModelManifest:
    """Writes a model and reads its manifest."""
    return derive_manifest(KEY, write_model(folder, settings=settings, **options))


def make_batch(
    rows: list[list[int]],
    padded_length: int | None = None,
    dtype: np.dtype[np.int64] | np.dtype[np.int32] | None = None,
) -> Batch:
    """Lays rows of ids out, padded with id 0."""
    length = padded_length or max(len(row) for row in rows)
    ids: NDArray[Any] = np.zeros((len(rows), length), dtype or np.dtype(np.int64))
    mask: NDArray[Any] = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return Batch(token_ids=ids, attention_mask=mask, type_ids=np.zeros_like(ids))
