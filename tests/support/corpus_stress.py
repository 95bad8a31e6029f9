"""Texts made to find differences: every code point in context, pairs of risky ones, and adversarial texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from random import Random

from tests.support.token_texts import ENGLISH, MARKS, RISKY, english, risky, scripts

RISK_ALPHABET_SIZE = 3_000
# Where normalisers, classes and segmentation change their mind: marks, letters that decompose or have case,
# Hangul, jamo, punctuation, compatibility forms, CJK edges, emoji.
_RISK_RANGES = (
    *((0x000, 0x17F), (0x180, 0x24F), (0x2B0, 0x3FF), (0x483, 0x489), (0x531, 0x5C7), (0x600, 0x6DD)),
    *((0x900, 0x94F), (0x958, 0x963), (0x9BC, 0x9DF), (0xB47, 0xB57), (0xE31, 0xE4E), (0xF40, 0xFBC)),
    *((0x1025, 0x103E), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x13A0, 0x13FD), (0x1AB0, 0x1ACE)),
    *((0x1C80, 0x1CBF), (0x1DC0, 0x1DFF), (0x1E00, 0x1FFE), (0x2000, 0x209F), (0x20D0, 0x20F0)),
    *((0x2100, 0x218B), (0x2460, 0x24FF), (0x2E00, 0x2E5D), (0x3000, 0x30FF), (0x3130, 0x318F)),
    *((0x3200, 0x33FF), (0x4DB0, 0x4E10), (0x9FE0, 0xA000), (0xA640, 0xA6A0), (0xAB30, 0xABBF)),
    *((0xAC00, 0xAC40), (0xD780, 0xD7FB), (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFBB2, 0xFDFF)),
    *((0xFE00, 0xFE6F), (0xFEFF, 0xFFFF), (0x10400, 0x1044F), (0x11099, 0x110C2), (0x11930, 0x11940)),
    *((0x1D15E, 0x1D1BB), (0x1D400, 0x1D480), (0x1E000, 0x1E02A), (0x1E900, 0x1E959), (0x1F1E6, 0x1F1FF)),
    *((0x1F3FB, 0x1F3FF), (0x1F600, 0x1F64F), (0x2A6D0, 0x2A740), (0x2B81A, 0x2B924), (0x2F800, 0x2FA1F)),
    *((0xE0000, 0xE007F), (0xE0100, 0xE01EF), (0x10FFF0, 0x10FFFF)),
)
SPECIALS = (
    *("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "[mask]", "<s>", "</s>", "<pad>", "<unk>", "<mask>"),
    *("<cls>", "<sep>", "<eod>", "<eop>", "<|endoftext|>", "<|padding|>", "|||IP_ADDRESS|||", "[unused7]"),
    *("▁", "▁▁", "Ġ", "##", "##s", "<0x0A>", "<0xE4>", "  ", "    ", " " * 23, " " * 25),
)
_ODD = "\x00\x01\x7f\x80\xad\u200b\u200d\u2060\ufeff\ufffc\ufffd\ufffe\uffff\ue000\uf8ff\U000f0000\U0010fffd"
_SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u202f\u3000"
_CONTRACTIONS = ("'s", "'S", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'LL", "'d", "’s", "'ſ", "''s", "'sx")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WIDE = "éßøñçİıſǅαωςЖяאשعلकॐกัあカー中文한글ᄒ\u1161𝔘𐐀🙂"
_EDGES = (7, 8, 9, 15, 16, 17, 31, 32, 33)
_BLOCKS = (31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193)
_WORD_LIMITS = (98, 99, 100, 101, 102, 199, 200, 201)
_STACK_MAX = 300
_RUN_MAX = 3_000

Maker = Callable[[Random], str]


def code_points(template: str) -> Iterator[str]:
    """Every Unicode scalar value, put in place of the braces of a template."""
    for value in range(0x110000):
        if not 0xD800 <= value < 0xE000:
            yield template.replace("{}", chr(value))


def risk_alphabet() -> tuple[str, ...]:
    """Three thousand characters on which stages or Unicode versions disagree, or might."""
    chosen = dict.fromkeys(RISKY + MARKS + _ODD + _SPACES + _WIDE)
    rng = Random("risk alphabet")
    candidates = [chr(value) for first, last in _RISK_RANGES for value in range(first, last + 1)]
    rng.shuffle(candidates)
    chosen |= dict.fromkeys(map(chr, range(0x20, 0x7F)))
    chosen |= dict.fromkeys(candidates)
    return tuple(chosen)[:RISK_ALPHABET_SIZE]


def risk_pairs() -> Iterator[str]:
    """Each pair of the risk alphabet between two letters."""
    alphabet = risk_alphabet()
    for first in alphabet:
        start = "a" + first
        yield from (f"{start}{second}b" for second in alphabet)


def adversarial(seed: int) -> Iterator[str]:
    """Endless adversarial texts, of all kinds in turn."""
    rng = Random(seed)
    for index in count():
        yield MAKERS[index % len(MAKERS)](rng)


def _word(rng: Random, bytes_wanted: int) -> str:
    """A word of about so many bytes, of plain letters or with wide ones among them."""
    if rng.random() < 0.6:
        return "".join(rng.choices(_LETTERS, k=bytes_wanted))
    word = ""
    while len(word.encode()) < bytes_wanted:
        word += rng.choice(_WIDE) if rng.random() < 0.3 else rng.choice(_LETTERS)
    return word


def special_tokens(rng: Random) -> str:
    """Special tokens of all families, whole, doubled and cut, inside other texts."""
    text = rng.choice((english, risky, mixed_scripts))(rng)
    for _ in range(rng.randint(1, 4)):
        token = rng.choice(SPECIALS)
        token = rng.choice((token, token, token + token, token[: rng.randint(0, len(token))], token.lower()))
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(("", "", " ", "  ", "\n")) + token + text[at:]
    return text


def long_words(rng: Random) -> str:
    """Words at the limits of WordPiece, counted in characters before and after normalisation."""
    letter = rng.choice(("a", "ab", "é", "e\u0301", "각", "\u00ad", "İ", "un", "中", "ﬁ"))
    length = rng.choice(_WORD_LIMITS)
    word = (letter * length)[:length]
    return rng.choice(("", "x ", "-")) + word + rng.choice(("", ".", " x", "\u0301", "\u200b", word))


def key_edges(rng: Random) -> str:
    """Words whose length in bytes is that of a cache's inline key, one less, or one more."""
    made = [_word(rng, rng.choice(_EDGES)) for _ in range(rng.randint(1, 6))]
    made.append(made[0][:-1] + "z")  # Shares all but its last character with a word seen before.
    return rng.choice((" ", " ", "-", "\n")).join(made)


def block_edges(rng: Random) -> str:
    """Text whose kind changes just before, at, or after the end of a block of 32 or 64 bytes."""
    filler = rng.choice(("a", "ab ", "word ", "x,", " ", "1 "))
    length = rng.choice(_BLOCKS) - rng.randint(0, 4)
    start = (filler * length)[:length]
    change: str = rng.choice((*"é中🙂 .[<▁", "\u0301", "\x00", "[SEP]", "<s>", "'s", "  ", "a", "\xa0", "Ab"))
    return start + change + rng.choice(("", "b", " b", change, start[: rng.randint(0, 70)]))


def odd_characters(rng: Random) -> str:
    """NUL, U+FFFD, private use, noncharacters, joiners and byte order marks among words."""
    return "".join(
        rng.choice(_ODD) if rng.random() < 0.4 else rng.choice(("a", "word", " ", "1", "é"))
        for _ in range(rng.randint(1, 20))
    )


def mark_stacks(rng: Random) -> str:
    """A few bases under many combining marks in any order."""
    length = _STACK_MAX if rng.random() < 0.02 else 24
    parts: list[str] = []
    for _ in range(rng.randint(1, 4)):
        parts += [
            rng.choice(("a", "é", "각", "か", "", " ", "ก", "क", "q")),
            *rng.choices(MARKS, k=rng.randint(0, length)),
        ]
    return "".join(parts)


def runs(rng: Random) -> str:
    """One character or short string, many times."""
    unit = rng.choice(
        ("a", "A", "é", "中", "🙂", " ", "\n", ".", "'", "1", "▁", "\u0301", "ab", "[", "\x00", "ー")
    )
    length = rng.randint(1, _RUN_MAX) if rng.random() < 0.05 else rng.randint(1, 140)
    return rng.choice(("", "x", " ")) + unit * length + rng.choice(("", "x", " ", "."))


def mixed_scripts(rng: Random) -> str:
    """Words that change script, case and class from one letter to the next."""
    parts = [
        rng.choice((rng.choice(_WIDE), rng.choice(_LETTERS), rng.choice("0１٣²Ⅷ"), rng.choice(RISKY)))
        for _ in range(rng.randint(1, 30))
    ]
    return "".join(part + rng.choice(("", "", "", " ")) for part in parts)


def contractions(rng: Random) -> str:
    """English contractions in both cases, real and near, between letters, digits and spaces."""
    parts = [
        rng.choice(ENGLISH)[:6] + rng.choice(_CONTRACTIONS) + rng.choice(("", " ", "  ", "x", "1", "."))
        for _ in range(rng.randint(1, 8))
    ]
    return "".join(parts)


def space_runs(rng: Random) -> str:
    """Runs of whitespace of one or several kinds between short words."""
    parts: list[str] = []
    for _ in range(rng.randint(1, 6)):
        run = (
            rng.choice(_SPACES) * rng.randint(0, 30)
            if rng.random() < 0.5
            else "".join(rng.choices(_SPACES, k=rng.randint(0, 5)))
        )
        parts += [run, rng.choice(("a", "Ab", "1", ".", "é", "▁", ""))]
    return "".join(parts)


def mutated(rng: Random) -> str:
    """Ordinary text with a few characters deleted, doubled or put in."""
    text = rng.choice((english, scripts))(rng)
    for _ in range(rng.randint(1, 5)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(("", text[at : at + 1] * 2, rng.choice(RISKY))) + text[at + 1 :]
    return text


MAKERS: tuple[Maker, ...] = (
    *(special_tokens, long_words, key_edges, block_edges, odd_characters, mark_stacks, runs),
    *(mixed_scripts, contractions, space_runs, mutated),
)


def giants(size: int) -> Iterator[str]:
    """Texts of about so many bytes that tempt an algorithm to take its time."""
    units: list[str] = [
        *"aé中🙂 \n.1[<▁가\u0301\x00",
        "ab",
        "a ",
        "a.",
        "' ",
        "e\u0301\u0323",
        "[SEP]",
        "<s>",
    ]
    units += ["  a", "aaaaaaaab", "Ab1", "中a", "\u200d🙂", "\u0f71\u0f72\u0f74"]
    for unit in units:
        yield unit * (size // len(unit.encode()))
    rng = Random(size)
    yield "".join(rng.choices(_LETTERS, k=size))
    yield "".join(rng.choices(_LETTERS + " ", k=size))
    yield "".join(rng.choices(risk_alphabet(), k=size // 3))
