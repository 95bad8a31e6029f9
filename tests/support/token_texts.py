"""Texts that tokenizers disagree on, generated from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

ENGLISH_TEXT = (
    "the of and a to in is was he for it with as his on be at by i this had not are but from or have an "
    "they which one you were her all she there would their we him been has when who will more no if out so "
    "said what unaffable tokenization embeddings electroencephalogram antidisestablishmentarianism it's "
    "we'll U.S. naïve Zürich São résumé coöperate 3.14 1,000,000 50% $9.99 co-operate e-mail O'Brien"
)
ENGLISH = ENGLISH_TEXT.split()
SPECIAL_TOKENS = [
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[UNK]",
    "[MASK]",
    "[mask]",
    "[SEP",
    "SEP]",
    "[[SEP]]",
    "[MASK]s",
]
CODE = [
    "def f(x: int) -> int:",
    "return x**2 // 3",
    "std::vector<std::string>&&",
    "if (a != b && !c) { *p++ = 0x7f; }",
    "SELECT * FROM t WHERE id='a''b';",
    "\tfor i in range(10):\n\t\tprint(f'{i!r}')",
    "https://example.org/a?b=c&d=%20#e",
    "\\n\\t\\0 \\u0041",
]
# Characters on which Unicode versions, or stages of the pipeline, differ.
RISKY = (
    "\u0000\u0007\u0008\t\n\u000b\u000c\r\u001c\u001f \u007f\u0080\u0085\u009f\u00a0\u00ad"
    "\u00b7\u0130\u0131\u017f"
    "\u01c4\u01c5\u0300\u0301\u0308\u0315\u031b\u0323\u0327\u0328\u0334\u0338\u0340\u0344\u0345\u034f\u0360\u0378"
    "\u037e\u0390\u03a3\u03c2\u0483\u0488\u0591\u05b0\u05bf\u0600\u061c\u064b\u0651\u06dd\u070f\u0711\u08e2\u0890"
    "\u0900\u093c\u094d\u0958\u09be\u09cb\u0b48\u0bca\u0ddd\u0e38\u0e48\u0f43\u0f71\u0f72\u0f73\u0f74\u0f75\u0f81"
    "\u0fb9\u1039\u1100\u1161\u11a8\u135d\u1680\u166d\u1734\u17d2\u180e\u1ab0\u1abe\u1abf\u1b35\u1b44\u1baa\u1cd0"
    "\u1dc4\u1df6\u1dfb\u1e9b\u1e9e\u1ecf\u1f80\u1fb3\u2000\u2001\u200b\u200c\u200d\u200e\u2010\u2028\u2029\u202e"
    "\u202f\u2043\u205f\u2060\u2064\u2066\u20ac\u20d0\u20dd\u2126\u212a\u212b\u2adc\u2cef\u2e3d\u2e43\u2e4f\u3000"
    "\u3001\u302a\u302e\u304b\u3099\u309a\u3400\u4dbf\u4dc0\u4e00\u9fff\ua66f\ua802\ua8c4\ua953\uac00\uac01\ud7a3"
    "\ue000\uf8ff\uf900\ufa0e\ufaff\ufb1e\ufb1f\ufb2a\ufe00\ufe0f\ufe20\ufe2f\ufeff\uff01\uff21\uffa0\ufff9\ufffc"
    "\ufffd\uffff\U00010376\U000103d0\U00010400\U00010a0f\U000110ba\U000110bd\U000110cd\U0001112e\U000111c9"
    "\U00011938\U00013430\U00016af0\U00016e40\U0001bca0\U0001bc9e\U0001d15e\U0001d165\U0001d16d\U0001d173"
    "\U0001d1bb\U0001e000\U0001e900\U0001e94a\U0001f600\U0001f468\U0001f3fb\U0001f1e9\U00020000\U0002a6df\U0002a6e0"
    "\U0002b740\U0002b820\U0002b91f\U0002b920\U0002ceaf\U0002ceb0\U0002f800\U0002fa1d\U00030000\U000e0001\U000e0100"
    "\U000f0000\U0010fffd\U0010ffff"
)
MARKS = (
    "\u0300\u0301\u0315\u031b\u0323\u0327\u0334\u0338\u0345\u0591\u05b0\u064b\u093c\u094d"
    "\u0f71\u0f72\u0f74\u0f73\u0f81\u0344\u3099\u302e\u1b44\u1dfb\U0001d165\U0001d16d\U0001e000\U0001e94a"
)

Generator = Callable[[random.Random], str]


def english(rng: random.Random) -> str:
    """Words with ordinary capitals and punctuation."""
    words = [rng.choice(ENGLISH) for _ in range(rng.randint(1, 25))]
    words = [w.upper() if rng.random() < 0.05 else w.capitalize() if rng.random() < 0.1 else w for w in words]
    return "".join(w + rng.choice([" "] * 12 + [", ", ". ", "; ", " - ", "  ", "\n", '" ']) for w in words)


def code(rng: random.Random) -> str:
    """Lines of source text."""
    return rng.choice(["\n", " ", ""]).join(rng.choice(CODE) for _ in range(rng.randint(1, 4)))


def emoji(rng: random.Random) -> str:
    """Emoji with joiners, modifiers and flags among words."""
    parts = [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f44d\U0001f3fd",
        "\U0001f1e9\U0001f1ea",
        "\u2764\ufe0f",
        "1\ufe0f\u20e3",
    ]
    return "".join(
        rng.choice([*parts, " ok ", chr(rng.randint(0x1F300, 0x1FAFF)), "!"])
        for _ in range(rng.randint(1, 10))
    )


def scripts(rng: random.Random) -> str:
    """A run of letters from one or two scripts, mixed with ASCII."""
    blocks = [(0x4E00, 0x9FFF), (0x3041, 0x30FF), (0xAC00, 0xD7A3), (0x0400, 0x04FF), (0x0370, 0x03FF)]
    blocks += [(0x0590, 0x05F4), (0x0600, 0x06FF), (0x0900, 0x097F), (0x0E00, 0x0E7F), (0x00C0, 0x024F)]
    blocks += [(0x1E00, 0x1FFF), (0x20000, 0x2A6DF), (0x1100, 0x11FF), (0x0F00, 0x0FFF)]
    chosen = rng.sample(blocks, 2)
    parts = [chr(rng.randint(*rng.choice(chosen))) for _ in range(rng.randint(1, 20))]
    return "".join(part + rng.choice(["", "", "", " ", "a", "."]) for part in parts)


def risky(rng: random.Random) -> str:
    """Characters from RISKY among letters."""
    return "".join(
        rng.choice(RISKY) if rng.random() < 0.6 else rng.choice("aAbz1 .") for _ in range(rng.randint(1, 16))
    )


def marks(rng: random.Random) -> str:
    """Stacks of combining marks in any order, on bases that may decompose themselves."""
    bases = [
        "a",
        "e\u0301",
        "\u00e9",
        "\u1ec7",
        "\uac00",
        "\u30ac",
        " ",
        "",
        "\u0f40",
        "\U0001d15e",
        "i\u0307",
        "\u0130",
        "4",
    ]
    stacks = ["".join(rng.choices(MARKS, k=rng.randint(0, 6))) for _ in range(rng.randint(1, 6))]
    return "".join(rng.choice(bases) + stack for stack in stacks)


def anything(rng: random.Random) -> str:
    """Any code points at all, surrogates apart."""
    code_points = (
        rng.choice([rng.randint(0, 0xFF), rng.randint(0, 0xD7FF), rng.randint(0xE000, 0x10FFFF)])
        for _ in range(rng.randint(0, 12))
    )
    return "".join(map(chr, code_points))


def with_special_tokens(rng: random.Random) -> str:
    """Special tokens, whole and broken, spliced into any other kind of text."""
    text = rng.choice([english, risky, marks])(rng)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(SPECIAL_TOKENS) + text[at:]
    return text


def long_words(rng: random.Random) -> str:
    """Words around the limit of 100 characters, counted after normalisation."""
    letter = rng.choice(["a", "ab", "é", "e\u0301", "\uac01", "\u00ad", "\u0130", "un"])
    count = rng.randint(97, 103) // rng.choice([1, 1, len(letter)])
    return english(rng)[:20] + " " + letter * count + rng.choice(["", ".", " x", "\u0301", "\u200b"])


def spaces(rng: random.Random) -> str:
    """Mostly whitespace of all kinds."""
    return "".join(
        rng.choice(" \t\n\r\u000b\u0085\u00a0\u2003\u3000\u2028.a") for _ in range(rng.randint(0, 12))
    )


GENERATORS: tuple[Generator, ...] = (
    english,
    code,
    emoji,
    scripts,
    risky,
    marks,
    anything,
    with_special_tokens,
    long_words,
    spaces,
)


def varied_texts(count: int, seed: int) -> list[str]:
    """As many texts as asked for, of all kinds in turn; the seed is printed for whoever must repeat it."""
    print(f"varied_texts(count={count}, seed={seed})")  # noqa: T201
    rng = random.Random(seed)
    return [GENERATORS[i % len(GENERATORS)](rng) for i in range(count)]
