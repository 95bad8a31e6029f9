"""Unicode as ``tokenizers`` 0.23.3 sees it, for the reference twin: sets and maps of characters."""

from __future__ import annotations

import re
from enum import IntEnum

from penstock_kernels import unicode_tables

_SYLLABLE_FIRST, _SYLLABLE_LAST = 0xAC00, 0xD7A3
_LEAD_FIRST, _VOWEL_FIRST, _TAIL_FIRST = 0x1100, 0x1161, 0x11A7
_LEADS, _VOWELS, _TAILS = 19, 21, 28


class Grapheme(IntEnum):
    """Classes of UAX #29; an extending character takes part in Indic conjuncts unless it is PLAIN_EXTEND."""

    OTHER = 0
    CONTROL = 1
    CR = 2
    LF = 3
    PREPEND = 4
    SPACING_MARK = 5
    EXTEND = 6
    PLAIN_EXTEND = 7
    LINKER = 8
    JOINER = 9
    REGIONAL = 10
    PICTOGRAPHIC = 11
    CONSONANT = 12
    LEAD = 13
    VOWEL = 14
    TAIL = 15
    SYLLABLE = 16


def _rows(table: str) -> list[list[int]]:
    return [[int(number, 16) for number in row.split(",")] for row in table.split()]


def _characters(table: str) -> frozenset[str]:
    return frozenset(chr(c) for first, last in _rows(table) for c in range(first, last + 1))


CLEAN_REMOVED = _characters(unicode_tables.CLEAN_REMOVED)
CLEAN_SPACES = _characters(unicode_tables.CLEAN_SPACES)
CJK = _characters(unicode_tables.CJK)
MARKS = _characters(unicode_tables.MARKS)
ANY_MARKS = _characters(unicode_tables.ANY_MARKS)
# A str, because str.strip takes one.
WHITESPACE = "".join(sorted(_characters(unicode_tables.WHITESPACE)))
PUNCTUATION = _characters(unicode_tables.PUNCTUATION)
WORD = _characters(unicode_tables.WORD)
LETTERS = _characters(unicode_tables.LETTERS)
NUMBERS = _characters(unicode_tables.NUMBERS)
NUMERIC = _characters(unicode_tables.NUMERIC)
GRAPHEMES = {
    chr(c): Grapheme(value)
    for first, last, value in _rows(unicode_tables.GRAPHEMES)
    for c in range(first, last + 1)
}
COMBINING = {
    chr(c): value for first, last, value in _rows(unicode_tables.COMBINING) for c in range(first, last + 1)
}


def _decompositions(table: str) -> dict[str, str]:
    return {chr(c): "".join(map(chr, parts)) for c, *parts in _rows(table)}


_CANONICAL = _decompositions(unicode_tables.DECOMPOSITIONS)
_COMPATIBILITY = _decompositions(unicode_tables.COMPATIBILITY)
_COMPOSITIONS = {
    chr(first) + chr(second): chr(composed) for first, second, composed in _rows(unicode_tables.COMPOSITIONS)
}
_LOWER = {"\u0130": "i\u0307"} | {
    chr(c): chr(c + distance)
    for first, last, step, distance in _rows(unicode_tables.LOWER)
    for c in range(first, last + 1, step)
}


# One letter a class, so that the standard's rules (UAX #29) are a regular expression over classes. Syllables
# without a trailing consonant are v, others t.
_GRAPHEME_LETTERS = dict(zip(Grapheme, "ocrnpsxjlzgikLVT", strict=False))
_CONJUNCT = "k(?:[xz]*l[xlz]*k)*"
_PICTOGRAPH = "i(?:[xjl]*zi)*"
_CLUSTER = re.compile(
    f"rn|[crn]|p*(?:L*(?:V+|vV*|t)T*|L+|T+|gg|{_PICTOGRAPH}|{_CONJUNCT}|[^crnp])[xjlzs]*|p+[xjlzs]*"
)


def lower(c: str) -> str:
    """Lower case of one character."""
    return _LOWER.get(c, c)


def decomposition(c: str) -> str:
    """Full canonical decomposition of one character, not reordered."""
    if _SYLLABLE_FIRST <= ord(c) <= _SYLLABLE_LAST:
        index = ord(c) - _SYLLABLE_FIRST
        vowel, tail = index // _TAILS % _VOWELS, index % _TAILS
        lead = chr(_LEAD_FIRST + index // (_VOWELS * _TAILS)) + chr(_VOWEL_FIRST + vowel)
        return lead + (chr(_TAIL_FIRST + tail) if tail else "")
    return _CANONICAL.get(c, c)


def compatibility_decomposition(c: str) -> str:
    """Full compatibility decomposition of one character, not reordered."""
    return _COMPATIBILITY.get(c) or decomposition(c)


def composition(first: str, second: str) -> str | None:
    """What NFC makes of two characters side by side, or None if they do not compose."""
    lead, vowel = ord(first) - _LEAD_FIRST, ord(second) - _VOWEL_FIRST
    if 0 <= lead < _LEADS and 0 <= vowel < _VOWELS:
        return chr(_SYLLABLE_FIRST + (lead * _VOWELS + vowel) * _TAILS)
    syllable, tail = ord(first) - _SYLLABLE_FIRST, ord(second) - _TAIL_FIRST
    if _SYLLABLE_FIRST <= ord(first) <= _SYLLABLE_LAST and syllable % _TAILS == 0 and 0 < tail < _TAILS:
        return chr(ord(first) + tail)
    return _COMPOSITIONS.get(first + second)


def _grapheme_letter(c: str) -> str:
    grapheme = GRAPHEMES.get(c, Grapheme.OTHER)
    if grapheme is Grapheme.SYLLABLE:
        return "t" if (ord(c) - _SYLLABLE_FIRST) % _TAILS else "v"
    return _GRAPHEME_LETTERS[grapheme]


def graphemes(text: str) -> list[str]:
    """The text cut into its extended grapheme clusters."""
    classes = "".join(map(_grapheme_letter, text))
    return [text[found.start() : found.end()] for found in _CLUSTER.finditer(classes)]
