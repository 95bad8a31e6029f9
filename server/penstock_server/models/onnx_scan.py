"""Reads the outline of an ONNX file without loading it.

An ONNX file is a protobuf message whose weights are length-delimited fields; skipping over them in a memory
map costs a few milliseconds, where an onnxruntime session costs a hundred and the ``onnx`` package would be
one more dependency. Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock_server.domain.errors import ModelBroken

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME = 1, 2, 8
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 1, 2
_SHAPE_DIM, _DIM_VALUE = 1, 1

FLOAT, UINT8, INT8, INT32, INT64, FLOAT16, BFLOAT16, UINT4, INT4 = 1, 2, 3, 6, 7, 10, 16, 21, 22


@dataclass(frozen=True, slots=True)
class GraphValue:
    """An input or output of a graph.

    Attributes:
        name: Its name.
        element_type: ONNX data type, such as ``INT64``.
        shape: Sizes; None where a size is dynamic.
    """

    name: str
    element_type: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class GraphOutline:
    """What a graph takes and gives.

    Attributes:
        inputs: Inputs a caller must feed (initialisers that are listed as inputs are left out).
        outputs: Outputs, in order.
        weight_types: ONNX data types of the matrices among the weights.
    """

    inputs: tuple[GraphValue, ...]
    outputs: tuple[GraphValue, ...]
    weight_types: frozenset[int]


def scan_onnx(path: Path) -> GraphOutline:
    """Reads a graph's inputs, outputs and weight types.

    Args:
        path: An ONNX file; weights kept outside it are not touched.

    Returns:
        The outline. The cost is linear in nodes and weights, not in bytes.

    Raises:
        ModelBroken: The file cannot be read or is not an ONNX model.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _scan_model(view)
    except (OSError, ValueError, IndexError) as err:
        raise ModelBroken(
            f"{path} is not a readable ONNX model ({err}). Export or fetch it again.", path=str(path)
        ) from err


def _scan_model(view: mmap.mmap) -> GraphOutline:
    for field, kind, start, end in _fields(view, 0, len(view)):
        if field == _MODEL_GRAPH and kind == _BYTES:
            return _scan_graph(view, start, end)
    raise ValueError("it holds no graph")


def _scan_graph(view: mmap.mmap, start: int, end: int) -> GraphOutline:
    inputs: list[GraphValue] = []
    outputs: list[GraphValue] = []
    weights: set[str] = set()
    weight_types: set[int] = set()
    for field, kind, begin, stop in _fields(view, start, end):
        if kind != _BYTES:
            continue
        if field == _GRAPH_INPUT:
            inputs.append(_read_value(view, begin, stop))
        elif field == _GRAPH_OUTPUT:
            outputs.append(_read_value(view, begin, stop))
        elif field == _GRAPH_INITIALIZER:
            name, element_type, rank = _read_tensor(view, begin, stop)
            weights.add(name)
            if rank > 1:
                weight_types.add(element_type)
    if not inputs or not outputs:
        raise ValueError("its graph has no inputs or no outputs")
    fed = tuple(value for value in inputs if value.name not in weights)
    return GraphOutline(inputs=fed, outputs=tuple(outputs), weight_types=frozenset(weight_types))


def _read_tensor(view: mmap.mmap, start: int, end: int) -> tuple[str, int, int]:
    """Returns name, data type and rank of an initialiser; its bytes are skipped."""
    name, element_type, rank = "", 0, 0
    for field, kind, begin, stop in _fields(view, start, end):
        if field == _TENSOR_NAME:
            name = view[begin:stop].decode()
        elif field == _TENSOR_TYPE:
            element_type = begin
        elif field == _TENSOR_DIMS:
            # Writers may pack the sizes into one field or give one field each.
            rank += sum(1 for _ in _varints(view, begin, stop)) if kind == _BYTES else 1
    return name, element_type, rank


def _read_value(view: mmap.mmap, start: int, end: int) -> GraphValue:
    name, element_type = "", 0
    shape: tuple[int | None, ...] = ()
    for field, _, begin, stop in _fields(view, start, end):
        if field == _VALUE_NAME:
            name = view[begin:stop].decode()
        elif field == _VALUE_TYPE:
            element_type, shape = _read_type(view, begin, stop)
    return GraphValue(name=name, element_type=element_type, shape=shape)


def _read_type(view: mmap.mmap, start: int, end: int) -> tuple[int, tuple[int | None, ...]]:
    element_type = 0
    sizes: list[int | None] = []
    for field, _, begin, stop in _fields(view, start, end):
        if field != _TYPE_TENSOR:
            continue
        for inner, _, inner_begin, inner_stop in _fields(view, begin, stop):
            if inner == _TENSOR_ELEMENT:
                element_type = inner_begin
            elif inner == _TENSOR_SHAPE:
                sizes = [
                    _read_size(view, dim_begin, dim_stop)
                    for dim, _, dim_begin, dim_stop in _fields(view, inner_begin, inner_stop)
                    if dim == _SHAPE_DIM
                ]
    return element_type, tuple(sizes)


def _read_size(view: mmap.mmap, start: int, end: int) -> int | None:
    for field, kind, value, _ in _fields(view, start, end):
        if field == _DIM_VALUE and kind == _VARINT:
            return value
    return None


def _fields(view: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields ``(field, wire type, begin, stop)``; of a varint, ``begin`` is its value."""
    position = start
    while position < end:
        tag, position = _varint(view, position)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(view, position)
            yield field, kind, value, position
            continue
        if kind == _BYTES:
            size, position = _varint(view, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"unknown wire type {kind}")
        if position + size > end:
            raise ValueError("it ends in the middle of a field")
        yield field, kind, position, position + size
        position += size


def _varints(view: mmap.mmap, start: int, end: int) -> Iterator[int]:
    position = start
    while position < end:
        value, position = _varint(view, position)
        yield value


def _varint(view: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES_MAX, 7):
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is longer than ten bytes")
