"""The light reader of ONNX files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from penstock_server.domain.errors import ModelBroken
from penstock_server.models import onnx_scan
from penstock_server.models.onnx_scan import GraphValue, scan_onnx
from tests.support.reference_model_tiny import write_graph


def test_outline_agrees_with_the_onnx_package(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_graph(path, int32=True, width=6)
    outline = scan_onnx(path)
    graph = onnx.load_model_from_string(path.read_bytes()).graph
    assert [value.name for value in outline.inputs] == [value.name for value in graph.input]
    assert outline.inputs[0] == GraphValue("input_ids", onnx_scan.INT32, (None, None))
    assert outline.outputs == (GraphValue("last_hidden_state", onnx_scan.FLOAT, (None, None, 6)),)
    assert outline.weight_types == {onnx_scan.FLOAT}


def test_weights_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    """ONNX files before IR version 4 list every weight as an input."""
    weight = numpy_helper.from_array(np.ones((2, 2), np.int8), "weight")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "old",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("weight", TensorProto.INT8, [2, 2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [weight],
    )
    (tmp_path / "model.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    outline = scan_onnx(tmp_path / "model.onnx")
    assert [value.name for value in outline.inputs] == ["x"]
    assert outline.weight_types == {onnx_scan.INT8}


def test_file_cut_short_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_graph(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ModelBroken, match=r"model\.onnx is not a readable ONNX model"):
        scan_onnx(path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a model at all", b"version https://git-lfs"])
def test_what_is_no_model_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelBroken):
        scan_onnx(path)


@given(noise=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
def test_damaged_files_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, noise: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("noise") / "model.onnx"
    write_graph(path, width=2)
    content = bytearray(path.read_bytes())
    for position, value in noise:
        content[position % len(content)] = value
    path.write_bytes(content)
    # Nothing to check of what it reads: much damage is invisible. Any other error fails the test.
    with suppress(ModelBroken):
        scan_onnx(path)
