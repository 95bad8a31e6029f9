"""Pre-tokenisers that cut words by the classes of characters: twins of ``penstock/pre_tokenizers.h``.

Each takes one word and gives its parts; a part knows where its slice of the original begins.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from penstock_kernels import reference_unicode as unicode
from penstock_kernels.reference_aligned import AlignedChar, Word
from penstock_kernels.spec import Digits, Punctuation, SplitBehavior

Spans = list[tuple[int, int]]


def cut_bert(word: Word) -> list[Word]:
    """BertPreTokenizer: whitespace is removed, every punctuation character is a word of its own."""
    parts = cut_whitespace(word)
    return [
        piece
        for part in parts
        for piece in _split(part, SplitBehavior.ISOLATED, lambda c: c.text in unicode.PUNCTUATION)
    ]


def cut_whitespace(word: Word) -> list[Word]:
    """WhitespaceSplit: whitespace is removed."""
    return _split(word, SplitBehavior.REMOVED, lambda c: c.text in unicode.WHITESPACE)


def cut_whitespace_words(word: Word) -> list[Word]:
    r"""Whitespace: the matches of ``\w+|[^\w\s]+``."""

    def class_of(index: int) -> int:
        text = word.chars[index].text
        return 1 if text in unicode.WORD else 0 if text in unicode.WHITESPACE else 2

    runs = [(kind, list(run)) for kind, run in groupby(range(len(word.chars)), class_of)]
    return _slices(word, [(run[0], run[-1] + 1) for kind, run in runs if kind])


def cut_punctuation(word: Word, stage: Punctuation) -> list[Word]:
    """Punctuation: cuts at each punctuation character."""
    return _split(word, stage.behavior, lambda c: c.text in unicode.PUNCTUATION)


def cut_digits(word: Word, stage: Digits) -> list[Word]:
    """Digits: cuts numbers off, each digit alone or together."""
    behavior = SplitBehavior.ISOLATED if stage.individual else SplitBehavior.CONTIGUOUS
    return _split(word, behavior, lambda c: c.text in unicode.NUMERIC)


def _slices(word: Word, spans: Spans) -> list[Word]:
    return [Word(word.chars[begin:end], word.chars[begin].begin) for begin, end in spans if begin < end]


def _split(word: Word, behavior: SplitBehavior, is_cut: Callable[[AlignedChar], bool]) -> list[Word]:
    """NormalizedString::split at the characters that ``is_cut`` names."""
    matches: list[tuple[int, int, bool]] = []
    for index, char in enumerate(word.chars):
        cuts = is_cut(char)
        if cuts or not matches or matches[-1][2]:
            matches.append((index, index + 1, cuts))
        else:
            matches[-1] = (matches[-1][0], index + 1, False)
    if behavior is SplitBehavior.REMOVED:
        return _slices(word, [(begin, end) for begin, end, cuts in matches if not cuts])
    return _slices(word, _merged(matches, behavior))


def _merged(matches: list[tuple[int, int, bool]], behavior: SplitBehavior) -> Spans:
    if behavior is SplitBehavior.MERGED_WITH_NEXT:
        mirrored = [(-end, -begin, cuts) for begin, end, cuts in reversed(matches)]
        return [
            (-end, -begin) for begin, end in reversed(_merged(mirrored, SplitBehavior.MERGED_WITH_PREVIOUS))
        ]
    spans: Spans = []
    was_cut = False
    for begin, end, cuts in matches:
        joins = {
            SplitBehavior.MERGED_WITH_PREVIOUS: cuts and not was_cut,
            SplitBehavior.CONTIGUOUS: cuts == was_cut,
        }.get(behavior, False)
        if joins and spans:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((begin, end))
        was_cut = cuts
    return spans
