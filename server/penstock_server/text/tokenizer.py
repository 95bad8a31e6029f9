"""The tokenizer of a model version: texts to token ids, as its ``tokenizer.json`` says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from penstock_kernels import (
    AddedToken,
    ByteBuffer,
    IndexArray,
    Slot,
    TemplatePiece,
    TokenRows,
    WordPieceSpec,
    WordPieceTokenizer,
    spec,
)
from penstock_server.domain.errors import ModelBroken
from penstock_server.domain.tasks import Truncation
from penstock_server.text.tokenizer_json import explained, read_spec
from penstock_server.text.tokenizer_json_parts import Unsupported

PAD_TOKEN = "[PAD]"


class Tokenizer:
    """Immutable; safe to share between threads. Encoding releases the GIL.

    Args:
        spec: What the tokenizer is made of.

    Raises:
        ModelBroken: Two added tokens become the same when normalised.
    """

    def __init__(self, spec: WordPieceSpec) -> None:
        try:
            self._kernel = WordPieceTokenizer(spec)
        except ValueError as err:
            raise ModelBroken(f"the tokenizer contradicts itself: {err}") from err
        added = {token.content: token.id for token in spec.added_tokens}
        self._pad_id = added.get(PAD_TOKEN, spec.vocabulary.get(PAD_TOKEN, 0))

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Loads a ``tokenizer.json``; truncation and padding stored in it are ignored.

        Raises:
            ModelBroken: The file cannot be read, or needs a feature that is not supported (named).
        """
        try:
            content = path.read_bytes()
        except OSError as err:
            raise ModelBroken(f"cannot read {path.name}: {err.strerror}") from err
        with explained(path.name):
            return cls(_wordpiece_spec(read_spec(content)))

    @property
    def pad_id(self) -> int:
        """Id of the token that fills up short rows: ``[PAD]``, or 0 in a vocabulary without it."""
        return self._pad_id

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
        return self._kernel.encode(
            texts,
            pairs,
            tokens_max=tokens_max,
            truncate_left=truncation is Truncation.LEFT,
            add_special_tokens=add_special_tokens,
            return_offsets=return_offsets,
        )

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
        return self._kernel.encode_arrow(
            data,
            offsets,
            pair_data=pair_data,
            pair_offsets=pair_offsets,
            tokens_max=tokens_max,
            truncate_left=truncation is Truncation.LEFT,
            add_special_tokens=add_special_tokens,
            return_offsets=return_offsets,
        )


def _wordpiece_spec(tokenizer: spec.TokenizerSpec) -> WordPieceSpec:
    """The same tokenizer for the WordPiece kernel.

    Raises:
        Unsupported: That kernel does not compute it.
    """
    model, normalizers = tokenizer.model, tokenizer.normalizers or (spec.BertNormalizer(*[False] * 4),)
    if not isinstance(model, spec.WordPiece):
        raise Unsupported(f"model {type(model).__name__}")
    bert = normalizers[0]
    if len(normalizers) > 1 or not isinstance(bert, spec.BertNormalizer):
        raise Unsupported(f"normalizer {type(normalizers[-1]).__name__}")
    if tokenizer.pre_tokenizers != (spec.BertPreTokenizer(),):
        raise Unsupported("another pre_tokenizer than BertPreTokenizer")
    return WordPieceSpec(
        vocabulary=model.vocabulary,
        unknown_id=model.unknown_id,
        continuing_prefix=model.continuing_prefix,
        word_chars_max=model.word_chars_max,
        clean_text=bert.clean_text,
        handle_chinese_chars=bert.handle_chinese_chars,
        strip_accents=bert.strip_accents,
        lowercase=bert.lowercase,
        added_tokens=tuple(
            AddedToken(
                token.content, token.id, token.single_word, token.lstrip, token.rstrip, token.normalized
            )
            for token in tokenizer.added_tokens
        ),
        single=_template(tokenizer.single),
        pair=_template(tokenizer.pair),
    )


def _template(pieces: tuple[spec.TemplatePiece, ...]) -> tuple[TemplatePiece, ...]:
    return tuple(TemplatePiece(Slot(piece.slot), piece.type_id, piece.token_id) for piece in pieces)
