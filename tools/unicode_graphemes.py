"""Observes where the pinned tokenizers ends a grapheme cluster, through the Precompiled normaliser.

Precompiled looks a cluster of fewer than six bytes up as a whole, and replaces all of it by what its
shortest prefix in the charsmap becomes; longer clusters are looked up character by character. So whether two
characters belong together shows in what becomes of their neighbours. What never shows (whether regional
indicators pair up: a pair has eight bytes) can't change what Precompiled does, and follows the standard
(UAX #29).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tokenizers import normalizers

# The order is the value in the tables; reference_unicode.py and unicode.h name them too.
CLASSES = [
    "OTHER",
    "CONTROL",
    "CR",
    "LF",
    "PREPEND",
    "SPACING_MARK",
    "EXTEND",
    "PLAIN_EXTEND",
    "LINKER",
    "JOINER",
    "REGIONAL",
    "PICTOGRAPHIC",
    "CONSONANT",
    "LEAD",
    "VOWEL",
    "TAIL",
    "SYLLABLE",
]
SEPARATOR = "\n"
BLOCK = 4096
MARK = "\u0301"
JOINER = "\u200d"
REPLACED = {
    "a": "A",
    "b": "B",
    "\u00a9": "C",  # COPYRIGHT SIGN, the shortest pictographic character
    "\u0600": "P",  # ARABIC NUMBER SIGN, prepended to what follows
    "\u0915": "K",  # DEVANAGARI LETTER KA, a consonant
    "\u1100": "G",  # Hangul: a leading consonant, a vowel and a trailing consonant
    "\u1161": "V",
    "\u11a8": "T",
}
VIRAMA = "\u094d"

Probe = tuple[str, str, Callable[[str, str], bool]]


def _ends_apart(letter: str) -> Callable[[str, str], bool]:
    """The last character of a probe and its mark are a cluster of their own: the mark is gone."""
    return lambda _, seen: not seen.endswith(letter)


# What is put before and after a character, and whether what is seen says yes.
COMMON: dict[str, Probe] = {
    "joins_left": ("a", "", lambda _, seen: seen == "A"),
    "is_control": ("\u0600\u0600", "", lambda c, seen: seen == "P" + c),
    "before_other": ("", "b" + MARK, _ends_apart("B")),
    "before_lead": ("", "\u1100" + MARK, _ends_apart("G")),
    "before_vowel": ("", "\u1161" + MARK, _ends_apart("V")),
    "before_tail": ("", "\u11a8" + MARK, _ends_apart("T")),
    "is_pictographic": ("", JOINER + "\u00a9" + MARK, _ends_apart("C")),
    "is_consonant": ("", VIRAMA + "\u0915" + MARK, _ends_apart("K")),
}
DETAILED: dict[str, Probe] = {
    "after_vowel": ("\u0600\u1161", "", lambda _, seen: seen.startswith("PV")),
    "after_tail": ("\u0600\u11a8", "", lambda _, seen: seen.startswith("PT")),
    "within_pictograph": ("\u00a9", JOINER + "\u00a9" + MARK, _ends_apart("C")),
    "joins_pictographs": ("\u00a9", "\u00a9" + MARK, _ends_apart("C")),
    "joins_consonants": ("\u0915", "\u0915" + MARK, _ends_apart("K")),
    "within_conjunct": ("\u0915", VIRAMA + "\u0915" + MARK, _ends_apart("K")),
}
# Which probes say yes, by class; any other answer is an error.
FINGERPRINTS: dict[frozenset[str], str] = {
    frozenset(positive.split()): name
    for positive, name in (
        ("", "OTHER"),
        ("is_control", "CONTROL"),
        (
            "before_other before_lead before_vowel before_tail joins_pictographs joins_consonants",
            "PREPEND",
        ),
        ("joins_left after_vowel after_tail", "SPACING_MARK"),
        ("joins_left after_vowel after_tail within_pictograph within_conjunct", "EXTEND"),
        ("joins_left after_vowel after_tail within_pictograph", "PLAIN_EXTEND"),
        ("joins_left after_vowel after_tail within_pictograph within_conjunct joins_consonants", "LINKER"),
        ("joins_left after_vowel after_tail within_conjunct joins_pictographs", "JOINER"),
        ("is_pictographic within_pictograph", "PICTOGRAPHIC"),
        ("is_consonant within_conjunct", "CONSONANT"),
        ("before_lead before_vowel", "LEAD"),
        ("before_vowel before_tail after_vowel", "VOWEL"),
        ("before_tail after_vowel after_tail", "TAIL"),
        ("before_vowel before_tail", "SYLLABLE"),  # without a trailing consonant
        ("before_tail", "SYLLABLE"),
    )
}


@dataclass(slots=True)
class _Node:
    """A node of a trie of bytes; under label 0 hangs the value of the key that ends here."""

    children: dict[int, _Node] = field(default_factory=dict[int, "_Node"])
    value: int = 0


def charsmap(pairs: dict[str, str]) -> bytes:
    """A charsmap as SentencePiece writes them: the size of a double array, the array, the replacements.

    A unit of the array holds its label in bits 0-7, whether a key ends there in bit 8, and from bit 10 what
    its position is combined with (exclusive or) to give its children's base. A key's value hangs at label 0.
    """
    root = _Node()
    strings = b""
    for key, value in pairs.items():
        node = root
        for byte in key.encode():
            node = node.children.setdefault(byte, _Node())
        node.children[0] = _Node(value=len(strings))
        strings += value.encode() + b"\0"
    units = {0: 0}
    bases = {0}
    pending = [(0, root)]
    for at, node in pending:
        labels = node.children
        base = next(
            b for b in range(1, 1 << 20) if b not in bases and all(b ^ label not in units for label in labels)
        )
        bases.add(base)
        units[at] |= (at ^ base) << 10 | (0 in labels) << 8
        for label, child in labels.items():
            units[base ^ label] = label if label else 1 << 31 | child.value
            if label:
                pending.append((base ^ label, child))
    size = max(units) // 256 * 256 + 256
    array = struct.pack(f"<{size}I", *(units.get(i, 0) for i in range(size)))
    return struct.pack("<I", len(array)) + array + strings


def _observe(probe: Probe, code_points: list[int], normalize: Callable[[str], str]) -> Iterator[int]:
    """Characters for which the probe says yes."""
    before, after, positive = probe
    for at in range(0, len(code_points), BLOCK):
        block = code_points[at : at + BLOCK]
        seen = normalize(SEPARATOR.join(before + chr(c) + after for c in block)).split(SEPARATOR)
        yield from (c for c, text in zip(block, seen, strict=True) if positive(chr(c), text))


def _answers(
    probes: dict[str, Probe], code_points: list[int], normalize: Callable[[str], str]
) -> dict[int, set[str]]:
    answers: dict[int, set[str]] = {}
    for name, probe in probes.items():
        for c in _observe(probe, code_points, normalize):
            answers.setdefault(c, set()).add(name)
    return answers


def grapheme_classes(code_points: Iterable[int]) -> dict[int, int]:
    """Index into CLASSES of every character that isn't OTHER."""
    normalize = normalizers.Precompiled(charsmap(REPLACED)).normalize_str
    found = {0x0D: CLASSES.index("CR"), 0x0A: CLASSES.index("LF")}
    regional = range(0x1F1E6, 0x1F200)
    answers = _answers(COMMON, [c for c in code_points if c not in found], normalize)
    for c, more in _answers(DETAILED, list(answers), normalize).items():
        answers[c] |= more
    for c, positive in answers.items():
        name = FINGERPRINTS.get(frozenset(positive))
        if name is None or c in regional:
            raise SystemExit(f"U+{c:04X} behaves like no grapheme class: {sorted(positive)}")
        found[c] = CLASSES.index(name)
    return found | dict.fromkeys(regional, CLASSES.index("REGIONAL"))
