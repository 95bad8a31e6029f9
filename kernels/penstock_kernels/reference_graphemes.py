"""Extended grapheme clusters (UAX #29) as ``tokenizers`` 0.23.3 sees them, for the reference twin."""

from __future__ import annotations

import re

from penstock_kernels import reference_unicode as unicode
from penstock_kernels.reference_unicode import Grapheme

# One letter a class, so that the standard's rules can be written as a regular expression over classes.
_LETTER = dict(zip(Grapheme, "ocrnpsxjlzgikLVTS", strict=True))
_EXTEND = "[xjl]"
_SYLLABLE = "(?:L*(?:V+|vV*|t)T*|L+|T+)"
_CONJUNCT = "(?:k(?:[xz]*l[xlz]*k)*)"
_PICTOGRAPH = f"(?:i(?:{_EXTEND}*zi)*)"
_CLUSTER = re.compile(f"rn|[crn]|p*(?:{_SYLLABLE}|gg|{_PICTOGRAPH}|{_CONJUNCT}|[^crnp])?[xjlzs]*")
_TAILS = 28


def _class_letter(c: str) -> str:
    """As _LETTER, but syllables with and without a trailing consonant are told apart as t and v."""
    grapheme = unicode.GRAPHEMES.get(c, Grapheme.OTHER)
    if grapheme is Grapheme.SYLLABLE:
        return "t" if (ord(c) - unicode.SYLLABLE_FIRST) % _TAILS else "v"
    return _LETTER[grapheme]


def graphemes(text: str) -> list[str]:
    """The text cut into its clusters."""
    classes = "".join(map(_class_letter, text))
    return [
        text[found.start() : found.end()]
        for found in _CLUSTER.finditer(classes)
        if found.end() > found.start()
    ]
