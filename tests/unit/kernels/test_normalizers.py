"""Normalisers do what the reference does, in text and in alignments; the native ones what their twins do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers

from penstock_kernels import reference_unicode as unicode
from penstock_kernels import spec
from penstock_kernels.reference_aligned import AlignedChar
from penstock_kernels.reference_normalizers import Stage, normalize_stage
from tests.support import native_normalizers
from tests.support.token_texts import MARKS, RISKY, varied_texts

Seen = tuple[str, list[tuple[int, int]]]
# A character that every stage leaves alone, and which neither composes nor stands in a run of marks.
SEPARATOR = "\x01"
BLOCK = 4096
FIRST = 7

STAGES: list[tuple[Stage, normalizers.Normalizer]] = [
    (spec.UnicodeForm(spec.Form.NFC), normalizers.NFC()),
    (spec.UnicodeForm(spec.Form.NFD), normalizers.NFD()),
    (spec.UnicodeForm(spec.Form.NFKC), normalizers.NFKC()),
    (spec.UnicodeForm(spec.Form.NFKD), normalizers.NFKD()),
    (spec.Lowercase(), normalizers.Lowercase()),
    (spec.StripAccents(), normalizers.StripAccents()),
    (spec.Strip(), normalizers.Strip()),
    (spec.Strip(True, False), normalizers.Strip(right=False)),
    (spec.Strip(False, True), normalizers.Strip(left=False)),
    (spec.Strip(False, False), normalizers.Strip(left=False, right=False)),
    (spec.Replace("aa", "xyz"), normalizers.Replace("aa", "xyz")),
    (spec.Replace("aab", "a"), normalizers.Replace("aab", "a")),
    (spec.Replace(" ", "\u2581"), normalizers.Replace(" ", "\u2581")),
    (spec.Replace("e", ""), normalizers.Replace("e", "")),
    (spec.ReplaceSpaceRuns("\u2581"), normalizers.Replace(Regex(" {2,}"), "\u2581")),
    (spec.ReplaceSpaceRuns("$1 "), normalizers.Replace(Regex(" {2,}"), "$1 ")),
    (spec.Prepend("\u2581x"), normalizers.Prepend("\u2581x")),
]
CONTEXT_FREE = STAGES[:6]


def name_of(value: Stage | normalizers.Normalizer) -> str | None:
    return None if isinstance(value, normalizers.Normalizer) else native_normalizers.argument(value)


def code_points() -> Iterator[int]:
    yield from (c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF)


def oracle(*stages: normalizers.Normalizer) -> Callable[[str], Seen]:
    """Normalises with the reference; every character is an unknown token of its own, which shows its span."""
    tokenizer = Tokenizer(models.BPE(vocab={"?": 0}, merges=[], unk_token="?", fuse_unk=False))
    tokenizer.normalizer = chain = normalizers.Sequence(list(stages))
    return lambda text: (chain.normalize_str(text), tokenizer.encode(text).offsets)


def twin(text: str, stages: list[Stage], first: int = 0) -> list[AlignedChar]:
    chars = [AlignedChar(c, index, index + 1) for index, c in enumerate(text, first)]
    for stage in stages:
        chars = normalize_stage(chars, first, stage)
    return chars


def seen(chars: list[AlignedChar]) -> Seen:
    return "".join(c.text for c in chars), [(c.begin, c.end) for c in chars]


@cache
def telling_characters() -> list[str]:
    """Characters that some stage changes, their neighbours, and every 16th of all the others.

    That the tables are right about each single one is what ``tools.generate_unicode_tables --check`` proves.
    """
    found = {c for c in code_points() if c % 16 == 0}
    for c in code_points():
        text = chr(c)
        is_changed = unicode.compatibility_decomposition(text) != text or unicode.lower(text) != text
        if is_changed or text in unicode.ANY_MARKS or text in unicode.COMBINING:
            found |= {c - 1, c, c + 1}
    return [chr(c) for c in sorted(found.intersection(code_points()))]


@cache
def pools() -> list[list[str]]:
    """Characters that interact: marks of any class, what composes, what decomposes, Hangul, whitespace."""
    decomposing = [chr(c) for c in code_points() if unicode.compatibility_decomposition(chr(c)) != chr(c)]
    composed = [c for c in decomposing if len(unicode.decomposition(c)) > 1]
    parts = sorted({part for c in composed for part in unicode.decomposition(c)})
    hangul = list("\u1100\u1112\u1113\u1161\u1175\u1176\u11a7\u11a8\u11c2\u11c3\uac00\uac01\ud7a3")
    return [
        decomposing,
        composed,
        parts,
        hangul,
        list(unicode.COMBINING),
        list(RISKY),
        list(MARKS),
        list("aaab"),
        list("aAbeE   \u3000\t"),
    ]


def texts(count: int, seed: int) -> list[str]:
    print(f"texts(count={count}, seed={seed})")  # noqa: T201
    rng = random.Random(seed)
    made: list[str] = []
    chosen = pools()
    for _ in range(count):
        both = rng.sample(chosen, 2)
        made.append("".join(rng.choice(rng.choice(both)) for _ in range(rng.randint(0, 10))))
    return made + varied_texts(count // 4, seed)


@pytest.mark.parametrize(("stage", "normalizer"), STAGES, ids=name_of)
def test_a_stage_does_what_the_reference_does(stage: Stage, normalizer: normalizers.Normalizer) -> None:
    expected = oracle(normalizer)
    for text in texts(1_000, seed=31):
        assert seen(twin(text, [stage])) == expected(text), ascii(text)


def test_chains_of_stages_do_what_the_reference_does() -> None:
    rng = random.Random(32)
    for text in texts(3_000, seed=32):
        chosen = rng.choices(STAGES, k=rng.randint(2, 4))
        stages = [stage for stage, _ in chosen]
        expected = oracle(*(normalizer for _, normalizer in chosen))
        assert seen(twin(text, stages)) == expected(text), (stages, ascii(text))


@settings(max_examples=300, deadline=None)
@given(st.text(), st.sampled_from(STAGES), st.sampled_from(STAGES))
def test_any_text_becomes_what_the_reference_makes_of_it(
    text: str,
    one: tuple[Stage, normalizers.Normalizer],
    two: tuple[Stage, normalizers.Normalizer],
) -> None:
    assert seen(twin(text, [one[0], two[0]])) == oracle(one[1], two[1])(text)


@pytest.mark.parametrize(("stage", "normalizer"), CONTEXT_FREE, ids=name_of)
def test_every_character_becomes_what_the_reference_makes_of_it(
    stage: Stage, normalizer: normalizers.Normalizer
) -> None:
    characters = telling_characters()
    for at in range(0, len(characters), BLOCK):
        text = SEPARATOR.join(characters[at : at + BLOCK])
        assert "".join(c.text for c in twin(text, [stage])) == normalizer.normalize_str(text), hex(at)


def test_every_pair_with_what_composes_becomes_what_the_reference_makes_of_it() -> None:
    parts = pools()[2]
    seconds = [c for c in parts if unicode.composition("a", c) or c in unicode.COMBINING]
    normalizer = normalizers.NFC()
    for first in parts:
        text = SEPARATOR.join(first + second for second in seconds)
        assert "".join(
            c.text for c in twin(text, [spec.UnicodeForm(spec.Form.NFC)])
        ) == normalizer.normalize_str(text), ascii(first)


@pytest.mark.parametrize(("stage", "normalizer"), STAGES, ids=name_of)
def test_a_native_stage_equals_its_twin(stage: Stage, normalizer: normalizers.Normalizer) -> None:
    cases = texts(1_000, seed=33)
    native = native_normalizers.normalize(cases, [stage], FIRST)
    for text, chars in zip(cases, native, strict=True):
        assert chars == twin(text, [stage], FIRST), ascii(text)


@pytest.mark.parametrize(("stage", "normalizer"), CONTEXT_FREE, ids=name_of)
def test_a_native_stage_equals_its_twin_on_every_character(
    stage: Stage, normalizer: normalizers.Normalizer
) -> None:
    characters = telling_characters()
    blocks = [SEPARATOR.join(characters[at : at + 64]) for at in range(0, len(characters), 64)]
    for text, chars in zip(blocks, native_normalizers.normalize(blocks, [stage]), strict=True):
        assert chars == twin(text, [stage]), hex(ord(text[0]))


def test_native_chains_equal_their_twins() -> None:
    rng = random.Random(34)
    for _ in range(30):
        stages = [stage for stage, _ in rng.choices(STAGES, k=rng.randint(2, 4))]
        cases = texts(50, seed=rng.randrange(1 << 30))
        native = native_normalizers.normalize(cases, stages, FIRST)
        for text, chars in zip(cases, native, strict=True):
            assert chars == twin(text, stages, FIRST), (stages, ascii(text))
