"""Rows of a window with the same tokens, which are computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from penstock_kernels import TokenRows

# Odd factors, drawn once: rows that differ have the same sum by chance only, and are compared besides.
_FACTORS = np.random.default_rng(20261127).integers(0, 1 << 63, 1 << 14, np.uint64) * 2 + 1
_LENGTH_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def first_alike(tokens: TokenRows) -> NDArray[np.int32]:
    """Finds for each row the first one with the same tokens.

    Args:
        tokens: The rows.

    Returns:
        int32 ``[rows]``: the first row's index, which is the row's own where there is none before it.
    """
    starts = tokens.starts
    lengths = np.diff(starts)
    places = np.arange(len(tokens.ids)) - np.repeat(starts[:-1], lengths)
    values = tokens.ids.astype(np.uint64) + (tokens.type_ids.astype(np.uint64) << np.uint64(32))
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _FACTORS[places % len(_FACTORS)], out=sums[1:])
    hashes = sums[starts[1:]] - sums[starts[:-1]] + lengths.astype(np.uint64) * _LENGTH_FACTOR
    _, first, of_row = np.unique(hashes, return_index=True, return_inverse=True)
    found = first[of_row].astype(np.int32)
    for row in np.flatnonzero(found != np.arange(tokens.rows)).tolist():
        if not _are_alike(tokens, row, int(found[row])):
            found[row] = row
    return found


def _are_alike(tokens: TokenRows, one: int, other: int) -> bool:
    mine = slice(tokens.starts[one], tokens.starts[one + 1])
    others = slice(tokens.starts[other], tokens.starts[other + 1])
    return np.array_equal(tokens.ids[mine], tokens.ids[others]) and np.array_equal(
        tokens.type_ids[mine], tokens.type_ids[others]
    )
