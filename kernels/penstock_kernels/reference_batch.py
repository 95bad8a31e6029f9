"""Plain Python twins of the batch kernels: their specification, and the fallback without a compiler."""

from __future__ import annotations

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
) -> None:
    """Writes the given rows of each TokenRows, in order, into a padded batch.

    Args:
        parts: TokenRows with the int32 indices of the rows to take.
        padded_length: Length of every row of the batch.
        pad_id: Token id that fills up short rows.
        out_ids: int32 or int64 ``[rows, padded_length]``, C-contiguous; receives the token ids.
        out_mask: Same shape and dtype, or None; receives 1 for tokens and 0 for padding.
        out_type_ids: Same shape and dtype, or None; receives the type ids, 0 in the padding.

    Raises:
        ValueError: A shape, dtype or row index is wrong, a row is longer than ``padded_length``, or a
            TokenRows contradicts itself.
    """
    parts = list(parts)
    total = sum(len(rows) for _, rows in parts)
    for out in (out_ids, out_mask, out_type_ids):
        if out is not None and (out.shape != (total, padded_length) or out.dtype != out_ids.dtype):
            raise ValueError(
                f"outputs must all be [{total}, {padded_length}] of one dtype, not {out.shape} of {out.dtype}"
            )
    if out_ids.dtype.name not in ("int32", "int64"):
        raise ValueError(f"outputs must be int32 or int64, not {out_ids.dtype}")
    at = 0
    for tokens, rows in parts:
        if len(tokens.type_ids) != len(tokens.ids) or not len(tokens.starts):
            raise ValueError("a TokenRows needs as many type ids as ids, and starts")
        for row in rows:
            if not 0 <= row < tokens.rows:
                raise ValueError(f"a row index is outside the {tokens.rows} rows of its TokenRows")
            span = slice(tokens.starts[row], tokens.starts[row + 1])
            if not 0 <= span.start <= span.stop <= len(tokens.ids):
                raise ValueError(
                    f"the starts of a TokenRows do not lie in order within its {len(tokens.ids)} tokens"
                )
            length = int(span.stop - span.start)
            if length > padded_length:
                raise ValueError(f"a row is longer than padded_length, {padded_length}")
            _fill(out_ids, at, tokens.ids[span], pad_id)
            if out_mask is not None:
                _fill(out_mask, at, np.ones(length, np.int32), 0)
            if out_type_ids is not None:
                _fill(out_type_ids, at, tokens.type_ids[span], 0)
            at += 1


def _fill(out: IndexArray, row: int, values: NDArray[np.int32] | NDArray[np.uint8], pad: int) -> None:
    out[row, : len(values)] = values
    out[row, len(values) :] = pad


def mean_pool(hidden: NDArray[np.float32], lengths: NDArray[np.int32], out: NDArray[np.float32]) -> None:
    """Averages each row's first ``lengths[row]`` vectors; a row of length 0 becomes zeros.

    Args:
        hidden: float32 ``[rows, length, width]``, C-contiguous.
        lengths: int32 ``[rows]``.
        out: float32 ``[rows, width]``, C-contiguous; overwritten.

    Raises:
        ValueError: Shapes do not fit, or a length is outside ``0..length``.
    """
    rows, padded_length, width = hidden.shape
    if lengths.shape != (rows,) or out.shape != (rows, width):
        raise ValueError("mean_pool needs hidden [rows, length, width], lengths [rows] and out [rows, width]")
    for row, length in enumerate(lengths.tolist()):
        if not 0 <= length <= padded_length:
            raise ValueError(f"length {length} of row {row} is outside 0..{padded_length}")
        out[row] = hidden[row, :length].mean(axis=0) if length else 0.0


def l2_normalize(values: NDArray[np.float32]) -> None:
    """Scales each row of float32 ``[rows, width]`` to unit length in place; zero rows stay zero."""
    norms = np.sqrt(np.square(values, dtype=np.float64).sum(axis=1, keepdims=True))
    values /= np.maximum(norms, 1e-12).astype(np.float32)
