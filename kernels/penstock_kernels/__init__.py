"""Native kernels under the server: tokenising texts, laying out batches and scheduling them.

Every kernel has a plain Python twin in ``penstock_kernels.reference``, which is its specification;
``PENSTOCK_KERNELS=reference`` in the environment selects the twins at import.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from penstock_kernels.options import EncodeOptions, TruncationStrategy
from penstock_kernels.rows import ROW_INVALID, ROW_TRUNCATED, ByteBuffer, IndexArray, TokenRows

IS_NATIVE = os.environ.get("PENSTOCK_KERNELS", "native") != "reference"

if TYPE_CHECKING or IS_NATIVE:
    from penstock_kernels._batch import l2_normalize, mean_pool, pack_rows
    from penstock_kernels._schedule import NEVER, LiveQueue
    from penstock_kernels._tokenizer import Tokenizer
else:
    from penstock_kernels.reference import l2_normalize, mean_pool, pack_rows
    from penstock_kernels.reference_live_queue import LiveQueue
    from penstock_kernels.reference_schedule import NEVER

    def __getattr__(name: str) -> object:
        if name == "Tokenizer":
            raise ImportError(
                "PENSTOCK_KERNELS=reference has no Tokenizer, which reads compiled files: "
                "use penstock_kernels.reference.ReferenceTokenizer, or unset PENSTOCK_KERNELS"
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "IS_NATIVE",
    "NEVER",
    "ROW_INVALID",
    "ROW_TRUNCATED",
    "ByteBuffer",
    "EncodeOptions",
    "IndexArray",
    "LiveQueue",
    "TokenRows",
    "Tokenizer",
    "TruncationStrategy",
    "l2_normalize",
    "mean_pool",
    "pack_rows",
]
