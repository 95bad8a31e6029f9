"""ONNX Runtime on CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from penstock_server.domain.errors import EngineFailed, ModelBroken
from penstock_server.domain.model import ModelManifest, Pooling
from penstock_server.domain.work import Batch
from penstock_server.engines.cpu import int8_saturates
from penstock_server.engines.pooling import pool
from penstock_server.engines.protocol import IdsDtype

# It ships neither stubs nor annotations for its native half.
_ort: Any = onnxruntime

# Its errors are raised, and reported by whoever catches them; printing them too would leak into the console.
_LOG_FATAL_ONLY = 4
_IDS_DTYPES: Final[dict[str, IdsDtype]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
}
# ONNX Runtime 1.32's fused kernel is slower than the nodes it replaces: MiniLM, 16 rows of 16 tokens, one
# thread, AVX-512: 62.2 ms fused, 57.8 ms not (2026-11-23).
_DISABLED_OPTIMIZERS = ["SkipLayerNormFusion"]
# Chosen: with 50 and 300 microseconds batches took the same time (decision record 0011).
_SPIN_US = "100"
# Long enough to touch every kernel once, short enough to cost about a millisecond.
_WARM_UP_TOKENS = 4


class OnnxEngine:
    """Runs a graph with ONNX Runtime's CPU provider.

    Args:
        manifest: The model.
        threads: Threads of the session; the calling thread is one of them.
        cpus: Where each of them stays, first the calling one; empty for anywhere.

    Raises:
        ModelBroken: The graph cannot be loaded, or does not give what the manifest says.
    """

    def __init__(self, manifest: ModelManifest, *, threads: int, cpus: Sequence[int] = ()) -> None:
        self._manifest = manifest
        self._session: Any = _open_session(manifest, session_options(threads, cpus))
        inputs = {value.name: value.type for value in self._session.get_inputs()}
        self._inputs = tuple(inputs)
        self._ids_dtype = self._find_ids_dtype(inputs)
        self._warm_up()

    @property
    def name(self) -> str:
        """Runtime and device."""
        return "onnxruntime/cpu"

    @property
    def ids_dtype(self) -> IdsDtype:
        """The dtype of the graph's inputs."""
        return self._ids_dtype

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Computes a batch; see `Engine.run`."""
        session = self._session
        if session is None:
            raise EngineFailed("The engine is closed.", model=str(self._manifest.key))
        try:
            (output,) = session.run([self._manifest.output_name], self._feeds(batch))
        except Exception as err:  # onnxruntime's errors share no base class but this
            raise EngineFailed(
                f"Model {self._manifest.key} could not compute a batch of {batch.rows} rows of up to "
                f"{batch.padded_length} tokens.",
                model=str(self._manifest.key),
            ) from err
        return self._finish(output, batch)

    def close(self) -> None:
        """Frees the session."""
        self._session = None

    def _feeds(self, batch: Batch) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {
            "input_ids": batch.token_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.type_ids,
        }
        return {name: arrays[name] for name in self._inputs}

    def _finish(self, output: NDArray[Any], batch: Batch) -> NDArray[np.float32]:
        values = output.astype(np.float32, copy=False)
        if self._manifest.pooling is not Pooling.NONE and values.ndim == 3:
            values = pool(values, batch.attention_mask, self._manifest.pooling)
        if values.shape != (batch.rows, self._manifest.width):
            raise EngineFailed(
                f"Model {self._manifest.key} gave an output of shape {output.shape} for {batch.rows} rows; "
                f"expected width {self._manifest.width}. Correct the model's penstock.toml.",
                model=str(self._manifest.key),
            )
        if not np.isfinite(values).all():
            raise EngineFailed(
                f"Model {self._manifest.key} gave numbers that are not finite.", model=str(self._manifest.key)
            )
        return np.ascontiguousarray(values)

    def _find_ids_dtype(self, inputs: dict[str, str]) -> IdsDtype:
        kinds = set(inputs.values())
        kind = kinds.pop()
        if kinds or kind not in _IDS_DTYPES:
            raise ModelBroken(
                f"Model {self._manifest.key}: its inputs must all be int64 or all be int32. Export it again.",
                model=str(self._manifest.key),
            )
        return _IDS_DTYPES[kind]

    def _warm_up(self) -> None:
        """Runs one tiny batch, so that a graph that cannot run is found at start and not by a caller."""
        ids: NDArray[Any] = np.full((1, _WARM_UP_TOKENS), self._manifest.pad_id, self._ids_dtype)
        ones: NDArray[Any] = np.ones_like(ids)
        try:
            self.run(Batch(token_ids=ids, attention_mask=ones, type_ids=np.zeros_like(ids)))
        except EngineFailed as err:
            raise ModelBroken(
                f"Model {self._manifest.key} loads but cannot compute: {err.message}",
                model=str(self._manifest.key),
            ) from err


def _open_session(manifest: ModelManifest, options: Any) -> Any:
    try:
        return _ort.InferenceSession(
            str(manifest.onnx_path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_DISABLED_OPTIMIZERS,
        )
    except Exception as err:  # onnxruntime's errors share no base class but this
        raise ModelBroken(
            f"{manifest.onnx_path} cannot be loaded: {err}. Export or fetch the model again.",
            model=str(manifest.key),
        ) from err


def session_options(threads: int, cpus: Sequence[int] = ()) -> Any:
    """Options of every CPU session, with the reason for each that is not a default.

    Args:
        threads: Threads of the session; the calling thread is one of them.
        cpus: Where each of them stays, first the calling one; empty for anywhere.
    """
    options = _ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_FATAL_ONLY
    # A memory pattern is kept for every shape ever seen: with varying shapes that is a leak, and it was no
    # faster. The arena stays on: runs without it took 2 % longer.
    options.enable_mem_pattern = False
    if threads == 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    else:
        # Threads that slept at each of a batch's barriers would hand their core to bulk work for an instant,
        # and get it back with cold caches. None spins between batches: that time is bulk work's.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if len(cpus) > 1:
        # It counts processors from 1, and leaves out the calling thread.
        places = ";".join(str(cpu + 1) for cpu in cpus[1:])
        options.add_session_config_entry("session.intra_op_thread_affinities", places)
    # Without this, int8 products saturate in 16 bits on x86 CPUs without VNNI, and a dynamically quantised
    # BERT-base answers near-uniform nonsense. With VNNI the answers are the same without it, and it takes 1.9
    # times as long (int8 MiniLM, 16 rows of 16 tokens: 41.2 against 21.6 ms, 2026-11-23), so it is left out.
    if int8_saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options
