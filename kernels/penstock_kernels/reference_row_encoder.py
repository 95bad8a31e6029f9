"""Plain Python twin of penstock/row_encoder.h, its specification: what follows a text's tokens.

What is computed is what Hugging Face ``tokenizers`` 0.23.3 computes; the names in comments are those of its
source. Documented deviations: a limit below the special tokens is an error (there it wraps around), a stride
that does not let an overflow get on is an error for the text it concerns (there it panics, or is refused
beforehand), an overflow of more than ``overflow_tokens_max`` tokens is an error (there memory runs out), the
sequence ids of an overflow are right also without a post-processor, and bytes that are not UTF-8 make an
empty row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np

from penstock_kernels import reference_unicode as unicode
from penstock_kernels.options import EncodeOptions, EncodeStatus, TruncationStrategy
from penstock_kernels.reference_aligned import PlacedToken
from penstock_kernels.rows import ROW_INVALID, ROW_TRUNCATED, TokenRows
from penstock_kernels.spec import Slot, TemplatePiece, TokenizerSpec

# U+0120 is how byte-level vocabularies write a space.
_SPACES = frozenset(unicode.WHITESPACE) | {"\u0120"}

Text: TypeAlias = str | bytes
_T = TypeVar("_T")


class TokenCutter(Protocol):
    """What cuts one text into tokens: ReferenceTokens, or a test's."""

    def tokenize(self, text: str, split_special_tokens: bool = False) -> list[PlacedToken]:
        """All tokens of a text."""
        ...


class EncodeFailed(Exception):
    """A text could not be encoded; `encode_error` makes it an error for the caller.

    Args:
        status: Why.
        row: Which text, if that is known here.
    """

    def __init__(self, status: EncodeStatus, row: int | None = None) -> None:
        super().__init__(status.name)
        self.status = status
        self.row = row


class TextToken(NamedTuple):
    """A token with the number of space characters at its ends."""

    token: PlacedToken
    leading: int
    trailing: int


class LaidOut(NamedTuple):
    """One token of a row."""

    id: int
    type_id: int
    begin: int = 0
    end: int = 0
    word: int = -1
    sequence: int = -1
    is_special: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        sample: Index of its text.
        flags: ROW_TRUNCATED, ROW_INVALID.
        tokens: Its tokens.
    """

    sample: int
    flags: int
    tokens: list[LaidOut]


def longest_first(first: int, second: int, budget: int) -> tuple[int, int]:
    """Tokens that stay of a pair: the closed form of utils/truncation.rs, not one token at a time."""
    shorter = min(first, second)
    longer = shorter if shorter > budget else max(shorter, budget - shorter)
    if shorter + longer > budget:
        shorter = budget // 2
        longer = shorter + budget % 2
    return (longer, shorter) if first > second else (shorter, longer)


def share_budget(lengths: Sequence[int], budget: int, strategy: TruncationStrategy) -> list[int]:
    """Tokens that stay of one or two texts that have more than `budget` together.

    Raises:
        EncodeFailed: The strategy cannot cut them so far.
    """
    if budget == 0:
        return [0] * len(lengths)
    if strategy is TruncationStrategy.LONGEST_FIRST:
        return [budget] if len(lengths) == 1 else list(longest_first(lengths[0], lengths[1], budget))
    target = 0 if strategy is TruncationStrategy.ONLY_FIRST else 1
    if target >= len(lengths):
        raise EncodeFailed(EncodeStatus.SECOND_TEXT_MISSING)
    rest = sum(lengths) - lengths[target]
    if rest >= budget:
        raise EncodeFailed(EncodeStatus.TEXT_TOO_SHORT)
    kept = list(lengths)
    kept[target] = budget - rest
    return kept


def cut_chunks(tokens: Sequence[_T], kept: int, options: EncodeOptions) -> list[Sequence[_T]]:
    """The chunks that truncation to `kept` makes of tokens (Encoding::truncate); the first is what stays.

    Raises:
        EncodeFailed: The stride does not let the chunks get on.
    """
    size = len(tokens)
    if kept >= size:
        return [tokens]
    if not options.return_overflow:
        return [tokens[size - kept :] if options.truncate_left else tokens[:kept]]
    if kept == 0:
        return [tokens[:0], tokens]
    if options.stride >= kept:
        raise EncodeFailed(EncodeStatus.STRIDE_TOO_BIG)
    step = kept - options.stride
    if options.truncate_left:
        return [tokens[max(0, size - at - kept) : size - at] for at in range(0, size - options.stride, step)]
    return [tokens[at : at + kept] for at in range(0, size - options.stride, step)]


def chunk_choices(counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Chunk of each of a template's texts, for the row that stays and then for its overflow.

    The order is that of Encoding::merge_with: wherever all texts before have the chunk that stays, that one
    comes last.
    """
    yield (0,) * len(counts)
    for at, count in enumerate(counts):
        before = (0,) * at
        if at + 1 == len(counts):
            yield from ((*before, chunk) for chunk in range(1, count))
        else:
            rest = [range(other) for other in counts[at + 1 :]]
            yield from ((*before, *choice) for choice in product(range(1, count), *rest))


def trim_offsets(chunk: Sequence[TextToken], add_prefix_space: bool) -> list[TextToken]:
    """Spaces are no part of a token's text (process_offsets of processors/byte_level.rs)."""
    trimmed: list[TextToken] = []
    for index, (token, leading, trailing) in enumerate(chunk):
        begin, end = token.begin, token.end
        is_first = index == 0 or begin == 0
        if leading and not (is_first and add_prefix_space and leading == 1):
            begin = min(begin + leading, end)
        if trailing and end >= trailing:
            end = max(end - trailing, begin)
        trimmed.append(TextToken(token._replace(begin=begin, end=end), 0, 0))
    return trimmed


class RowEncoder:
    """Truncation, overflow, templates and offset trimming of one text or pair at a time.

    Args:
        spec: What the tokenizer is made of.
        cutter: What cuts its texts into tokens.
    """

    def __init__(self, spec: TokenizerSpec, cutter: TokenCutter) -> None:
        self._spec = spec
        self._cutter = cutter
        self._texts = spec.tokens_by_id()

    def special_tokens_count(self, pair: bool) -> int:
        """Special tokens that the template adds to one text, or to a pair."""
        return sum(piece.slot is Slot.SPECIAL for piece in self._template(pair))

    def encode(
        self, sample: int, texts: Sequence[Sequence[Text]], are_words: bool, options: EncodeOptions
    ) -> list[Row]:
        """The row of one text or pair, and its overflow.

        Args:
            sample: Its index.
            texts: The one or two texts, as words; a text that came in one piece is its only word.
            are_words: Whether they came as words.
            options: What to do.

        Raises:
            EncodeFailed: It cannot be done.
        """
        budget = self._budget(len(texts) == 2, options)
        decoded = [_decoded(words) for words in texts]
        if None in decoded:
            return [Row(sample, ROW_INVALID, [])]
        sequences = [self._tokens(words or [], are_words, options) for words in decoded]
        lengths = [len(tokens) for tokens in sequences]
        if budget is None or sum(lengths) <= budget:
            kept = lengths
        else:
            kept = share_budget(lengths, budget, options.truncation)
        chunks = [cut_chunks(tokens, size, options) for tokens, size in zip(sequences, kept, strict=True)]
        flags = ROW_TRUNCATED if kept is not lengths else 0
        return [Row(sample, flags, tokens) for tokens in self._lay_out_all(chunks, options)]

    def _template(self, pair: bool) -> tuple[TemplatePiece, ...]:
        return self._spec.pair if pair else self._spec.single

    def _budget(self, pair: bool, options: EncodeOptions) -> int | None:
        if options.tokens_max is None or options.truncation is TruncationStrategy.DO_NOT_TRUNCATE:
            return None
        added = self.special_tokens_count(pair) if options.add_special_tokens else 0
        if options.tokens_max < added:
            raise EncodeFailed(EncodeStatus.LIMIT_BELOW_SPECIAL_TOKENS)
        return options.tokens_max - added

    def _tokens(self, words: list[str], are_words: bool, options: EncodeOptions) -> list[TextToken]:
        tokens: list[TextToken] = []
        for index, word in enumerate(words):
            for token in self._cutter.tokenize(word, options.split_special_tokens):
                placed = token._replace(word=index) if are_words else token
                tokens.append(TextToken(placed, *self._spaces(token)))
        return tokens

    def _spaces(self, token: PlacedToken) -> tuple[int, int]:
        """Spaces at the ends of a token's text: for an added one, that is what it matched."""
        spelt = self._texts[token.id] if token.matched is None else token.matched
        return _leading_spaces(spelt), _leading_spaces(spelt[::-1])

    def _lay_out_all(
        self, chunks: list[list[Sequence[TextToken]]], options: EncodeOptions
    ) -> Iterator[list[LaidOut]]:
        template = self._template(len(chunks) == 2)
        by_slot = [chunks[piece.slot] for piece in template if piece.slot is not Slot.SPECIAL]
        counts = [len(of_text) for of_text in by_slot]
        if max(counts, default=1) > 1:
            longest = sum(max(map(len, of_text)) for of_text in by_slot)
            longest += len(template) - len(by_slot) if options.add_special_tokens else 0
            if int(np.prod(counts, dtype=object)) * longest > options.overflow_tokens_max:
                raise EncodeFailed(EncodeStatus.TOO_MUCH_OVERFLOW)
        for choice in chunk_choices(counts):
            yield self._lay_out(template, chunks, choice, options)

    def _lay_out(
        self,
        template: tuple[TemplatePiece, ...],
        chunks: list[list[Sequence[TextToken]]],
        choice: tuple[int, ...],
        options: EncodeOptions,
    ) -> list[LaidOut]:
        retypes = self._spec.retypes_overflow and options.add_special_tokens
        row: list[LaidOut] = []
        chosen = iter(choice)
        for at, piece in enumerate(template):
            if piece.slot is Slot.SPECIAL:
                if options.add_special_tokens:
                    row.append(LaidOut(piece.token_id, piece.type_id, is_special=True))
                continue
            index = next(chosen)
            # Rows of overflow keep the types that their texts were encoded with.
            type_id = piece.type_id if index == 0 or retypes else int(piece.slot)
            # Of a text that stands twice, only the last tokens know it: a sequence has one range.
            is_last = all(later.slot is not piece.slot for later in template[at + 1 :])
            chunk = chunks[piece.slot][index]
            if self._spec.trim is not None:
                chunk = trim_offsets(chunk, self._spec.trim.add_prefix_space)
            row += [
                LaidOut(token.id, type_id, token.begin, token.end, token.word, piece.slot if is_last else -1)
                for token, _, _ in chunk
            ]
        return row


def pack(rows: Sequence[Row], options: EncodeOptions) -> TokenRows:
    """Rows as arrays, with what was asked for."""
    tokens = [token for row in rows for token in row.tokens]
    offsets = np.array([(token.begin, token.end) for token in tokens], np.int32).reshape(-1, 2)
    return TokenRows(
        ids=np.array([token.id for token in tokens], np.int32),
        type_ids=np.array([token.type_id for token in tokens], np.uint8),
        starts=np.cumsum([0, *(len(row.tokens) for row in rows)], dtype=np.int64),
        truncated=np.array([row.flags & ROW_TRUNCATED != 0 for row in rows], np.bool_),
        valid=np.array([row.flags & ROW_INVALID == 0 for row in rows], np.bool_),
        offsets=offsets if options.return_offsets else None,
        special_mask=np.array([token.is_special for token in tokens], np.uint8)
        if options.return_special_mask
        else None,
        word_ids=np.array([token.word for token in tokens], np.int32) if options.return_word_ids else None,
        sequence_ids=np.array([token.sequence for token in tokens], np.int8)
        if options.return_sequence_ids
        else None,
        samples=np.array([row.sample for row in rows], np.int32) if options.return_overflow else None,
    )


def padded_width(rows: Sequence[Row], options: EncodeOptions) -> int:
    """Width of padded tensors (pad_encodings of utils/padding.rs).

    Raises:
        EncodeFailed: A row is wider than the fixed width.
    """
    longest = max((len(row.tokens) for row in rows), default=0)
    width = longest if options.pad_width is None else options.pad_width
    width += -width % options.pad_multiple
    for row in rows:
        if len(row.tokens) > width:
            raise EncodeFailed(EncodeStatus.ROW_TOO_WIDE, row.sample)
    return width


def _decoded(words: Sequence[Text]) -> list[str] | None:
    """The texts, or None if bytes among them are not UTF-8."""
    decoded: list[str] = []
    for word in words:
        if isinstance(word, str):
            word.encode()
            decoded.append(word)
        else:
            try:
                decoded.append(word.decode())
            except UnicodeDecodeError:
                return None
    return decoded


def _leading_spaces(text: str) -> int:
    return next((index for index, c in enumerate(text) if c not in _SPACES), len(text))
