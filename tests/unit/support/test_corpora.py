from __future__ import annotations

from itertools import islice

import pytest

from tests.support.corpora import CORPORA, Corpus, corpus
from tests.support.corpus_stress import MAKERS, adversarial, risk_alphabet

# What needs nothing fetched. The others' counts are as sure, but their packages have 100 MB.
LOCAL = [each for each in CORPORA if not each.needs and not each.needs_reviews]


@pytest.mark.parametrize("local", LOCAL, ids=lambda each: each.name)
def test_a_fast_part_has_as_many_texts_as_promised_and_utf8_can_spell_them(local: Corpus) -> None:
    texts = local.fast()

    assert len(texts) == local.fast_count
    assert all(text.encode() or not text for text in texts)


def test_a_fast_part_of_a_finite_corpus_reaches_its_end() -> None:
    texts = corpus("code points between letters").fast()

    assert texts[0] == "a\0b"
    assert texts[-1] >= "a\U00100000b"


def test_every_scalar_value_is_there_once() -> None:
    texts = list(corpus("code points alone").texts())

    assert len(set(texts)) == len(texts) == 0x110000 - 0x800


def test_seeds_repeat_and_differ() -> None:
    first, again, other = (list(islice(adversarial(seed), 500)) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_adversarial_texts_reach_what_they_are_for() -> None:
    texts = list(islice(adversarial(3), len(MAKERS) * 2_000))
    joined = "\n".join(texts)
    words = {len(word) for text in texts for word in text.split(" ")}

    assert all(token in joined for token in ("[SEP]", "<mask>", "<|endoftext|>", "\0", "\ufffd", "\ue000"))
    assert {99, 100, 101} <= words
    assert {15, 16, 17} <= {len(word.encode()) for text in texts for word in text.split()}


def test_the_risk_alphabet_has_three_thousand_characters() -> None:
    assert len(set(risk_alphabet())) == 3_000


def test_all_corpora_together_have_well_over_ten_million_texts() -> None:
    assert sum(each.count for each in CORPORA) > 20_000_000
    assert len({each.name for each in CORPORA}) == len(CORPORA)
