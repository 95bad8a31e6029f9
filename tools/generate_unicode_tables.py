"""Writes the Unicode tables of the text kernels by asking the pinned tokenizers about every character.

One BERT pipeline mixes several Unicode versions (8.0 for punctuation and marks, 9.0 for NFD, the Rust
standard library's own for lower-casing), so no single library's tables are exact. The behaviour of
``tokenizers==0.23.3`` is: this script observes it for all 1,112,064 code points and writes what it saw as

- ``kernels/penstock_kernels/unicode_tables.py`` for the reference twin, and
- ``kernels/src/unicode_tables.inc`` for the native kernel.

Usage: ``python -m tools.generate_unicode_tables [--check]`` (about a minute; --check only compares).
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from tools import unicode_classes, unicode_graphemes

PINNED = "0.23.3"
ORIGIN = f"Unicode of tokenizers {PINNED}, observed by tools/generate_unicode_tables.py; not to be edited."
ROOT = Path(__file__).resolve().parent.parent
PYTHON_FILE = ROOT / "kernels" / "penstock_kernels" / "unicode_tables.py"
NATIVE_FILE = ROOT / "kernels" / "src" / "unicode_tables.inc"
SEPARATOR = "\x01"
BLOCK = 4096
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
# The source of tokenizers counts 2B920, not 2B820, as the start of one CJK block; observed like all others.

HANGUL = range(0xAC00, 0xD7A4)

Range = tuple[int, int]


def observe(normalize: Callable[[str], str]) -> dict[int, str]:
    """What a context-free normaliser makes of each character, where that isn't the character itself."""
    changed: dict[int, str] = {}
    chars = [c for c in CODE_POINTS if chr(c) != SEPARATOR]
    for at in range(0, len(chars), BLOCK):
        block = chars[at : at + BLOCK]
        results = normalize(SEPARATOR.join(map(chr, block))).split(SEPARATOR)
        if len(results) != len(block):
            raise SystemExit(f"a character near U+{block[0]:04X} swallowed its separator")
        changed |= {c: text for c, text in zip(block, results, strict=True) if text != chr(c)}
    return changed


def bert_normalizer(**enabled: bool) -> Callable[[str], str]:
    """A BertNormalizer with only the given stages."""
    stages = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**(stages | enabled)).normalize_str


def clean_text() -> tuple[list[int], list[int]]:
    """Characters that clean_text removes, and those it turns into a space."""
    clean = bert_normalizer(clean_text=True)
    removed: list[int] = []
    spaces: list[int] = []
    for at in range(0, len(CODE_POINTS), BLOCK):
        block = [c for c in CODE_POINTS[at : at + BLOCK] if chr(c) != "|"]
        for c, text in zip(block, clean("|".join(map(chr, block))).split("|"), strict=True):
            if text == "":
                removed.append(c)
            elif text == " " and c != 0x20:
                spaces.append(c)
            elif text != chr(c):
                raise SystemExit(f"clean_text turned U+{c:04X} into {text!r}")
    return removed, spaces


def bert_split_classes() -> tuple[list[int], list[int]]:
    """Whitespace and punctuation of the BERT pre-tokeniser."""
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    whitespace: list[int] = []
    punctuation: list[int] = []
    for at in range(0, len(CODE_POINTS), BLOCK):
        block = CODE_POINTS[at : at + BLOCK]
        text = "".join(f"a{chr(c)}a " for c in block)
        pieces: dict[int, list[str]] = {}
        for piece, (begin, _) in split(text):
            pieces.setdefault(begin // 4, []).append(piece)
        for index, c in enumerate(block):
            if pieces[index] == ["a", "a"]:
                whitespace.append(c)
            elif pieces[index] == ["a", chr(c), "a"]:
                punctuation.append(c)
            elif pieces[index] != [f"a{chr(c)}a"]:
                raise SystemExit(f"the pre-tokeniser made {pieces[index]} of U+{c:04X}")
    return whitespace, punctuation


def word_characters() -> list[int]:
    """Characters that stop a single_word added token from matching beside them."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    token = AddedToken("q", single_word=True, normalized=False)
    tokenizer.add_tokens([token])  # pyright: ignore[reportUnknownMemberType]
    found: list[int] = []
    for at in range(0, len(CODE_POINTS), BLOCK):
        block = CODE_POINTS[at : at + BLOCK]
        for c, encoding in zip(block, tokenizer.encode_batch([chr(c) + "q" for c in block]), strict=True):
            if 1 not in encoding.ids:
                found.append(c)
    return found


def strip_classes(decompositions: dict[int, str]) -> list[int]:
    """Marks that strip_accents deletes; only characters that NFD leaves alone can tell."""
    stripped = observe(bert_normalizer(strip_accents=True))
    return [c for c, text in stripped.items() if text == "" and c not in decompositions]


def combining_classes(decompositions: dict[int, str]) -> dict[int, int]:
    """Canonical combining class of every character with one, by how NFD reorders it among known marks.

    The values are those of Python's table for marks that both know (classes never change once assigned);
    only their order matters.
    """
    nfd = normalizers.NFD().normalize_str
    ladder: dict[int, int] = {}
    for c in CODE_POINTS:
        value = unicodedata.combining(chr(c))
        if value and value not in ladder and nfd(f"a\u0345{chr(c)}") != f"a\u0345{chr(c)}":
            ladder[value] = c
    ladder[240] = 0x0345
    classes = {0x0345: 240}
    for c in CODE_POINTS:
        if c in decompositions or nfd(f"a\u0345{chr(c)}") == f"a\u0345{chr(c)}":
            continue
        matching = [
            value
            for value, mark in ladder.items()
            if nfd(f"a{chr(c)}{chr(mark)}") == f"a{chr(c)}{chr(mark)}"
            and nfd(f"a{chr(mark)}{chr(c)}") == f"a{chr(mark)}{chr(c)}"
        ]
        if len(matching) != 1:
            raise SystemExit(f"U+{c:04X} fits combining classes {matching}")
        classes[c] = matching[0]
    return classes


def ranges(code_points: list[int]) -> list[Range]:
    """Closed ranges that cover exactly the given code points."""
    found: list[Range] = []
    for c in sorted(code_points):
        if found and found[-1][1] == c - 1:
            found[-1] = (found[-1][0], c)
        else:
            found.append((c, c))
    return found


def combining_ranges(classes: dict[int, int]) -> list[tuple[int, int, int]]:
    """Ranges of one combining class: (first, last, class)."""
    by_class: dict[int, list[int]] = {}
    for c, value in classes.items():
        by_class.setdefault(value, []).append(c)
    return sorted((first, last, value) for value, cs in by_class.items() for first, last in ranges(cs))


def lower_runs(lower: dict[int, str]) -> list[tuple[int, int, int, int]]:
    """Runs of lower-casing with one distance: (first, last, step, distance); U+0130 is left out."""
    if lower.pop(0x0130) != "i\u0307" or any(len(text) != 1 for text in lower.values()):
        raise SystemExit("only U+0130 may become two characters when lower-cased")
    runs: list[tuple[int, int, int, int]] = []
    for c in sorted(lower):
        distance = ord(lower[c]) - c
        if runs:
            first, last, step, previous = runs[-1]
            gap = c - last
            if distance == previous and gap <= 2 and (gap == step or first == last):
                runs[-1] = (first, c, gap, distance)
                continue
        runs.append((c, c, 1, distance))
    return runs


def compositions(decompositions: dict[int, str]) -> list[tuple[int, int, int]]:
    """(first, second, what NFC makes of them) of every pair but Hangul's.

    A pair is the last step of a canonical decomposition that NFC leaves in one piece.
    """
    nfc = normalizers.NFC().normalize_str
    rows: list[tuple[int, int, int]] = []
    for c, text in decompositions.items():
        if c in HANGUL or nfc(chr(c)) != chr(c):
            continue
        first = nfc(text[:-1])
        if len(first) != 1 or nfc(first + text[-1]) != chr(c):
            raise SystemExit(f"U+{c:04X} isn't composed of two characters")
        rows.append((ord(first), ord(text[-1]), c))
    return sorted(rows)


def grapheme_ranges() -> list[tuple[int, int, int]]:
    """Ranges of one grapheme class: (first, last, index into unicode_graphemes.CLASSES)."""
    return combining_ranges(unicode_graphemes.grapheme_classes(CODE_POINTS))


def other_classes(known: dict[str, list[int]]) -> dict[str, list[int]]:
    """Classes of all splitters but BERT's, and of Strip, that no known table has already.

    The readers of the tables count on the others being equal: if they ever are not, this stops.
    """
    seen = unicode_classes.split_classes(CODE_POINTS)
    seen["stripped whitespace"] = unicode_classes.stripped(CODE_POINTS)
    for name, code_points in seen.items():
        equal = "WHITESPACE" if "whitespace" in name else "PUNCTUATION" if name == "punctuation" else "WORD"
        if not name.isupper() and sorted(code_points) != sorted(known[equal]):
            raise SystemExit(f"{name} differs from {equal}: give it a table of its own")
    return {name: code_points for name, code_points in seen.items() if name.isupper()}


def normal_forms(decompositions: dict[int, str]) -> dict[str, list[tuple[int, ...]]]:
    """The tables that NFC, NFD, NFKC and NFKD need."""
    compatibility = observe(normalizers.NFKD().normalize_str)
    return {
        "COMBINING": list(combining_ranges(combining_classes(decompositions))),
        "DECOMPOSITIONS": [(c, *map(ord, text)) for c, text in decompositions.items() if c not in HANGUL],
        "COMPATIBILITY": [
            (c, *map(ord, text)) for c, text in compatibility.items() if text != decompositions.get(c)
        ],
        "COMPOSITIONS": list(compositions(decompositions)),
    }


def collect() -> dict[str, list[tuple[int, ...]]]:
    """All tables, by name."""
    decompositions = observe(normalizers.NFD().normalize_str)
    removed, spaces = clean_text()
    whitespace, punctuation = bert_split_classes()
    classes = {"WHITESPACE": whitespace, "PUNCTUATION": punctuation, "WORD": word_characters()}
    classes = {
        "CLEAN_REMOVED": removed,
        "CLEAN_SPACES": spaces,
        "CJK": list(observe(bert_normalizer(handle_chinese_chars=True))),
        "MARKS": strip_classes(decompositions),
        "ANY_MARKS": list(observe(normalizers.StripAccents().normalize_str)),
        **classes,
        **other_classes(classes),
    }
    lower = observe(normalizers.Lowercase().normalize_str)
    if lower != observe(bert_normalizer(lowercase=True)):
        raise SystemExit("BERT lower-cases in a way of its own: give it a table of its own")
    return {
        **{name: list(ranges(code_points)) for name, code_points in classes.items()},
        "LOWER": list(lower_runs(lower)),
        "GRAPHEMES": list(grapheme_ranges()),
        **normal_forms(decompositions),
    }


DESCRIPTIONS = {
    "CLEAN_REMOVED": "clean_text deletes these: (first, last).",
    "CLEAN_SPACES": "clean_text turns these into a space: (first, last).",
    "CJK": "handle_chinese_chars puts spaces around these: (first, last).",
    "MARKS": "BERT's strip_accents deletes these after NFD: (first, last).",
    "ANY_MARKS": "The normaliser StripAccents deletes these: (first, last).",
    "WHITESPACE": "Separates words, for every splitter, and is stripped: (first, last).",
    "PUNCTUATION": "Each of these is a word of its own, for BERT and Punctuation: (first, last).",
    "WORD": "\\w of regular expressions; a single_word added token doesn't match beside it: (first, last).",
    "LETTERS": "Letters of the byte-level splitter: (first, last).",
    "NUMBERS": "Numbers of the byte-level splitter: (first, last).",
    "NUMERIC": "What Digits parts from other text: (first, last).",
    "LOWER": "Lower case, but for U+0130: (first, last, step, distance).",
    "GRAPHEMES": f"Grapheme classes: (first, last, one of 0 to {len(unicode_graphemes.CLASSES) - 1}: "
    f"{' '.join(unicode_graphemes.CLASSES)}).",
    "COMBINING": "Canonical combining classes: (first, last, class).",
    "DECOMPOSITIONS": "NFD but for Hangul: (character, what it becomes...).",
    "COMPATIBILITY": "NFKD where it isn't NFD: (character, what it becomes...).",
    "COMPOSITIONS": "What NFC composes, but for Hangul: (first, second, composed).",
}
FLATTENED = ("DECOMPOSITIONS", "COMPATIBILITY")


def wrapped(items: list[str], indent: str) -> Iterator[str]:
    """Joins items to lines of at most 110 characters."""
    line = indent
    for item in items:
        if len(line) + len(item) + 1 > 110:
            yield line.rstrip()
            line = indent
        line += item + " "
    yield line.rstrip()


def python_source(tables: dict[str, list[tuple[int, ...]]]) -> str:
    """The module for the reference twin: tuples in hexadecimal, as text to keep it small."""
    lines = [
        f'"""{ORIGIN}',
        "",
        "Each is text of hexadecimal tuples: numbers are parted by commas, tuples by spaces.",
        '"""',
    ]
    for name, rows in tables.items():
        items = [",".join(f"{number:x}" for number in row) for row in rows]
        comment = textwrap.wrap(DESCRIPTIONS[name], 105, initial_indent="# ", subsequent_indent="# ")
        lines += ["", *comment, f'{name} = """', *wrapped(items, ""), '"""']
    return "\n".join(lines) + "\n"


def native_name(name: str) -> str:
    """CLEAN_REMOVED becomes kCleanRemoved_; the underscore keeps it apart from the flag of that name."""
    return f"k{name.title().replace('_', '')}_"


def native_source(tables: dict[str, list[tuple[int, ...]]]) -> str:
    """The C++ arrays; decompositions are flattened as character, length, what it becomes."""
    lines = [f"// {ORIGIN}"]
    for name, rows in tables.items():
        if name in FLATTENED:
            flat = [
                f"0x{row[0]:x},{len(row) - 1}," + ",".join(f"0x{c:x}" for c in row[1:]) + "," for row in rows
            ]
            head = f"constexpr std::int32_t {native_name(name)}[] = {{"
        else:
            flat = ["{" + ",".join(f"{n:#x}" if n >= 0 else str(n) for n in row) + "}," for row in rows]
            head = f"constexpr std::int32_t {native_name(name)}[][{len(rows[0])}] = {{"
        comment = textwrap.wrap(DESCRIPTIONS[name], 105, initial_indent="// ", subsequent_indent="// ")
        lines += ["", *comment, head, *wrapped(flat, "  "), "};"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes or compares both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed files, write nothing"
    )
    options = parser.parse_args()
    if tokenizers.__version__ != PINNED:
        print(f"needs tokenizers=={PINNED}, found {tokenizers.__version__}", file=sys.stderr)
        return 2
    tables = collect()
    print(json.dumps({name: len(rows) for name, rows in tables.items()}))
    stale = False
    for path, text in ((PYTHON_FILE, python_source(tables)), (NATIVE_FILE, native_source(tables))):
        if options.check:
            stale |= not path.exists() or path.read_text(encoding="utf-8") != text
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print("the committed tables differ: run tools/generate_unicode_tables.py", file=sys.stderr)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
