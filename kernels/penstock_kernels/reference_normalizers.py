"""Plain Python twin of the normalisers but BERT's and Precompiled, as ``tokenizers`` 0.23.3 has them.

The names in comments are those of its source. Characters carry what they stand for; a deleted character does
not widen its neighbours, and an inserted one copies its predecessor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple, TypeAlias

from penstock_kernels import reference_unicode as unicode
from penstock_kernels import spec
from penstock_kernels.reference_aligned import AlignedChar

Stage: TypeAlias = (
    spec.UnicodeForm
    | spec.Lowercase
    | spec.StripAccents
    | spec.Strip
    | spec.Replace
    | spec.ReplaceSpaceRuns
    | spec.Prepend
)
_COMPOSING = (spec.Form.NFC, spec.Form.NFKC)
_COMPATIBLE = (spec.Form.NFKC, spec.Form.NFKD)
_SPACE_RUN = re.compile(" {2,}")


class _Part(NamedTuple):
    """A character on its way through a normal form, and how many characters of the input it replaces."""

    text: str
    replaces: int


def normalize_stage(chars: list[AlignedChar], first: int, stage: Stage) -> list[AlignedChar]:
    """Runs one stage on a piece that begins at character ``first`` of the text; none here depends on it."""
    match stage:
        case spec.UnicodeForm(form):
            return list(_in_form(chars, form))
        case spec.Lowercase():
            return [c._replace(text=low) for c in chars for low in unicode.lower(c.text)]
        case spec.StripAccents():
            return [c for c in chars if c.text not in unicode.ANY_MARKS]
        case spec.Strip(left, right):
            return _strip(chars, left, right)
        case spec.Replace(pattern, content):
            return _replace(chars, re.compile(re.escape(pattern)), content)
        case spec.ReplaceSpaceRuns(content):
            return _replace(chars, _SPACE_RUN, content)
        case spec.Prepend(text):
            return [chars[0]._replace(text=c) for c in text] + chars if chars else []


def _in_form(chars: list[AlignedChar], form: spec.Form) -> Iterator[AlignedChar]:
    """NormalizedString::transform: alignments are handed out in the order of the input, not of the marks.

    The first part is never an inserted one: within a decomposition the parts are in order already.
    """
    parts = list(_decompose(chars, form in _COMPATIBLE))
    taken = 0
    for part in _compose(parts) if form in _COMPOSING else parts:
        # What was composed with a character is passed over, and is what an inserted one after it copies.
        place = chars[taken if part.replaces else taken - 1]
        yield place._replace(text=part.text)
        taken += part.replaces


def _decompose(chars: list[AlignedChar], compatible: bool) -> Iterator[_Part]:
    """Only the first part of a character replaces it. Marks are sorted together with what they replace."""
    decompose = unicode.compatibility_decomposition if compatible else unicode.decomposition
    marks: list[tuple[int, _Part]] = []
    for char in chars:
        for position, text in enumerate(decompose(char.text)):
            part = _Part(text, int(position == 0))
            combining_class = unicode.COMBINING.get(text, 0)
            if combining_class:
                marks.append((combining_class, part))
                continue
            yield from _in_order(marks)
            marks.clear()
            yield part
    yield from _in_order(marks)


def _in_order(marks: list[tuple[int, _Part]]) -> list[_Part]:
    return [part for _, part in sorted(marks, key=lambda mark: mark[0])]


def _compose(parts: list[_Part]) -> list[_Part]:
    """Each starter takes in the characters after it that compose with it and are not blocked."""
    composed: list[_Part] = []
    starter: int | None = None
    last_class = 0
    for part in parts:
        combining_class = unicode.COMBINING.get(part.text, 0)
        if starter is not None:
            is_next = starter == len(composed) - 1
            target = composed[starter]
            whole = (
                unicode.composition(target.text, part.text)
                if is_next or last_class < combining_class
                else None
            )
            if whole is not None:
                composed[starter] = _Part(whole, target.replaces + part.replaces)
                continue
        if not combining_class:
            starter = len(composed)
        composed.append(part)
        last_class = combining_class
    return composed


def _strip(chars: list[AlignedChar], left: bool, right: bool) -> list[AlignedChar]:
    begin = _whitespace_at_start(chars) if left else 0
    end = len(chars) - (_whitespace_at_start(chars[::-1]) if right else 0)
    return chars[begin:end]


def _whitespace_at_start(chars: list[AlignedChar]) -> int:
    return sum(1 for _ in takewhile(lambda c: c.text in unicode.WHITESPACE, chars))


def _replace(chars: list[AlignedChar], pattern: re.Pattern[str], content: str) -> list[AlignedChar]:
    """NormalizedString::replace: the new characters stand for what the last one of the match stands for."""
    replaced: list[AlignedChar] = []
    done = 0
    for found in pattern.finditer("".join(c.text for c in chars)):
        replaced += chars[done : found.start()]
        replaced += [chars[found.end() - 1]._replace(text=c) for c in content]
        done = found.end()
    return replaced + chars[done:]
