"""Unicode as ``tokenizers`` 0.23.3 sees it, for the reference twin: sets and maps of characters."""

from __future__ import annotations

from penstock_kernels import unicode_tables

_HANGUL_FIRST, _HANGUL_LAST = 0xAC00, 0xD7A3
_LEAD_FIRST, _VOWEL_FIRST, _TAIL_FIRST = 0x1100, 0x1161, 0x11A7
_VOWELS, _TAILS = 21, 28


def _rows(table: str) -> list[list[int]]:
    return [[int(number, 16) for number in row.split(",")] for row in table.split()]


def _characters(table: str) -> frozenset[str]:
    return frozenset(chr(c) for first, last in _rows(table) for c in range(first, last + 1))


CLEAN_REMOVED = _characters(unicode_tables.CLEAN_REMOVED)
CLEAN_SPACES = _characters(unicode_tables.CLEAN_SPACES)
CJK = _characters(unicode_tables.CJK)
MARKS = _characters(unicode_tables.MARKS)
# A str, because str.strip takes one.
WHITESPACE = "".join(sorted(_characters(unicode_tables.WHITESPACE)))
PUNCTUATION = _characters(unicode_tables.PUNCTUATION)
WORD = _characters(unicode_tables.WORD)
COMBINING = {
    chr(c): value for first, last, value in _rows(unicode_tables.COMBINING) for c in range(first, last + 1)
}
_DECOMPOSITIONS = {chr(c): "".join(map(chr, parts)) for c, *parts in _rows(unicode_tables.DECOMPOSITIONS)}
_LOWER = {"\u0130": "i\u0307"} | {
    chr(c): chr(c + distance)
    for first, last, step, distance in _rows(unicode_tables.LOWER)
    for c in range(first, last + 1, step)
}


def lower(c: str) -> str:
    """Lower case of one character."""
    return _LOWER.get(c, c)


def decomposition(c: str) -> str:
    """Full canonical decomposition of one character, not reordered."""
    if _HANGUL_FIRST <= ord(c) <= _HANGUL_LAST:
        index = ord(c) - _HANGUL_FIRST
        vowel, tail = index // _TAILS % _VOWELS, index % _TAILS
        lead = chr(_LEAD_FIRST + index // (_VOWELS * _TAILS)) + chr(_VOWEL_FIRST + vowel)
        return lead + (chr(_TAIL_FIRST + tail) if tail else "")
    return _DECOMPOSITIONS.get(c, c)
