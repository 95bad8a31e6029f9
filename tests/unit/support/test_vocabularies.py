from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from tests.support import vocabulary_parts as parts
from tests.support.vocabularies import VOCABULARIES, vocabulary


def test_merges_are_worked_out_of_pieces_in_order() -> None:
    letters = [bytes([byte]) for byte in range(256)]
    merges = parts.merges_of([*letters, b"ab", b"bc", b"abc", b" a"])

    # "abc" is "ab" and "c", not "a" and "bc": the earlier merge comes first.
    assert merges == [("a", "b"), ("b", "c"), ("ab", "c"), ("Ġ", "a")]


def test_made_up_scores_fall_with_the_rank_behind_the_special_tokens() -> None:
    scores = parts.ranked_scores(["<s>", "a", "b", "c"], 1)

    assert scores[0] == ("<s>", 0.0)
    assert [piece for piece, _ in sorted(scores[1:], key=lambda scored: -scored[1])] == ["a", "b", "c"]


def test_names_are_unique() -> None:
    assert len({each.name for each in VOCABULARIES}) == len(VOCABULARIES)


# Ids that the published tokenizers are known to give: what "real" rests on.
KNOWN = {
    "bert-base-uncased": [101, 7592, 2088, 102],
    "bert-base-cased": [101, 8667, 1362, 102],
    "gpt2": [15496, 995],
    "roberta-base": [0, 31414, 232, 2],
    "xlm-roberta-ranked": [0, 35378, 8999, 2],
}


@pytest.mark.parametrize("name", KNOWN)
def test_real_pieces_have_the_published_ids(name: str) -> None:
    source = vocabulary(name)
    reason = source.unavailable()
    if reason is not None:
        pytest.skip(reason)
    text = "Hello world"

    assert Tokenizer.from_str(json.dumps(source.build())).encode(text).ids == KNOWN[name]


def test_pieces_read_from_blingfire_are_those_of_the_published_file() -> None:
    published = vocabulary("bert-base-uncased")
    reason = published.unavailable() or vocabulary("bert-base-cased").unavailable()
    if reason is not None:
        pytest.skip(reason)
    specials = {100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}

    assert parts.wordpieces("bert_base_tok", specials) == published.build()["model"]["vocab"]
