"""Plain Python twin of the ByteLevel pre-tokeniser: GPT-2 splits, in bytes as printable characters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from penstock_kernels import reference_unicode as unicode
from penstock_kernels.reference_aligned import AlignedChar, Word
from penstock_kernels.spec import ByteLevel

CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def _byte_characters() -> tuple[str, ...]:
    """The character for each byte: itself where it is visible in Latin-1, else the next one from U+0100."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in visible else next(others)) for byte in range(256))


BYTE_CHARACTERS = _byte_characters()


def split_byte_level(words: list[Word], stage: ByteLevel) -> list[Word]:
    """Cuts each word by GPT-2's regex, if asked to, and spells it in bytes. Linear."""
    result: list[Word] = []
    for word in words:
        chars = word.chars
        if not chars:
            continue
        if stage.add_prefix_space and chars[0].text != " ":
            # NormalizedString::prepend: the space takes the first character's place, and that one is inserted
            # after it, which copies the alignment.
            chars = [chars[0]._replace(text=" "), *chars]
        if not stage.use_regex:
            result.append(Word(_spelt(chars), word.origin))
            continue
        for begin, end in gpt2_splits([char.text for char in chars]):
            result.append(Word(_spelt(chars[begin:end]), chars[begin].begin))
    return result


def _spelt(chars: Sequence[AlignedChar]) -> list[AlignedChar]:
    """Every byte as a character that stands for all of what its character stands for."""
    return [char._replace(text=BYTE_CHARACTERS[byte]) for char in chars for byte in char.text.encode("utf-8")]


def gpt2_splits(text: Sequence[str]) -> Iterator[tuple[int, int]]:
    r"""The matches, as [begin, end), of GPT-2's regex in a text given as characters; they leave nothing out.

    The regex is ``'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+``, as Oniguruma
    has it.
    """
    at = 0
    while at < len(text):
        end = _match(text, at)
        yield at, end
        at = end


def _match(text: Sequence[str], at: int) -> int:
    if text[at] == "'":
        for contraction in CONTRACTIONS:
            if "".join(text[at : at + len(contraction)]) == contraction:
                return at + len(contraction)
    first = at + 1 if text[at] == " " and at + 1 < len(text) else at
    if text[first] not in unicode.WHITESPACE:
        is_alike = next(is_kind for is_kind in _KINDS if is_kind(text[first]))
        return _run(text, first, is_alike)
    end = _run(text, at, lambda c: c in unicode.WHITESPACE)
    # The last whitespace before a word is left to it, unless there is only one.
    return end - 1 if end < len(text) and end - at > 1 else end


def _run(text: Sequence[str], at: int, is_alike: Callable[[str], bool]) -> int:
    while at < len(text) and is_alike(text[at]):
        at += 1
    return at


def _is_letter(c: str) -> bool:
    return c in unicode.LETTERS


def _is_number(c: str) -> bool:
    return c in unicode.NUMBERS


def _is_other(c: str) -> bool:
    return not (c in unicode.LETTERS or c in unicode.NUMBERS or c in unicode.WHITESPACE)


_KINDS = (_is_letter, _is_number, _is_other)
