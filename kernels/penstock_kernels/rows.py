"""Tokenised rows: what tokenizers return and ``pack_rows`` reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

IndexArray: TypeAlias = NDArray[np.int64] | NDArray[np.int32]
# Contiguous bytes of a column of texts.
ByteBuffer: TypeAlias = bytes | bytearray | memoryview | NDArray[np.uint8]

# Bits of the flags of padded rows.
ROW_TRUNCATED = 1
ROW_INVALID = 2


@dataclass(frozen=True, slots=True, eq=False)
class TokenRows:
    """Rows of token ids, one after the other, without padding. Immutable: the arrays are read-only.

    Attributes:
        ids: int32 ``[tokens]``, special tokens included.
        type_ids: uint8 ``[tokens]``; as the post-processor says.
        starts: int64 ``[rows + 1]``; row ``r`` is ``ids[starts[r]:starts[r + 1]]``.
        truncated: bool ``[rows]``; tokens of the row's text were cut to the limit.
        valid: bool ``[rows]``; False if the input's bytes were not UTF-8: such a row has no tokens.
        offsets: int32 ``[tokens, 2]``, begin and end of each token's text in code points of its input, or of
            its word if the input came in words ((0, 0) for special tokens that the post-processor added), or
            None unless asked for.
        special_mask: uint8 ``[tokens]``, 1 for special tokens that the post-processor added, or None unless
            asked for.
        word_ids: int32 ``[tokens]``, index of the word of its text that a token is of, -1 for special tokens
            that the post-processor added, or None unless asked for.
        sequence_ids: int8 ``[tokens]``, 0 for tokens of first texts, 1 for those of second texts, -1 for
            special tokens that the post-processor added, or None unless asked for.
        samples: int32 ``[rows]``, index of the text that a row is of, or None unless overflow was asked for:
            then rows are texts.
    """

    ids: NDArray[np.int32]
    type_ids: NDArray[np.uint8]
    starts: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    offsets: NDArray[np.int32] | None = None
    special_mask: NDArray[np.uint8] | None = None
    word_ids: NDArray[np.int32] | None = None
    sequence_ids: NDArray[np.int8] | None = None
    samples: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        for array in (self.ids, self.type_ids, self.starts, self.truncated, self.valid):
            array.setflags(write=False)
        for extra in (self.offsets, self.special_mask, self.word_ids, self.sequence_ids, self.samples):
            if extra is not None:
                extra.setflags(write=False)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each row: int32 ``[rows]``."""
        return np.diff(self.starts).astype(np.int32)
