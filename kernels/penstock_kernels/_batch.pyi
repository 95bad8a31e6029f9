from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.rows import IndexArray, TokenRows

def pack_rows(
    parts: Sequence[tuple[TokenRows, NDArray[np.int32]]],
    padded_length: int,
    pad_id: int,
    out_ids: IndexArray,
    out_mask: IndexArray | None,
    out_type_ids: IndexArray | None,
) -> None: ...
def mean_pool(hidden: NDArray[np.float32], lengths: NDArray[np.int32], out: NDArray[np.float32]) -> None: ...
def l2_normalize(values: NDArray[np.float32]) -> None: ...
