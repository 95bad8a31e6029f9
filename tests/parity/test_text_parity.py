"""Every output equals Hugging Face tokenizers 0.23.3, with every vocabulary, on a sample of every corpus.

``make parity`` runs the same over all texts (``python -m tests.parity.full``).
"""

from __future__ import annotations

import random
import time
from functools import cache
from pathlib import Path

import pytest

from penstock_kernels import Tokenizer
from penstock_server.domain.errors import ModelBroken
from penstock_server.text.tokenizer_json import explained, read_spec
from tests.parity.proof import prove, prove_options, prove_tensors
from tests.support.corpora import CORPORA
from tests.support.corpus_stress import giants
from tests.support.token_parity import TokenizerPair
from tests.support.vocabularies import VOCABULARIES, Vocabulary

# Its pre-tokeniser is a regular expression of its own, which Penstock refuses by name.
REFUSED = {"bpe-split-cl100k"}
TEXTS_OF_A_CORPUS = 160


@cache
def sample() -> tuple[str, ...]:
    """Some texts of every corpus that can be had here."""
    texts: list[str] = []
    for corpus in CORPORA:
        if "1024 KiB" not in corpus.name and corpus.unavailable() is None:
            fast = corpus.fast()
            texts += fast[:: max(1, len(fast) // TEXTS_OF_A_CORPUS)][:TEXTS_OF_A_CORPUS]
    random.Random(3).shuffle(texts)
    return tuple(texts)


def available(vocabulary: Vocabulary) -> Vocabulary:
    if reason := vocabulary.unavailable():
        pytest.skip(reason)
    return vocabulary


@pytest.fixture(
    params=[each for each in VOCABULARIES if each.name not in REFUSED],
    ids=lambda each: each.name,
    scope="module",
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenizerPair:
    vocabulary: Vocabulary = request.param
    return TokenizerPair(available(vocabulary).content(), tmp_path_factory.mktemp(vocabulary.name))


def test_texts_of_every_corpus_equal_the_oracle(pair: TokenizerPair) -> None:
    assert prove(pair, sample()) > 1_000


def test_every_option_equals_the_oracle(pair: TokenizerPair) -> None:
    assert prove_options(pair, sample(), random.Random(11), cases=6) > 50


def test_padded_tensors_equal_the_oracle(pair: TokenizerPair) -> None:
    assert prove_tensors(pair, sample(), random.Random(12), cases=4) > 50


def test_eight_times_the_text_takes_about_eight_times_as_long(pair: TokenizerPair) -> None:
    """One character or pattern without end; a quadratic way would take 64 times as long."""
    for text in giants(1 << 16):
        small, large = text[: len(text) // 8], text
        assert cpu_s(pair.native, large) < 24 * cpu_s(pair.native, small) + 5e-3, text[:20]


def cpu_s(tokenizer: Tokenizer, text: str) -> float:
    """The least processor time of some calls."""
    found: list[float] = []
    for _ in range(3):
        begin = time.thread_time()
        tokenizer.encode([text])
        found.append(time.thread_time() - begin)
    return min(found)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_not_computed_is_refused_by_name(name: str) -> None:
    vocabulary = next(each for each in VOCABULARIES if each.name == name)
    content = Path(available(vocabulary).path()).read_bytes()
    with pytest.raises(ModelBroken, match=r"pre_tokenizer Split"), explained("tokenizer.json"):
        read_spec(content)
