"""ONNX Runtime and Hugging Face tokenizers: what every peer that runs our code computes with.

Sessions have the options that Penstock's have (``engines/onnxruntime_cpu.py``), and their threads a core each
where Penstock's have, so that what differs is the server around them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

TOKENS_MAX = 256
_LOG_FATAL_ONLY = 4

Vectors: TypeAlias = NDArray[np.float32]


class Encoder:
    """Texts to normalised mean-pooled vectors.

    Args:
        folder: Has ``model.onnx`` and ``tokenizer.json``.
        threads: Threads of the session.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._tokenizer.enable_padding()
        self._cpus = _own_cpus(threads)
        self._session = open_session(folder, threads, self._cpus)
        self._inputs = [value.name for value in self._session.get_inputs()]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Computes texts as one batch, padded to the longest of them."""
        encodings = self._tokenizer.encode_batch(texts)
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        return self.compute(ids, mask)

    def compute(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Vectors:
        """Computes a batch of token ids ``[rows, length]``; ``mask`` is 0 for padding."""
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        everywhere = os.sched_getaffinity(0)
        # Only meanwhile, since the tokenizer's threads begin where the calling one is.
        os.sched_setaffinity(0, self._cpus[:1] or everywhere)
        (tokens,) = self._session.run(None, {name: arrays[name] for name in self._inputs})
        os.sched_setaffinity(0, everywhere)
        # Not a matrix product: NumPy's own threads would run beside the session's.
        summed = np.einsum("rlw,rl->rw", tokens, mask.astype(np.float32))
        vectors: Vectors = summed / np.linalg.norm(summed, axis=1, keepdims=True)
        return vectors


def open_tokenizer(folder: Path) -> Any:
    """Opens a tokenizer that cuts texts as Penstock's manifest of the model says."""
    tokenizer = import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX)
    return tokenizer


def _own_cpus(threads: int) -> list[int]:
    """A CPU for each thread, first the calling one, if there are just as many and more than one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed if len(allowed) == threads > 1 else []


def open_session(folder: Path, threads: int, cpus: Sequence[int] = ()) -> Any:
    """Opens the graph on CPU; its threads stay on ``cpus``, of which the first is for the calling one."""
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_FATAL_ONLY
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if cpus:
        places = ";".join(str(cpu + 1) for cpu in cpus[1:])
        options.add_session_config_entry("session.intra_op_thread_affinities", places)
    return onnxruntime.InferenceSession(
        str(folder / "model.onnx"),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],
    )
