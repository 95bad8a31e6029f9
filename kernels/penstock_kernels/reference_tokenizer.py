"""A whole tokenizer in plain Python: the specification of ``penstock/tokenizer.h``.

What is computed is what Hugging Face ``tokenizers`` 0.23.3 computes; the names in comments are those of its
source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from penstock_kernels import spec as parts
from penstock_kernels.reference_added_tokens import distinct, split_added
from penstock_kernels.reference_aligned import AlignedChar, PlacedToken, Token, Word
from penstock_kernels.reference_bert import cut_wordpiece, normalize_bert
from penstock_kernels.reference_bpe import ReferenceBpe
from penstock_kernels.reference_byte_level import split_byte_level
from penstock_kernels.reference_metaspace import cut_metaspace
from penstock_kernels.reference_normalizers import normalize_stage
from penstock_kernels.reference_pre_tokenizers import (
    cut_bert,
    cut_digits,
    cut_punctuation,
    cut_whitespace,
    cut_whitespace_words,
)
from penstock_kernels.reference_precompiled import normalize_precompiled
from penstock_kernels.reference_unigram import UnigramModel


class ReferenceTokens:
    """Cuts texts into tokens; truncation, templates and padding come after (``reference_encode``).

    Args:
        spec: What the tokenizer is made of.

    Raises:
        ValueError: Two added tokens become the same, or nothing, when normalised.
    """

    def __init__(self, spec: parts.TokenizerSpec) -> None:
        self._spec = spec
        self._cut = _cutter(spec.model)
        self._raw_tokens = distinct(token for token in spec.added_tokens if not token.normalized)
        self._normalized_tokens = distinct(
            replace(token, content="".join(c.text for c in self._normalize(token.content, 0)))
            for token in spec.added_tokens
            if token.normalized
        )

    def tokenize(self, text: str, split_special_tokens: bool = False) -> list[PlacedToken]:
        """All tokens of a text. Every split takes a word index, also one that gives no tokens."""
        tokens: list[PlacedToken] = []
        for word, split in enumerate(self._splits(text, split_special_tokens)):
            if isinstance(split, Word):
                tokens += [PlacedToken(*token, word) for token in self._cut(split.chars)]
            else:
                tokens.append(split._replace(word=word))
        return tokens

    def _splits(self, text: str, split_special: bool) -> Iterator[PlacedToken | Word]:
        for found, begin, end in split_added(text, self._raw_tokens, split_special):
            if found is not None:
                yield PlacedToken(found.id, begin, end, 0, text[begin:end])
            else:
                yield from self._piece_splits(text[begin:end], begin, split_special)

    def _piece_splits(self, piece: str, first: int, split_special: bool) -> Iterator[PlacedToken | Word]:
        chars = self._normalize(piece, first)
        normalized = "".join(c.text for c in chars)
        for found, begin, end in split_added(normalized, self._normalized_tokens, split_special):
            if found is not None:
                place = chars[begin].begin, chars[end - 1].end
                yield PlacedToken(found.id, *place, 0, normalized[begin:end])
            else:
                yield from self._words(chars[begin:end])

    def _normalize(self, piece: str, first: int) -> list[AlignedChar]:
        chars = [AlignedChar(c, index, index + 1) for index, c in enumerate(piece, first)]
        for stage in self._spec.normalizers:
            if isinstance(stage, parts.BertNormalizer):
                chars = normalize_bert(chars, first, stage)
            elif isinstance(stage, parts.Precompiled):
                chars = normalize_precompiled(chars, stage)
            else:
                chars = normalize_stage(chars, first, stage)
        return chars

    def _words(self, chars: list[AlignedChar]) -> list[Word]:
        words = [Word(chars, chars[0].begin)]
        for stage in self._spec.pre_tokenizers:
            words = [part for word in words for part in _pre_tokenize(word, stage) if part.chars]
        return words


def _cutter(model: parts.TokenModel) -> Callable[[list[AlignedChar]], list[Token]]:
    """What cuts a word into tokens."""
    if isinstance(model, parts.WordPiece):
        return partial(cut_wordpiece, model=model)
    if isinstance(model, parts.Bpe):
        return ReferenceBpe(model).cut
    return UnigramModel(model).cut


def _pre_tokenize(word: Word, stage: parts.PreTokenizer) -> list[Word]:
    match stage:
        case parts.BertPreTokenizer():
            return cut_bert(word)
        case parts.WhitespaceSplit():
            return cut_whitespace(word)
        case parts.Whitespace():
            return cut_whitespace_words(word)
        case parts.Punctuation():
            return cut_punctuation(word, stage)
        case parts.Digits():
            return cut_digits(word, stage)
        case parts.ByteLevel():
            return split_byte_level([word], stage)
        case parts.Metaspace():
            return cut_metaspace(word, stage)
