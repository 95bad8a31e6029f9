"""Observes how the pinned tokenizers classifies characters when it strips and splits text."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import normalizers, pre_tokenizers

BLOCK = 4096


def _pieces(
    splitter: pre_tokenizers.PreTokenizer, before: str, after: str, end: str, code_points: list[int]
) -> Iterator[tuple[int, int, int]]:
    """For each character between two texts: it, the length of the first piece, and how many pieces there are.

    ``end`` is a character at which the splitter splits; it parts one probe from the next.
    """
    size = len(before) + 1 + len(after) + 1
    for at in range(0, len(code_points), BLOCK):
        block = code_points[at : at + BLOCK]
        lengths: dict[int, list[int]] = {}
        text = "".join(before + chr(c) + after + end for c in block)
        for _, (begin, last) in splitter.pre_tokenize_str(text):
            if begin % size != size - 1:
                lengths.setdefault(begin // size, []).append(last - begin)
        for index, c in enumerate(block):
            yield c, lengths[index][0], len(lengths[index])


def _kinds(splitter: pre_tokenizers.PreTokenizer, known: str, code_points: list[int]) -> list[list[int]]:
    """Which characters form one piece with each of the known ones; last, those that do with none."""
    kinds = [
        [c for c, length, _ in _pieces(splitter, mark, "", "\n", code_points) if length == 2]
        for mark in known
    ]
    rest = set(code_points).difference(*kinds)
    if sum(map(len, kinds)) + len(rest) != len(code_points):
        raise SystemExit(f"a character is of two kinds for {splitter!r}")
    return [*kinds, sorted(rest)]


def _split_at(
    splitter: pre_tokenizers.PreTokenizer, end: str, pieces: int, code_points: list[int]
) -> list[int]:
    """Characters at which the splitter makes so many pieces of one between two letters."""
    return [c for c, _, count in _pieces(splitter, "a", "a", end, code_points) if count == pieces]


def split_classes(code_points: list[int]) -> dict[str, list[int]]:
    """The classes of all pre-tokenisers but BERT's, by table name."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    letters, numbers, _, spaces = _kinds(byte_level, "a1!", code_points)
    word, _, word_spaces = _kinds(pre_tokenizers.Whitespace(), "a!", code_points)
    return {
        "LETTERS": letters,
        "NUMBERS": numbers,
        "byte-level whitespace": spaces,
        "word characters": word,
        "whitespace between words": word_spaces,
        "whitespace": _split_at(pre_tokenizers.WhitespaceSplit(), "\n", 2, code_points),
        "punctuation": _split_at(pre_tokenizers.Punctuation("isolated"), "!", 3, code_points),
        "NUMERIC": _split_at(pre_tokenizers.Digits(individual_digits=False), "1", 3, code_points),
    }


def stripped(code_points: list[int]) -> list[int]:
    """Characters that Strip removes from a text's ends."""
    strip = normalizers.Strip().normalize_str
    return [c for c in code_points if strip(chr(c) + "a") == "a"]
