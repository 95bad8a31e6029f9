"""Loading tokenizer.json: what is taken from it, what is ignored, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock_server.domain.errors import ModelBroken
from penstock_server.domain.tasks import Truncation
from penstock_server.text.tokenizer import Tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s", "e"]


def special(content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": TOKENS.index(content), "content": content} | flags


def tokenizer_json(**changes: Any) -> dict[str, Any]:
    """A small BERT tokenizer.json; changes replace whole sections."""
    sections: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special(token) for token in TOKENS[:5]],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": wordpiece(),
    }
    return sections | changes


def wordpiece(**changes: Any) -> dict[str, Any]:
    section: dict[str, Any] = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {token: i for i, token in enumerate(TOKENS)},
    }
    return section | changes


def load(folder: Path, content: dict[str, Any] | str | bytes) -> Tokenizer:
    path = folder / "tokenizer.json"
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Tokenizer.from_file(path)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    encoded: list[int] = tokenizer.encode([text], tokens_max=None, truncation=Truncation.RIGHT).ids.tolist()
    return encoded


def test_a_bert_tokenizer_loads_and_encodes(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, tokenizer_json())
    assert ids(tokenizer, "Hello worlds") == [2, 5, 6, 7, 3]
    assert tokenizer.tokens([5, 6, 7]) == ["hello", "world", "##s"]
    assert tokenizer.pad_id == 0
    assert tokenizer.vocab_size == len(TOKENS)
    assert tokenizer.special_tokens_count(pair=False) == 2
    assert tokenizer.special_tokens_count(pair=True) == 3


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path: Path) -> None:
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    tokenizer = load(tmp_path, tokenizer_json(truncation=truncation, padding=padding))
    assert ids(tokenizer, "hello world e") == [2, 5, 6, 8, 3]


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [(Truncation.RIGHT, [2, 5, 3]), (Truncation.ERROR, [2, 5, 3]), (Truncation.LEFT, [2, 8, 3])],
)
def test_the_named_end_is_cut(tmp_path: Path, truncation: Truncation, expected: list[int]) -> None:
    tokenizer = load(tmp_path, tokenizer_json())
    rows = tokenizer.encode(["hello e"], tokens_max=3, truncation=truncation)
    assert rows.ids.tolist() == expected
    assert rows.truncated.tolist() == [True]


@pytest.mark.parametrize(("lowercase", "expected"), [(True, [2, 8, 3]), (False, [2, 1, 3])])
def test_accents_are_stripped_as_lowercase_says_if_nothing_else_does(
    tmp_path: Path, lowercase: bool, expected: list[int]
) -> None:
    normalizer = {"type": "BertNormalizer", "lowercase": lowercase}
    assert ids(load(tmp_path, tokenizer_json(normalizer=normalizer)), "é") == expected


def test_the_pad_id_is_that_of_the_pad_token(tmp_path: Path) -> None:
    vocab = {token: i for i, token in enumerate(reversed(TOKENS))}
    section = tokenizer_json(model=wordpiece(vocab=vocab), added_tokens=[], post_processor=None)
    assert load(tmp_path, section).pad_id == len(TOKENS) - 1
    del vocab["[PAD]"]
    assert load(tmp_path, section).pad_id == 0


def test_a_model_without_a_type_is_known_by_its_limit(tmp_path: Path) -> None:
    model = wordpiece()
    del model["type"]
    assert ids(load(tmp_path, tokenizer_json(model=model)), "hello") == [2, 5, 3]


def template(**changes: Any) -> dict[str, Any]:
    text_a, text_b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    section: dict[str, Any] = {
        "type": "TemplateProcessing",
        "single": [text_a],
        "pair": [text_a, text_b],
        "special_tokens": {},
    }
    return section | changes


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "model BPE"),
        ({"model": {"type": "Unigram", "unk_id": 0, "vocab": []}}, "model Unigram"),
        ({"model": {"vocab": {}}}, "model None"),
        ({"normalizer": {"type": "NFKC"}}, "normalizer NFKC"),
        ({"normalizer": {"type": "Sequence", "normalizers": []}}, "normalizer Sequence"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer Whitespace"),
        ({"pre_tokenizer": None}, "pre_tokenizer None"),
        ({"post_processor": {"type": "RobertaProcessing"}}, "post_processor RobertaProcessing"),
        ({"post_processor": template(single=[])}, r"a template of the texts \[\], not \['A'\]"),
        ({"post_processor": template(single=[{"Sequence": {"id": "A", "type_id": 256}}])}, "type id 256"),
        ({"added_tokens": [special("[SEP]") | {"id": 9}]}, r"added token '\[SEP\]' .* id 9 instead of 3"),
        ({"added_tokens": [special("[SEP]"), special("[SEP]")]}, r"added token '\[SEP\]' twice"),
    ],
)
def test_an_unsupported_feature_is_named(tmp_path: Path, changes: dict[str, Any], feature: str) -> None:
    with pytest.raises(ModelBroken, match=f"tokenizer.json needs {feature}.*does not support"):
        load(tmp_path, tokenizer_json(**changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": wordpiece(unk_token="[NONE]")}, r"unk_token '\[NONE\]' is not in the vocabulary"),
        ({"model": wordpiece(max_input_chars_per_word=-1)}, "max_input_chars_per_word is negative"),
        ({"model": wordpiece(vocab={"[UNK]": 2**31})}, r"a token id is outside 0\.\.2147483647"),
        ({"model": wordpiece(vocab={"[UNK]": -1})}, "a token id is outside"),
        (
            {"post_processor": template(single=[{"SpecialToken": {"id": "x", "type_id": 0}}])},
            "'x' is not among",
        ),
        (
            {"post_processor": {"type": "BertProcessing", "sep": ["x", -3], "cls": ["y", 1]}},
            "special token id -3",
        ),
    ],
)
def test_a_contradiction_is_explained(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelBroken, match=reason):
        load(tmp_path, tokenizer_json(**changes))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 3}', b'{"model": {"type": "WordPiece"}}', b"{}"],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelBroken, match=r"tokenizer\.json is not a tokenizer\.json"):
        load(tmp_path, content)


def test_added_tokens_that_normalise_to_the_same_are_refused(tmp_path: Path) -> None:
    added = [
        special("[SEP]") | {"content": text, "id": 9 + i, "normalized": True}
        for i, text in enumerate(("X", "x"))
    ]
    with pytest.raises(ModelBroken, match="the same as another once normalised"):
        load(tmp_path, tokenizer_json(added_tokens=added))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"cannot read tokenizer\.json: No such file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_a_failed_load_says_nothing_of_the_servers_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken) as caught:
        load(tmp_path, b"{")
    assert str(tmp_path) not in caught.value.message
