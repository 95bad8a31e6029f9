"""What every engine is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.work import Batch

IdsDtype = np.dtype[np.int64] | np.dtype[np.int32]


class Engine(Protocol):
    """Computes batches of one model version.

    Engines are built by `penstock_server.engines.factory.build_engine` from a picklable manifest, so that a
    process of its own can build its own.
    """

    @property
    def name(self) -> str:
        """Runtime and device, such as ``onnxruntime/cpu``."""
        ...

    @property
    def ids_dtype(self) -> IdsDtype:
        """The dtype the arrays of a `Batch` must have."""
        ...

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Computes a batch; blocking, thread-safe, with the GIL released while the graph runs.

        Returns:
            float32 ``[batch.rows, manifest.width]``, C-contiguous, owned by the caller: pooled vectors, not
            normalised (embed), or logits (classify, rerank).

        Raises:
            EngineFailed: The batch could not be computed, or a result is not finite; no row has an answer.
        """
        ...

    def close(self) -> None:
        """Frees the model. Idempotent; `run` raises EngineFailed afterwards."""
        ...
