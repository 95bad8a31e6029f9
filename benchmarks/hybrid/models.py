"""The models that all contestants compute: MiniLM in fp32, and the same weights in int8."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.hybrid.processes import ROOT
from tests.support.reference_model import reference_model_folder

MODELS = ROOT / "build" / "hybrid-models"
MODEL_FOLDER = MODELS / "minilm"
INT8 = "minilm-int8"
_FILES = (
    "tokenizer.json",
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)


def prepare_models() -> None:
    """Makes both folders unless they are there; the first time it fetches 84 MB."""
    source = reference_model_folder(progress=print)
    for folder, precision in ((MODEL_FOLDER, "fp32"), (MODELS / INT8, "int8")):
        if (folder / "model.onnx").is_file():
            continue
        (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            shutil.copy(source / name, folder / name)
        (folder / "penstock.toml").write_text(f'precision = "{precision}"\n', encoding="ascii")
        scratch = folder / "model.part"
        if precision == "fp32":
            shutil.copy(source / "model.onnx", scratch)
        else:
            _quantize(source / "model.onnx", scratch)
        os.replace(scratch, folder / "model.onnx")


def _quantize(source: Path, target: Path) -> None:
    """Weights in int8, one scale a channel; activations in uint8, one scale a batch, as they come."""
    quantization: Any = import_module("onnxruntime.quantization")
    quantization.quantize_dynamic(
        str(source),
        str(target),
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )
