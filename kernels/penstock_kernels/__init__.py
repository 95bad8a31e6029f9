"""Native kernels under the server: tokenising texts and laying out batches.

Every kernel has a plain Python twin in ``penstock_kernels.reference``, which is its specification;
``PENSTOCK_KERNELS=reference`` in the environment selects the twins at import.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from penstock_kernels.rows import ByteBuffer, IndexArray, TokenRows
from penstock_kernels.wordpiece_spec import AddedToken, Slot, TemplatePiece, WordPieceSpec

if TYPE_CHECKING or os.environ.get("PENSTOCK_KERNELS", "native") != "reference":
    from penstock_kernels._batch import l2_normalize, mean_pool, pack_rows
    from penstock_kernels._wordpiece import WordPieceTokenizer
else:
    from penstock_kernels.reference import WordPieceTokenizer, l2_normalize, mean_pool, pack_rows

__all__ = [
    "AddedToken",
    "ByteBuffer",
    "IndexArray",
    "Slot",
    "TemplatePiece",
    "TokenRows",
    "WordPieceSpec",
    "WordPieceTokenizer",
    "l2_normalize",
    "mean_pool",
    "pack_rows",
]
