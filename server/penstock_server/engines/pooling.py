"""From token vectors to one vector a text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import mean_pool
from penstock_server.domain.model import Pooling


def pool(
    tokens: NDArray[np.float32],
    mask: NDArray[np.int64] | NDArray[np.int32],
    pooling: Pooling,
) -> NDArray[np.float32]:
    """Pools token vectors the way sentence-transformers does.

    Args:
        tokens: float32 ``[rows, padded_length, width]``.
        mask: ``[rows, padded_length]``; ones for tokens, then zeros for padding.
        pooling: MEAN or CLS.

    Returns:
        float32 ``[rows, width]``, not normalised. A row without tokens is all zeros (MEAN).
    """
    if pooling is Pooling.CLS:
        return np.ascontiguousarray(tokens[:, 0])
    pooled = np.empty((tokens.shape[0], tokens.shape[2]), np.float32)
    # The kernel reads every vector once and skips padding. A matmul with the mask would wake BLAS threads,
    # which run at normal priority even where the engine's own are idle ones.
    mean_pool(np.ascontiguousarray(tokens), mask.sum(axis=1, dtype=np.int32), pooled)
    return pooled
