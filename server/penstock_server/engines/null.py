"""An engine that computes next to nothing: it measures everything around engines, and makes tests exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.errors import EngineFailed
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.work import Batch
from penstock_server.engines.protocol import IdsDtype

# The largest prime below 2^16: products with token ids stay exact in int64 and quotients in float32.
_MODULUS = 65_521


class NullEngine:
    """Answers with numbers that depend on a row's tokens only, never on padding or on batch mates.

    Column 0 is the row's token count; column j is ``(sum of its ids) * j mod 65521``.

    Args:
        manifest: The model; only its key and width count, its files are not opened.
    """

    def __init__(self, manifest: ModelManifest) -> None:
        self._key = str(manifest.key)
        self._factors = np.arange(manifest.width, dtype=np.int64)
        self._is_open = True

    @property
    def name(self) -> str:
        """Runtime and device."""
        return "null/cpu"

    @property
    def ids_dtype(self) -> IdsDtype:
        """The dtype of batches."""
        return np.dtype(np.int64)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Computes a batch; see `Engine.run`."""
        if not self._is_open:
            raise EngineFailed("The engine is closed.", model=self._key)
        sums = (batch.token_ids * batch.attention_mask).sum(axis=1, dtype=np.int64)
        outputs: NDArray[np.float32] = (sums[:, np.newaxis] * self._factors % _MODULUS).astype(np.float32)
        outputs[:, 0] = batch.attention_mask.sum(axis=1)
        return outputs

    def close(self) -> None:
        """Stops answering."""
        self._is_open = False
