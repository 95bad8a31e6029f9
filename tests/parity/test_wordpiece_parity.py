"""Ids, type ids and offsets equal Hugging Face tokenizers 0.23.3, on more than 200,000 varied texts."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from penstock_server.domain.tasks import Truncation
from tests.support.reviews import review_sentences, reviews
from tests.support.token_oracle import EncodeCase, Parity, model_tokenizer, spelling_tokenizer
from tests.support.token_parity import TokenizerPair
from tests.support.token_texts import GENERATORS, RISKY, Generator, varied_texts

NORMALIZERS: list[dict[str, Any]] = [
    {},
    {"lowercase": False},
    {"strip_accents": False},
    {"lowercase": False, "strip_accents": True},
    {"clean_text": False},
    {"handle_chinese_chars": False},
    {"clean_text": False, "handle_chinese_chars": False, "lowercase": False},
]


def settings_name(settings: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in settings.items()) or "default"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Parity:
    return Parity(model_tokenizer(), tmp_path_factory.mktemp("model"))


def test_reviews_equal_the_oracle(model: Parity) -> None:
    model.check(review_sentences(30_000))
    model.check(list(reviews(1_000)))


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: g.__name__)
def test_every_kind_of_text_equals_the_oracle(model: Parity, generator: Generator) -> None:
    rng = random.Random(generator.__name__)
    model.check([generator(rng) for _ in range(6_000)])


@pytest.mark.parametrize("settings", NORMALIZERS, ids=settings_name)
def test_every_normalizer_setting_equals_the_oracle(settings: dict[str, Any], tmp_path: Path) -> None:
    texts = varied_texts(12_000, seed=len(settings_name(settings)))
    Parity(spelling_tokenizer(texts, **settings), tmp_path).check(texts)


ADDED_FLAGS = [
    {},
    {"single_word": True},
    {"lstrip": True},
    {"rstrip": True},
    {"lstrip": True, "rstrip": True, "single_word": True},
]


@pytest.mark.parametrize("flags", ADDED_FLAGS, ids=settings_name)
@pytest.mark.parametrize("settings", NORMALIZERS, ids=settings_name)
def test_added_tokens_matched_on_normalized_text_equal_the_oracle(
    settings: dict[str, Any], flags: dict[str, bool], tmp_path: Path
) -> None:
    """ASCII keeps its fast path: tokens are looked for in what the normaliser makes of it."""
    rng = random.Random(settings_name(settings | flags))
    content = spelling_tokenizer(["aBcDefg covid NEW york !x\x7f\x01\t\n"], **settings)
    added = ["covid", "NEW YORK", "ab", "a", "!x", "B c", "\te", "é"]
    first = 1 + max(content["model"]["vocab"].values())
    defaults = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    content["added_tokens"] = [*content.get("added_tokens", [])] + [
        {"id": first + index, "content": token} | defaults | flags for index, token in enumerate(added)
    ]
    pair = TokenizerPair(content, tmp_path)
    atoms = [*added, *"abcdeABCD!x", "CoViD", "new york", "co\x00vid", *"\t\n\r \x0b\x1f\x7f", " ", " ", "  "]
    texts = ["".join(rng.choices(atoms, k=rng.randint(1, 14))) for _ in range(1_500)]
    pair.check([text for text in texts if text.isascii()])
    pair.check([text for text in texts if not text.isascii()])


@pytest.mark.parametrize("word_chars_max", [0, 1, 3, 20, 1000])
def test_word_limits_equal_the_oracle(word_chars_max: int, tmp_path: Path) -> None:
    texts = varied_texts(4_000, seed=word_chars_max)
    Parity(spelling_tokenizer(texts, max_input_chars_per_word=word_chars_max), tmp_path).check(texts)


@pytest.mark.parametrize("truncation", [Truncation.RIGHT, Truncation.LEFT])
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_single_texts_are_cut_like_the_oracle(
    model: Parity, truncation: Truncation, add_special_tokens: bool
) -> None:
    texts = [text[:60] for text in varied_texts(500, seed=1)]
    for tokens_max in (*range(3, 20), 32, 64):
        model.check(texts, case=EncodeCase(tokens_max, truncation, add_special_tokens))


@pytest.mark.parametrize("truncation", [Truncation.RIGHT, Truncation.LEFT])
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_pairs_are_cut_like_the_oracle(
    model: Parity, truncation: Truncation, add_special_tokens: bool
) -> None:
    # Few words each: the oracle builds the cross product of what it cuts off both.
    rng = random.Random(2)
    texts = [" ".join("abcdefgh"[: rng.randint(0, 8)]) for _ in range(400)]
    pairs = [None if rng.random() < 0.1 else " ".join("stuvwxyz"[: rng.randint(0, 8)]) for _ in range(400)]
    for tokens_max in range(4, 22):
        model.check(texts, pairs, EncodeCase(tokens_max, truncation, add_special_tokens))


def test_pairs_without_a_limit_equal_the_oracle(model: Parity) -> None:
    texts, pairs = varied_texts(5_000, seed=3), varied_texts(5_000, seed=4)
    model.check(texts, pairs)
    model.check(texts, pairs, EncodeCase(add_special_tokens=False))


def test_texts_longer_than_a_chunk_equal_the_oracle(model: Parity) -> None:
    # The kernel normalises 4,096 bytes at a time: marks and words lie across every such place. A special
    # token ends a chunk early, so there are none.
    texts = [text for text in varied_texts(2_000, seed=5) if "[" not in text]
    joined = ["".join(texts[i : i + 200]) for i in range(0, len(texts), 200)]
    padded = ["a" * shift + " e\u0301\u0323b\u0f71\u0301\uac01 " * 700 for shift in range(24)]
    model.check([*joined, *padded])
    model.check(padded[:6], case=EncodeCase(tokens_max=1900))


def test_characters_of_all_planes_equal_the_oracle(tmp_path: Path) -> None:
    # Every 7th character here, every one in full.py.
    for first in range(0, 0x40000, 0x8000):
        check_characters(range(first, first + 0x8000, 7), tmp_path)
    check_characters(
        [*range(0xE0000, 0xE01F0), *range(0xFFF00, 0x100010), *range(0x10FFF0, 0x110000)], tmp_path
    )


def test_all_characters_of_the_first_plane_equal_the_oracle_uncased(tmp_path: Path) -> None:
    for first in range(0, 0x10000, 0x4000):
        check_characters(range(first, first + 0x4000), tmp_path)


def check_characters(code_points: range | list[int], folder: Path, **settings: Any) -> None:
    """Compares each character alone, doubled, inside a word, and before and after marks."""
    characters = [chr(c) for c in code_points if not 0xD800 <= c <= 0xDFFF]
    in_context = [f"x{c}y {c}{c}\u0323\u0301{c} 1{c}!{c}" for c in characters]
    groups = ["|".join(in_context[i : i + 16]) for i in range(0, len(in_context), 16)]
    parity = Parity(spelling_tokenizer(groups, **settings), folder)
    parity.check(characters, case=EncodeCase(add_special_tokens=False))
    parity.check(groups)


def added_token(content: str, token_id: int, **settings: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"id": token_id, "content": content} | flags | settings


ADDED_TOKENS: dict[str, list[tuple[str, dict[str, bool]]]] = {
    "single_word": [("foo", {"single_word": True}), ("fo", {"single_word": True}), ("ofoo", {})],
    "strip": [("foo", {"lstrip": True}), ("bar", {"rstrip": True}), ("fo", {"lstrip": True, "rstrip": True})],
    "overlap": [
        ("foo", {"rstrip": True}),
        (" bar", {}),
        ("\u0301b", {"lstrip": True}),
        (" ", {"rstrip": True}),
    ],
    "spaces that strip": [(" ", {"lstrip": True, "rstrip": True}), ("foo", {"rstrip": True})],
    "normalized spaces that strip": [
        (" ", {"lstrip": True, "rstrip": True, "normalized": True}),
        ("foo", {"rstrip": True}),
    ],
    "overlap and strip": [("foo", {"rstrip": True}), (" bar", {"lstrip": True}), ("  o", {"lstrip": True})],
    "normalized": [
        ("Foo", {"normalized": True}),
        ("bÀr", {"normalized": True}),
        ("foo bar", {"normalized": True}),
    ],
    "normalized strip": [
        ("foo", {"normalized": True, "lstrip": True, "rstrip": True}),
        ("bar", {"normalized": True, "single_word": True}),
        (" o", {"normalized": True}),
        ("BAR", {"single_word": True, "rstrip": True}),
    ],
}


@pytest.mark.parametrize("name", ADDED_TOKENS)
def test_added_tokens_are_found_like_the_oracle(name: str, tmp_path: Path) -> None:
    content = copy.deepcopy(model_tokenizer())
    vocab = content["model"]["vocab"]
    for text, settings in ADDED_TOKENS[name]:
        token_id = vocab.get(text, max(len(vocab) - 1, *(t["id"] for t in content["added_tokens"])) + 1)
        content["added_tokens"].append(added_token(text, token_id, **settings))
    rng = random.Random(name)
    parts = [
        "foo",
        "Foo",
        "fo",
        "o",
        "bar",
        "BAR",
        "bàr",
        "ba\u0300r",
        " ",
        "  ",
        "\u3000",
        "\t",
        "_",
        "1",
        "\u0301",
    ]
    parts += ["[SEP]", "\u00ad", "\u200d", "-", "\u4e2d", "ofoo", "\u0903", *RISKY[::9]]
    texts = ["".join(rng.choice(parts) for _ in range(rng.randint(1, 9))) for _ in range(8_000)]
    parity = Parity(content, tmp_path)
    parity.check(texts)
    parity.check(texts[:1_000], case=EncodeCase(tokens_max=5))
    parity.check(texts[:1_000], case=EncodeCase(tokens_max=6, truncation=Truncation.LEFT))


POST_PROCESSORS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "bert": {"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]},
    "template": {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 3}}, {"SpecialToken": {"id": "two", "type_id": 2}}],
        "pair": [
            {"SpecialToken": {"id": "two", "type_id": 7}},
            {"Sequence": {"id": "B", "type_id": 0}},
            {"SpecialToken": {"id": "one", "type_id": 1}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "special_tokens": {
            "one": {"id": "one", "ids": [101], "tokens": ["[CLS]"]},
            "two": {"id": "two", "ids": [102, 103], "tokens": ["[SEP]", "[MASK]"]},
        },
    },
}


@pytest.mark.parametrize("name", POST_PROCESSORS)
def test_post_processors_lay_rows_out_like_the_oracle(name: str, tmp_path: Path) -> None:
    parity = Parity(model_tokenizer() | {"post_processor": POST_PROCESSORS[name]}, tmp_path)
    texts = [text[:40] for text in varied_texts(1_000, seed=8)]
    pairs = [text[:40] for text in varied_texts(1_000, seed=9)]
    for case in (EncodeCase(), EncodeCase(add_special_tokens=False), EncodeCase(tokens_max=9)):
        parity.check(texts, case=case)
        parity.check(texts, pairs if case.tokens_max is None else [pair[:8] for pair in pairs], case)


def test_a_missing_normalizer_leaves_text_alone_like_the_oracle(tmp_path: Path) -> None:
    Parity(model_tokenizer() | {"normalizer": None}, tmp_path).check(varied_texts(3_000, seed=10))


def test_odd_vocabularies_equal_the_oracle(tmp_path: Path) -> None:
    vocabularies = [
        ["[UNK]", "##b", "#", "##", "##a", "a", "ab", "##ab", "b"],
        ["[UNK]", "a", "b"],
        ["[UNK]", "", "##", "a", "##aab", "aa", "##a"],
    ]
    rng = random.Random(11)
    texts = ["".join(rng.choice("aab# ##") for _ in range(rng.randint(0, 12))) for _ in range(3_000)]
    for tokens in vocabularies:
        for prefix in ("##", "", "#"):
            content: dict[str, Any] = model_tokenizer() | {"added_tokens": [], "post_processor": None}
            content["model"] |= {
                "vocab": {t: i for i, t in enumerate(tokens)},
                "continuing_subword_prefix": prefix,
            }
            Parity(content, tmp_path).check(texts)
