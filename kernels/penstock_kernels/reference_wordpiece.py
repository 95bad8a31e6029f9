"""Plain Python twin of the WordPiece kernel: its specification, and the fallback without a compiler.

What is computed is what Hugging Face ``tokenizers`` 0.23.3 computes; the names in comments are those of its
source. Documented deviations: a limit below the special tokens is an error (there it wraps around), and bytes
that are not UTF-8 make an empty row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from penstock_kernels import reference_unicode as unicode
from penstock_kernels.rows import ByteBuffer, IndexArray, TokenRows
from penstock_kernels.wordpiece_spec import AddedToken, Slot, TemplatePiece, WordPieceSpec


class AlignedChar(NamedTuple):
    """One normalised character and the code points of the input that it stands for."""

    text: str
    begin: int
    end: int


class Token(NamedTuple):
    """A token and the code points of the input that it stands for."""

    id: int
    begin: int
    end: int


class Split(NamedTuple):
    """An added token, or (None) text between added tokens."""

    token: AddedToken | None
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Options:
    tokens_max: int | None
    truncate_left: bool
    add_special_tokens: bool
    return_offsets: bool


def normalize(text: str, first: int, spec: WordPieceSpec) -> list[AlignedChar]:
    """The BertNormalizer with alignments; ``first`` is the index of the text's first character."""
    chars = list(_clean_and_space(text, first, spec))
    if spec.strip_accents:
        # NormalizedString::filter: a deleted character does not widen its neighbours.
        chars = [c for c in _decompose(chars, first) if c.text not in unicode.MARKS]
    if spec.lowercase:
        chars = [AlignedChar(low, c.begin, c.end) for c in chars for low in unicode.lower(c.text)]
    return chars


def _clean_and_space(text: str, first: int, spec: WordPieceSpec) -> Iterator[AlignedChar]:
    for index, c in enumerate(text, first):
        if spec.clean_text and c in unicode.CLEAN_REMOVED:
            continue
        char = AlignedChar(" " if spec.clean_text and c in unicode.CLEAN_SPACES else c, index, index + 1)
        space = char._replace(text=" ")
        spaced = spec.handle_chinese_chars and char.text in unicode.CJK
        yield from (space, char, space) if spaced else (char,)


def _decompose(chars: list[AlignedChar], first: int) -> Iterator[AlignedChar]:
    """NFD whose characters carry whether they replace an input character or are inserted after one.

    The marks of a run are sorted together with that flag, while alignments are handed out in input order
    (NormalizedString::transform_range): an inserted character copies the alignment handed out last.
    """
    run: list[tuple[int, str, bool]] = []
    decomposed: list[tuple[str, bool]] = []
    for char in chars:
        for position, part in enumerate(unicode.decomposition(char.text)):
            combining_class = unicode.COMBINING.get(part, 0)
            if not combining_class:
                decomposed += [(c, replaces) for _, c, replaces in sorted(run, key=lambda mark: mark[0])]
                decomposed.append((part, position == 0))
                run.clear()
            else:
                run.append((combining_class, part, position == 0))
    decomposed += [(c, replaces) for _, c, replaces in sorted(run, key=lambda mark: mark[0])]
    source = iter(chars)
    begin = end = first
    for part, replaces in decomposed:
        if replaces:
            _, begin, end = next(source)
        yield AlignedChar(part, begin, end)


def split_added(text: str, tokens: Sequence[AddedToken]) -> Iterator[Split]:
    """Splits at added tokens: leftmost, longest, not overlapping (AddedVocabulary::find_matches)."""
    done = at = 0
    while at < len(text):
        found = max(
            (token for token in tokens if text.startswith(token.content, at)),
            key=lambda token: len(token.content),
            default=None,
        )
        if found is None:
            at += 1
            continue
        begin, end = at, at + len(found.content)
        # A match that single_word rejects is consumed all the same.
        at = end
        if found.single_word and not _stands_alone(text, begin, end):
            continue
        if found.lstrip:
            begin = max(len(text[:begin].rstrip(unicode.WHITESPACE)), done)
        if found.rstrip:
            end = len(text) - len(text[end:].lstrip(unicode.WHITESPACE))
        # A predecessor's rstrip may have gone past this match: then nothing is left of it.
        end = max(begin, end)
        if done < begin:
            yield Split(None, done, begin)
        if begin < end:
            yield Split(found, begin, end)
        done = end
    if done < len(text):
        yield Split(None, done, len(text))


def _stands_alone(text: str, begin: int, end: int) -> bool:
    before = begin > 0 and text[begin - 1] in unicode.WORD
    after = end < len(text) and text[end] in unicode.WORD
    return not before and not after


def _words(chars: list[AlignedChar]) -> Iterator[list[AlignedChar]]:
    """The BertPreTokenizer: words between whitespace, every punctuation character alone."""
    word: list[AlignedChar] = []
    for char in chars:
        is_punctuation = char.text in unicode.PUNCTUATION
        if is_punctuation or char.text in unicode.WHITESPACE:
            if word:
                yield word
            word = []
            if is_punctuation:
                yield [char]
        else:
            word.append(char)
    if word:
        yield word


def longest_first(first: int, second: int, budget: int) -> tuple[int, int]:
    """Tokens that stay of a pair: the closed form of utils/truncation.rs, not one token at a time."""
    if first + second <= budget:
        return first, second
    shorter = min(first, second)
    longer = shorter if shorter > budget else max(shorter, budget - shorter)
    if shorter + longer > budget:
        shorter = budget // 2
        longer = shorter + budget % 2
    return (longer, shorter) if first > second else (shorter, longer)


class WordPieceTokenizer:
    """WordPiece with BERT's normaliser, exactly as Hugging Face ``tokenizers`` 0.23.3.

    Immutable; safe to share between threads.

    Args:
        spec: What the tokenizer is made of.

    Raises:
        ValueError: A token id is negative, or two added tokens become the same (or nothing) when normalised.
    """

    def __init__(self, spec: WordPieceSpec) -> None:
        for token, token_id in spec.vocabulary.items():
            if token_id < 0:
                raise ValueError(f"token {token!r} has the negative id {token_id}")
        self._spec = spec
        self._tokens = spec.tokens_by_id()
        self._raw_tokens = _distinct(token for token in spec.added_tokens if not token.normalized)
        self._normalized_tokens = _distinct(
            _with_content(token, "".join(c.text for c in normalize(token.content, 0, spec)))
            for token in spec.added_tokens
            if token.normalized
        )

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return len(self._tokens)

    def token(self, token_id: int) -> str:
        """Text of a token as the vocabulary spells it.

        Raises:
            ValueError: There is no such id.
        """
        try:
            return self._tokens[token_id]
        except KeyError:
            raise ValueError(f"there is no token with id {token_id}") from None

    def special_tokens_count(self, pair: bool) -> int:
        """Special tokens that the template adds to one text, or to a pair."""
        template = self._spec.pair if pair else self._spec.single
        return sum(piece.slot is Slot.SPECIAL for piece in template)

    def encode(
        self,
        texts: Sequence[str | bytes],
        pairs: Sequence[str | bytes | None] | None = None,
        *,
        tokens_max: int | None = None,
        truncate_left: bool = False,
        add_special_tokens: bool = True,
        return_offsets: bool = False,
    ) -> TokenRows:
        """Encodes texts, each with its second text if it has one. Linear in the texts.

        Args:
            texts: The (first) texts; bytes are UTF-8.
            pairs: Second texts, as many as texts, with None for rows that have none.
            tokens_max: Longest row in tokens, special tokens included; None for no limit. Of a pair the
                longer text is cut first (``longest_first`` of tokenizers).
            truncate_left: Cut the beginning of texts instead of the end.
            add_special_tokens: Whether the template's special tokens are added. Special tokens written in
                the texts are found in any case.
            return_offsets: Whether ``offsets`` are computed.

        Returns:
            One row a text. Rows of bytes that are not UTF-8 are empty and not ``valid``.

        Raises:
            TypeError: A text is neither str nor bytes.
            ValueError: ``tokens_max`` leaves no room for the special tokens, the lengths of texts and pairs
                differ, or a str has a lone surrogate (UnicodeEncodeError).
        """
        if isinstance(texts, str | bytes) or isinstance(pairs, str | bytes):
            raise TypeError("texts and pairs must be sequences of texts, not one text")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"there are {len(texts)} texts but {len(pairs)} pairs")
        if tokens_max is not None and tokens_max < 1:
            raise ValueError(f"tokens_max must be at least 1, not {tokens_max}")
        options = _Options(tokens_max, truncate_left, add_special_tokens, return_offsets)
        rows = _Rows()
        for text, pair in zip(texts, pairs or [None] * len(texts), strict=True):
            self._encode_row(text, pair, options, rows)
        return rows.build(return_offsets)

    def encode_arrow(
        self,
        data: ByteBuffer,
        offsets: IndexArray,
        *,
        pair_data: ByteBuffer | None = None,
        pair_offsets: IndexArray | None = None,
        tokens_max: int | None = None,
        truncate_left: bool = False,
        add_special_tokens: bool = True,
        return_offsets: bool = False,
    ) -> TokenRows:
        """Encodes UTF-8 laid out as an Arrow string or binary column, without an object per row.

        Args:
            data: The bytes of all rows.
            offsets: int32 or int64 ``[rows + 1]``; row ``r`` is ``data[offsets[r]:offsets[r + 1]]``.
            pair_data: The bytes of the second texts; every row has one then.
            pair_offsets: Their offsets.
            tokens_max: See ``encode``, like the other options.
            truncate_left: See ``encode``.
            add_special_tokens: See ``encode``.
            return_offsets: See ``encode``.

        Raises:
            ValueError: As for ``encode``, or offsets point outside the data.
        """
        if (pair_data is None) != (pair_offsets is None):
            raise ValueError("pair_data and pair_offsets belong together")
        pairs = None if pair_data is None or pair_offsets is None else _arrow_texts(pair_data, pair_offsets)
        return self.encode(
            _arrow_texts(data, offsets),
            pairs,
            tokens_max=tokens_max,
            truncate_left=truncate_left,
            add_special_tokens=add_special_tokens,
            return_offsets=return_offsets,
        )

    def _encode_row(
        self, text: str | bytes, pair: str | bytes | None, options: _Options, rows: _Rows
    ) -> None:
        added = self.special_tokens_count(pair is not None) if options.add_special_tokens else 0
        if options.tokens_max is not None and options.tokens_max < added:
            raise ValueError(
                f"tokens_max is {options.tokens_max}, below the special tokens of a row "
                f"({self.special_tokens_count(False)} for a text, "
                f"{self.special_tokens_count(True)} for a pair); allow more tokens"
            )
        first, second = _decoded(text), _decoded("" if pair is None else pair)
        if first is None or second is None:
            rows.add([], truncated=False, valid=False)
            return
        sequences = [self._tokenize(first), self._tokenize(second)]
        lengths = len(sequences[0]), len(sequences[1])
        budget = sum(lengths) if options.tokens_max is None else options.tokens_max - added
        kept = longest_first(*lengths, budget) if pair is not None else (min(lengths[0], budget), 0)
        cut = [
            tokens[len(tokens) - size :] if options.truncate_left else tokens[:size]
            for tokens, size in zip(sequences, kept, strict=True)
        ]
        template = self._spec.single if pair is None else self._spec.pair
        laid_out = _lay_out(template, cut, options.add_special_tokens)
        rows.add(laid_out, truncated=sum(lengths) > budget, valid=True)

    def _tokenize(self, text: str) -> list[Token]:
        tokens: list[Token] = []
        for found, begin, end in split_added(text, self._raw_tokens):
            if found is not None:
                tokens.append(Token(found.id, begin, end))
            else:
                tokens += self._tokenize_piece(text[begin:end], begin)
        return tokens

    def _tokenize_piece(self, piece: str, first: int) -> Iterator[Token]:
        chars = normalize(piece, first, self._spec)
        normalized = "".join(c.text for c in chars)
        for found, begin, end in split_added(normalized, self._normalized_tokens):
            if found is not None:
                yield Token(found.id, chars[begin].begin, chars[end - 1].end)
                continue
            for word in _words(chars[begin:end]):
                yield from self._cut_word(word)

    def _cut_word(self, word: list[AlignedChar]) -> list[Token]:
        """The longest vocabulary entries from left to right, or one unknown token for the whole word."""
        unknown = [Token(self._spec.unknown_id, word[0].begin, word[-1].end)]
        if len(word) > self._spec.word_chars_max:
            return unknown
        text = "".join(c.text for c in word)
        tokens: list[Token] = []
        at = 0
        while at < len(word):
            prefix = self._spec.continuing_prefix if at else ""
            ends = (end for end in range(len(word), at, -1) if prefix + text[at:end] in self._spec.vocabulary)
            end = next(ends, None)
            if end is None:
                return unknown
            token_id = self._spec.vocabulary[prefix + text[at:end]]
            tokens.append(Token(token_id, word[at].begin, word[end - 1].end))
            at = end
        return tokens


class _Rows:
    """Collects rows of tokens."""

    def __init__(self) -> None:
        self._tokens: list[tuple[Token, int]] = []
        self._starts = [0]
        self._truncated: list[bool] = []
        self._valid: list[bool] = []

    def add(self, tokens: list[tuple[Token, int]], *, truncated: bool, valid: bool) -> None:
        """Adds a row of tokens with their type ids."""
        self._tokens += tokens
        self._starts.append(len(self._tokens))
        self._truncated.append(truncated)
        self._valid.append(valid)

    def build(self, return_offsets: bool) -> TokenRows:
        """All rows so far."""
        offsets = np.array([token[1:] for token, _ in self._tokens], np.int32).reshape(-1, 2)
        return TokenRows(
            ids=np.array([token.id for token, _ in self._tokens], np.int32),
            type_ids=np.array([type_id for _, type_id in self._tokens], np.uint8),
            starts=np.array(self._starts, np.int64),
            truncated=np.array(self._truncated, np.bool_),
            valid=np.array(self._valid, np.bool_),
            offsets=offsets if return_offsets else None,
        )


def _lay_out(
    template: tuple[TemplatePiece, ...], texts: list[list[Token]], add_special_tokens: bool
) -> list[tuple[Token, int]]:
    row: list[tuple[Token, int]] = []
    for piece in template:
        if piece.slot is not Slot.SPECIAL:
            row += [(token, piece.type_id) for token in texts[piece.slot]]
        elif add_special_tokens:
            row.append((Token(piece.token_id, 0, 0), piece.type_id))
    return row


def _decoded(text: str | bytes) -> str | None:
    """The text, or None if the bytes are not UTF-8."""
    if isinstance(text, bytes):
        try:
            return text.decode()
        except UnicodeDecodeError:
            return None
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"texts must be str or bytes, not {type(text).__name__}")
    text.encode()
    return text


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


def _with_content(token: AddedToken, content: str) -> AddedToken:
    return AddedToken(content, token.id, token.single_word, token.lstrip, token.rstrip, token.normalized)


def _distinct(tokens: Iterator[AddedToken]) -> tuple[AddedToken, ...]:
    by_content: dict[str, AddedToken] = {}
    for token in tokens:
        if not token.content or token.content in by_content:
            raise ValueError(
                f"the added token with id {token.id} is empty or the same as another once normalised"
            )
        by_content[token.content] = token
    return tuple(by_content.values())
