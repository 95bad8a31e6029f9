"""Plain Python twins of all kernels: their specification, and the fallback without a compiler."""

from __future__ import annotations

from penstock_kernels.reference_batch import l2_normalize, mean_pool, pack_rows
from penstock_kernels.reference_encode import ReferenceTokenizer

__all__ = ["ReferenceTokenizer", "l2_normalize", "mean_pool", "pack_rows"]
