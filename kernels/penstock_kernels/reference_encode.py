"""Plain Python twin of the compiled tokenizer (``_tokenizer``): its specification, and the fallback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.options import DEFAULT_OPTIONS, EncodeOptions, encode_error
from penstock_kernels.reference_row_encoder import EncodeFailed, Row, RowEncoder, Text, pack, padded_width
from penstock_kernels.reference_tokenizer import ReferenceTokens
from penstock_kernels.rows import ByteBuffer, IndexArray, TokenRows
from penstock_kernels.spec import TokenizerSpec

Texts: TypeAlias = Sequence[Text] | Text
Pairs: TypeAlias = Sequence[Text | None] | Text | None
# One text or pair: each of its texts as words; a text that came in one piece is its only word.
Sample: TypeAlias = list[Sequence[Text]]


class ReferenceTokenizer:
    """A tokenizer, exactly as Hugging Face ``tokenizers`` 0.23.3. Immutable; safe to share between threads.

    The compiled one is made from a blob and keeps it; this one, from what the blob is compiled from.

    Args:
        spec: What the tokenizer is made of.

    Raises:
        ValueError: Two added tokens become the same, or nothing, when normalised.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        self._spec = spec
        self._texts = spec.tokens_by_id()
        self._ids = {token: token_id for token_id, token in sorted(self._texts.items())}
        self._rows = RowEncoder(spec, ReferenceTokens(spec))

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return len(self._texts)

    @property
    def path_name(self) -> str:
        """Name of the fast path in use."""
        return "reference"

    @property
    def pad_id(self) -> int:
        """Id of the token that fills up short rows unless a call says otherwise."""
        return self._spec.pad_id

    def token(self, token_id: int) -> str:
        """Text of a token as the vocabulary spells it.

        Raises:
            ValueError: There is no such id.
        """
        try:
            return self._texts[token_id]
        except KeyError:
            raise ValueError(f"there is no token with id {token_id}") from None

    def token_id(self, token: str) -> int | None:
        """Id of the token that is spelt so, or None."""
        return self._ids.get(token)

    def special_tokens_count(self, pair: bool) -> int:
        """Special tokens that the template adds to one text, or to a pair."""
        return self._rows.special_tokens_count(pair)

    def encode(
        self, texts: Texts, pairs: Pairs = None, options: EncodeOptions = DEFAULT_OPTIONS
    ) -> TokenRows:
        """Encodes texts, each with its second text if it has one. Linear in the texts.

        Args:
            texts: The (first) texts, or one; bytes are UTF-8.
            pairs: Second texts, as many as texts, with None for rows that have none.
            options: What to do.

        Returns:
            One row a text, and its overflow behind it if that was asked for. Rows of bytes that are not UTF-8
            are empty and not ``valid``.

        Raises:
            TypeError: A text is neither str nor bytes.
            ValueError: A text cannot be encoded as asked for (the text says why), the lengths of texts and
                pairs differ, or a str has a lone surrogate (UnicodeEncodeError).
        """
        return pack(self._encode(_samples(texts, pairs), False, options), options)

    def encode_words(
        self,
        texts: Sequence[Sequence[str]],
        pairs: Sequence[Sequence[str] | None] | None = None,
        options: EncodeOptions = DEFAULT_OPTIONS,
    ) -> TokenRows:
        """Encodes texts that are cut into words already; offsets are within words, word ids count them.

        Args:
            texts: The words of the (first) texts.
            pairs: Those of the second texts, with None for rows that have none.
            options: What to do.

        Raises:
            TypeError: A word is not a str.
            ValueError: As for ``encode``.
        """
        return pack(self._encode(_word_samples(texts, pairs), True, options), options)

    def encode_arrow(
        self,
        data: ByteBuffer,
        offsets: IndexArray,
        pair_data: ByteBuffer | None = None,
        pair_offsets: IndexArray | None = None,
        options: EncodeOptions = DEFAULT_OPTIONS,
    ) -> TokenRows:
        """Encodes UTF-8 laid out as an Arrow string or binary column, without an object per row.

        Args:
            data: The bytes of all rows; nobody may change them during the call.
            offsets: int32 or int64 ``[rows + 1]``; row ``r`` is ``data[offsets[r]:offsets[r + 1]]``.
            pair_data: The bytes of the second texts; every row has one then.
            pair_offsets: Their offsets.
            options: What to do.

        Raises:
            ValueError: As for ``encode``, or offsets point outside the data.
        """
        samples = _arrow_samples(data, offsets, pair_data, pair_offsets)
        return pack(self._encode(samples, False, options), options)

    def encode_into(
        self,
        texts: Texts,
        ids: NDArray[Any],
        mask: NDArray[Any] | None = None,
        type_ids: NDArray[Any] | None = None,
        lengths: NDArray[np.int32] | None = None,
        flags: NDArray[np.uint8] | None = None,
        pairs: Pairs = None,
        options: EncodeOptions = DEFAULT_OPTIONS,
    ) -> int:
        """Encodes texts into padded tensors ``[texts, width]`` that begin where the arrays given do.

        Args:
            texts: As for ``encode``, like pairs.
            ids: int32 or int64, of any shape, C-contiguous, writable, of at least texts * width elements.
            mask: Of the same type; 1 for tokens and 0 for padding.
            type_ids: Of the same type.
            lengths: int32 ``[texts]``; tokens of each row.
            flags: uint8 ``[texts]``; ROW_TRUNCATED and ROW_INVALID.
            pairs: Second texts.
            options: What to do; overflow cannot be asked for. What `TokenRows` would have besides is not
                computed.

        Returns:
            The width, by the options' padding. What lies behind the tensors is left as it is.

        Raises:
            TypeError: As for ``encode``.
            ValueError: As for ``encode``, or an array is too small or of the wrong type: then nothing, or
                nothing of use, was written.
        """
        samples = _samples(texts, pairs)
        return self._into(samples, options, ids, mask, type_ids, lengths, flags)

    def encode_arrow_into(
        self,
        data: ByteBuffer,
        offsets: IndexArray,
        ids: NDArray[Any],
        mask: NDArray[Any] | None = None,
        type_ids: NDArray[Any] | None = None,
        lengths: NDArray[np.int32] | None = None,
        flags: NDArray[np.uint8] | None = None,
        pair_data: ByteBuffer | None = None,
        pair_offsets: IndexArray | None = None,
        options: EncodeOptions = DEFAULT_OPTIONS,
    ) -> int:
        """``encode_into`` for an Arrow column; see there and ``encode_arrow``."""
        samples = _arrow_samples(data, offsets, pair_data, pair_offsets)
        return self._into(samples, options, ids, mask, type_ids, lengths, flags)

    def _encode(self, samples: list[Sample], are_words: bool, options: EncodeOptions) -> list[Row]:
        rows: list[Row] = []
        for index, texts in enumerate(samples):
            try:
                rows += self._rows.encode(index, texts, are_words, options)
            except EncodeFailed as err:
                raise self._error(err, index, options) from None
        return rows

    def _error(self, err: EncodeFailed, row: int, options: EncodeOptions) -> MemoryError | ValueError:
        counts = self.special_tokens_count(False), self.special_tokens_count(True)
        return encode_error(err.status, row, options, counts)

    def _into(
        self,
        samples: list[Sample],
        options: EncodeOptions,
        ids: NDArray[Any],
        mask: NDArray[Any] | None,
        type_ids: NDArray[Any] | None,
        lengths: NDArray[np.int32] | None,
        flags: NDArray[np.uint8] | None,
    ) -> int:
        if options.return_overflow:
            raise ValueError(
                "padded tensors have one row a text: encode overflow with encode, then pack_rows"
            )
        flat = {"ids": _opened("ids", ids, np.int32, np.int64)}
        for name, array in (("mask", mask), ("type_ids", type_ids)):
            if array is not None:
                flat[name] = _opened(name, array, ids.dtype.type)
        for name, array, kind in (("lengths", lengths, np.int32), ("flags", flags, np.uint8)):
            if array is not None and len(_opened(name, array, kind)) < len(samples):
                raise ValueError(
                    f"{name} must have an element for each of {len(samples)} rows, not {array.size}"
                )
        rows = self._encode(samples, False, options)
        try:
            width = padded_width(rows, options)
        except EncodeFailed as err:
            raise self._error(err, err.row or 0, options) from None
        room = min(map(len, flat.values()))
        if len(rows) * width > room:
            raise ValueError(
                f"{len(rows)} rows of {width} tokens need tensors of {len(rows) * width} elements, not {room}"
            )
        self._pad(rows, width, options, flat)
        if lengths is not None:
            lengths.reshape(-1)[: len(rows)] = [len(row.tokens) for row in rows]
        if flags is not None:
            flags.reshape(-1)[: len(rows)] = [row.flags for row in rows]
        return width

    def _pad(
        self, rows: list[Row], width: int, options: EncodeOptions, flat: dict[str, NDArray[Any]]
    ) -> None:
        """Writes rows, filled up to the width (Encoding::pad)."""
        pad_type_id = self._spec.pad_type_id if options.pad_type_id is None else options.pad_type_id
        fills = {
            "ids": self._spec.pad_id if options.pad_id is None else options.pad_id,
            "mask": 0,
            "type_ids": pad_type_id,
        }
        for index, row in enumerate(rows):
            columns = {
                "ids": [token.id for token in row.tokens],
                "mask": [1] * len(row.tokens),
                "type_ids": [token.type_id for token in row.tokens],
            }
            for name, array in flat.items():
                padding = [fills[name]] * (width - len(row.tokens))
                values = padding + columns[name] if options.pad_left else columns[name] + padding
                array[index * width : (index + 1) * width] = values


def _opened(name: str, array: NDArray[Any], *kinds: type) -> NDArray[Any]:
    """The elements of an output, in one run."""
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise ValueError(f"{name} must be a writable C-contiguous array")
    if array.dtype not in map(np.dtype, kinds):
        raise ValueError(f"{name} has elements of another type than it must have: {array.dtype}")
    return array.reshape(-1)


def _checked(text: Text) -> Text:
    if not isinstance(text, str | bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"texts must be str or bytes, not {type(text).__name__}")
    return text


def _samples(texts: Texts, pairs: Pairs) -> list[Sample]:
    if isinstance(texts, str | bytes):
        if pairs is not None and not isinstance(pairs, str | bytes):
            raise TypeError("one text can have one pair, not a sequence of them")
        return [[[text] for text in (texts, pairs) if text is not None]]
    if pairs is None:
        return [[[_checked(text)]] for text in texts]
    if isinstance(pairs, str | bytes):
        raise TypeError("pairs must be a sequence of texts, like texts")
    _check_pairs(len(texts), len(pairs))
    return [
        [[_checked(text)]] if pair is None else [[_checked(text)], [_checked(pair)]]
        for text, pair in zip(texts, pairs, strict=True)
    ]


def _check_pairs(rows: int, pairs: int) -> None:
    if rows != pairs:
        raise ValueError(f"there are {rows} texts but {pairs} pairs")


def _word_samples(
    texts: Sequence[Sequence[str]], pairs: Sequence[Sequence[str] | None] | None
) -> list[Sample]:
    if isinstance(texts, str | bytes) or isinstance(pairs, str | bytes):
        raise TypeError("texts and pairs must be sequences of sequences of words, not one text")
    if any(words is None for words in texts):  # pyright: ignore[reportUnnecessaryComparison]
        raise TypeError("texts must be sequences of words, not None")
    if pairs is None:
        return [[_words(words)] for words in texts]
    _check_pairs(len(texts), len(pairs))
    return [
        [_words(words)] if pair is None else [_words(words), _words(pair)]
        for words, pair in zip(texts, pairs, strict=True)
    ]


def _words(words: Sequence[str]) -> Sequence[str]:
    if isinstance(words, str | bytes):
        raise TypeError("texts and pairs must be sequences of sequences of words, not of texts")
    for word in words:
        if not isinstance(word, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"words must be str, not {type(word).__name__}")
    return words


def _arrow_samples(
    data: ByteBuffer, offsets: IndexArray, pair_data: ByteBuffer | None, pair_offsets: IndexArray | None
) -> list[Sample]:
    if (pair_data is None) != (pair_offsets is None):
        raise ValueError("pair_data and pair_offsets belong together")
    texts = _arrow_texts(data, offsets)
    if pair_data is None or pair_offsets is None:
        return [[[text]] for text in texts]
    pairs = _arrow_texts(pair_data, pair_offsets)
    _check_pairs(len(texts), len(pairs))
    return [[[text], [pair]] for text, pair in zip(texts, pairs, strict=True)]


def _arrow_texts(data: ByteBuffer, offsets: IndexArray) -> list[bytes]:
    if offsets.dtype.name not in ("int32", "int64"):
        raise ValueError(f"offsets must be int32 or int64, not {offsets.dtype}")
    if not len(offsets):
        raise ValueError("offsets must have one element more than there are rows")
    view = np.frombuffer(data, np.uint8)
    texts: list[bytes] = []
    for row in range(len(offsets) - 1):
        begin, end = int(offsets[row]), int(offsets[row + 1])
        if not 0 <= begin <= end <= len(view):
            raise ValueError(f"offsets of row {row} ({begin}, {end}) do not lie within {len(view)} bytes")
        texts.append(view[begin:end].tobytes())
    return texts
