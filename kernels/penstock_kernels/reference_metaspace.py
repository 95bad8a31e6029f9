"""Plain Python twin of the Metaspace pre-tokeniser of ``tokenizers`` 0.23.3."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_kernels.reference_aligned import AlignedChar, Word
from penstock_kernels.spec import Metaspace, PrependScheme


def cut_metaspace(word: Word, spec: Metaspace) -> list[Word]:
    """Writes spaces as the replacement, begins the word with it, and cuts before each."""
    return list(_parts(word, spec)) if word.chars else []


def _parts(word: Word, spec: Metaspace) -> Iterator[Word]:
    chars = [c._replace(text=spec.replacement) if c.text == " " else c for c in word.chars]
    prepends = spec.scheme is PrependScheme.ALWAYS or (spec.scheme is PrependScheme.FIRST and not word.origin)
    if prepends and chars[0].text != spec.replacement:
        chars.insert(0, chars[0]._replace(text=spec.replacement))
    if not spec.split:
        yield Word(chars, word.origin)
        return
    part: list[AlignedChar] = []
    for char in chars:
        if part and char.text == spec.replacement:
            yield Word(part, part[0].begin)
            part = []
        part.append(char)
    yield Word(part, part[0].begin)
