"""The server's tokenizer: texts to rows, as a tokenizer.json says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_server.domain.errors import ModelBroken
from penstock_server.domain.tasks import Truncation
from penstock_server.text.tokenizer import Tokenizer, TokenizerLimits
from tests.support.small_tokenizers import (
    TOKENS,
    added,
    bare,
    bpe,
    template,
    tokenizer_json,
    unigram,
    wordpiece,
)


def load(folder: Path, content: dict[str, Any]) -> Tokenizer:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content))
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
    with pytest.raises(ValueError, match="no token with id 9"):
        tokenizer.tokens([9])


def test_bpe_and_unigram_tokenizers_load_and_encode(tmp_path: Path) -> None:
    assert ids(load(tmp_path, bare(bpe())), "abba") == [2, 1, 0]
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"}
    assert ids(load(tmp_path, bare(unigram(), pre_tokenizer=metaspace)), "ab a") == [1, 2, 1]


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


def test_special_tokens_and_offsets_are_each_calls_own(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, tokenizer_json())
    rows = tokenizer.encode(
        ["hello e"],
        tokens_max=None,
        truncation=Truncation.RIGHT,
        add_special_tokens=False,
        return_offsets=True,
    )
    assert rows.ids.tolist() == [5, 8]
    assert rows.offsets is not None
    assert rows.offsets.tolist() == [[0, 5], [6, 7]]
    assert tokenizer.encode(["e"], tokens_max=None, truncation=Truncation.RIGHT).offsets is None


def test_a_column_is_encoded_as_its_texts_are(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, tokenizer_json())
    texts, pairs = ["hello world", "", "e"], ["e", "world", ""]
    rows = tokenizer.encode(texts, pairs, tokens_max=5, truncation=Truncation.RIGHT)
    column = tokenizer.encode_arrow(
        "".join(texts).encode(),
        np.array([0, 11, 11, 12], np.int32),
        pair_data="".join(pairs).encode(),
        pair_offsets=np.array([0, 1, 6, 6], np.int64),
        tokens_max=5,
        truncation=Truncation.RIGHT,
    )
    assert column.ids.tolist() == rows.ids.tolist()
    assert column.starts.tolist() == rows.starts.tolist()
    assert column.type_ids.tolist() == rows.type_ids.tolist()


def test_a_limit_below_the_special_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, tokenizer_json())
    with pytest.raises(ValueError, match="tokens_max is 1, below the special tokens"):
        tokenizer.encode(["e"], tokens_max=1, truncation=Truncation.RIGHT)


def test_bytes_that_are_not_utf8_make_an_invalid_row(tmp_path: Path) -> None:
    rows = load(tmp_path, tokenizer_json()).encode(
        [b"e", b"\xff"], tokens_max=None, truncation=Truncation.RIGHT
    )
    assert rows.valid.tolist() == [True, False]
    assert rows.lengths.tolist() == [3, 0]


@pytest.mark.parametrize("cache_bytes", [1, 4 << 20])
def test_a_small_cache_changes_nothing(tmp_path: Path, cache_bytes: int) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_json()))
    tokenizer = Tokenizer.from_file(path, TokenizerLimits(cache_bytes, threads_max=1))
    assert [ids(tokenizer, "Hello worlds") for _ in range(2)] == [[2, 5, 6, 7, 3]] * 2


@pytest.mark.parametrize(("lowercase", "expected"), [(True, [2, 8, 3]), (False, [2, 1, 3])])
def test_accents_are_stripped_as_lowercase_says_if_nothing_else_does(
    tmp_path: Path, lowercase: bool, expected: list[int]
) -> None:
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "lowercase": lowercase,
    }
    assert ids(load(tmp_path, tokenizer_json(normalizer=normalizer)), "é") == expected


def test_the_pad_id_is_that_of_the_pad_token(tmp_path: Path) -> None:
    vocab = {token: i for i, token in enumerate(reversed(TOKENS))}
    section = tokenizer_json(model=wordpiece(vocab=vocab), added_tokens=[], post_processor=None)
    assert load(tmp_path, section).pad_id == len(TOKENS) - 1
    del vocab["[PAD]"]
    assert load(tmp_path, section).pad_id == 0


def test_a_template_may_use_ids_that_no_token_has(tmp_path: Path) -> None:
    far = {"x": {"id": "x", "ids": [99], "tokens": ["x"]}}
    single = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "x", "type_id": 0}}]
    tokenizer = load(tmp_path, tokenizer_json(post_processor=template(single=single, special_tokens=far)))
    assert ids(tokenizer, "e") == [8, 99]
    assert tokenizer.vocab_size == len(TOKENS)


def test_ids_that_no_table_could_hold_are_refused(tmp_path: Path) -> None:
    vocab = {"[UNK]": 0, "e": 1 << 24}
    with pytest.raises(ModelBroken, match=r"contradicts itself: token id 16777216 is outside 0\.\.16777215"):
        load(tmp_path, bare(wordpiece(vocab=vocab)))


def test_added_tokens_that_normalise_to_the_same_are_refused(tmp_path: Path) -> None:
    tokens = [added(text, 9 + i, normalized=True) for i, text in enumerate(("X", "x"))]
    with pytest.raises(ModelBroken, match=r"contradicts itself: .*the same as another"):
        load(tmp_path, tokenizer_json(added_tokens=tokens))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"cannot read tokenizer\.json: No such file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_a_failed_load_says_nothing_of_the_servers_folders(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"{")
    with pytest.raises(ModelBroken) as caught:
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert str(tmp_path) not in caught.value.message
