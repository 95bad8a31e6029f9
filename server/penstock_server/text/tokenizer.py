"""The tokenizer of a model version: texts to token ids, as its ``tokenizer.json`` says."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import penstock_kernels
from penstock_kernels import ByteBuffer, EncodeOptions, IndexArray, TokenRows
from penstock_kernels.options import CACHE_BYTES
from penstock_server.domain.errors import ModelBroken
from penstock_server.domain.tasks import Truncation
from penstock_server.text.tokenizer_json import explained, read_spec

if TYPE_CHECKING:
    from penstock_kernels.reference import ReferenceTokenizer

# Sets of options that are kept in the kernel's form. Callers choose limits, few of them many.
_OPTIONS_KEPT = 256

_Kernel: TypeAlias = "penstock_kernels.Tokenizer | ReferenceTokenizer"


@dataclass(frozen=True, slots=True)
class TokenizerLimits:
    """What one tokenizer may use.

    Attributes:
        cache_bytes: Memory for the tokens of frequent words, in each thread that encodes.
        threads_max: Threads that may encode at once; further ones wait.
    """

    cache_bytes: int = CACHE_BYTES
    threads_max: int = 4


DEFAULT_LIMITS = TokenizerLimits()


class Tokenizer:
    """Immutable; safe to share between threads. Encoding large texts releases the GIL.

    Args:
        kernel: What encodes.
    """

    def __init__(self, kernel: _Kernel) -> None:
        self._kernel = kernel

    @classmethod
    def from_file(cls, path: Path, limits: TokenizerLimits = DEFAULT_LIMITS) -> Tokenizer:
        """Opens a ``tokenizer.json``, compiled beside it the first time; truncation stored in it is ignored.

        Args:
            path: The file.
            limits: What the tokenizer may use.

        Raises:
            ModelBroken: The file cannot be read, or needs a feature that is not supported (named).
        """
        return cls(_open(path, limits))

    @property
    def pad_id(self) -> int:
        """Id of the token that fills up short rows: the file's, or of ``[PAD]`` or ``<pad>``, or 0."""
        return self._kernel.pad_id

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return self._kernel.vocab_size

    def special_tokens_count(self, pair: bool) -> int:
        """Special tokens that are added to one text, or to a pair."""
        return self._kernel.special_tokens_count(pair)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Token texts as the vocabulary spells them.

        Raises:
            ValueError: An id does not exist.
        """
        return [self._kernel.token(int(token_id)) for token_id in ids]

    def encode(
        self,
        texts: Sequence[str | bytes],
        pairs: Sequence[str | bytes | None] | None = None,
        *,
        tokens_max: int | None,
        truncation: Truncation,
        add_special_tokens: bool = True,
        return_offsets: bool = False,
    ) -> TokenRows:
        """Encodes texts, each with its second text if it has one.

        Args:
            texts: The (first) texts; bytes are UTF-8.
            pairs: Second texts, as many as texts, with None for rows that have none.
            tokens_max: Longest row in tokens, special tokens included; None for no limit.
            truncation: Which end is cut; ERROR encodes like RIGHT and the caller looks at ``truncated``.
            add_special_tokens: Whether the template's special tokens are added.
            return_offsets: Whether ``offsets`` are computed.

        Returns:
            One row a text. Rows of bytes that are not UTF-8 are empty and not ``valid``.

        Raises:
            ValueError: ``tokens_max`` leaves no room for the special tokens, the lengths of texts and pairs
                differ, or a str has a lone surrogate (UnicodeEncodeError).
        """
        options = _options(tokens_max, truncation is Truncation.LEFT, add_special_tokens, return_offsets)
        return self._kernel.encode(texts, pairs, options)

    def encode_arrow(
        self,
        data: ByteBuffer,
        offsets: IndexArray,
        *,
        tokens_max: int | None,
        truncation: Truncation,
        pair_data: ByteBuffer | None = None,
        pair_offsets: IndexArray | None = None,
        add_special_tokens: bool = True,
        return_offsets: bool = False,
    ) -> TokenRows:
        """Encodes UTF-8 laid out as an Arrow string or binary column, without an object per row.

        Args:
            data: The bytes of all rows, uint8 and contiguous.
            offsets: int32 or int64 ``[rows + 1]``, C-contiguous; row ``r`` is
                ``data[offsets[r]:offsets[r + 1]]``.
            tokens_max: As for ``encode``, like the other options.
            truncation: See ``encode``.
            pair_data: The bytes of the second texts; every row has one then.
            pair_offsets: Their offsets.
            add_special_tokens: See ``encode``.
            return_offsets: See ``encode``.

        Raises:
            ValueError: As for ``encode``, or offsets point outside the data.
        """
        options = _options(tokens_max, truncation is Truncation.LEFT, add_special_tokens, return_offsets)
        return self._kernel.encode_arrow(data, offsets, pair_data, pair_offsets, options)


def _open(path: Path, limits: TokenizerLimits) -> _Kernel:
    # Each branch imports what the other has no use for, and may not be able to: compiling is native too.
    if penstock_kernels.IS_NATIVE:
        from penstock_server.text.tokenizer_files import load_tokenizer_blob

        blob = load_tokenizer_blob(path)
        with explained(path.name):
            return penstock_kernels.Tokenizer(
                blob, cache_bytes=limits.cache_bytes, threads_max=limits.threads_max
            )
    from penstock_kernels.reference import ReferenceTokenizer

    try:
        content = path.read_bytes()
    except OSError as err:
        raise ModelBroken(f"cannot read {path.name}: {err.strerror}") from err
    with explained(path.name):
        return ReferenceTokenizer(read_spec(content))


@functools.lru_cache(maxsize=_OPTIONS_KEPT)
def _options(
    tokens_max: int | None, truncate_left: bool, add_special_tokens: bool, return_offsets: bool
) -> EncodeOptions:
    return EncodeOptions(
        tokens_max=tokens_max,
        truncate_left=truncate_left,
        add_special_tokens=add_special_tokens,
        return_offsets=return_offsets,
    )
