"""What is measured: texts, a tokenizer, a batch size, and who takes part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.support.corpus_files import english_passages, english_sentences, udhr_paragraphs

BATCH = 64
_QUERY_BYTES = 64
_QUERIES = 512
PENSTOCK = "penstock"
REFERENCE = "tokenizers 0.23"
_OFFSETS = " with offsets"
_ANY_MODEL = (PENSTOCK, REFERENCE, "tokenizers 1.0", "tokie", "splintr")
_BPE = (*_ANY_MODEL, "fastokens", "gigatoken")
# All competitors whose packages are in the environment of their own, and those packages.
FOREIGN = {
    "tokenizers 1.0": "tokenizers",
    "tokie": "tokie",
    "splintr": "splintr-rs",
    "fastokens": "fastokens",
    "gigatoken": "gigatoken",
}


@dataclass(frozen=True, slots=True)
class Work:
    """One row of the comparison.

    Attributes:
        name: What to call it.
        vocabulary: The tokenizer.json, by its name in tests/support/vocabularies.py.
        texts: Yields the texts.
        count: How many of them.
        contenders: Who takes part.
        batch: Texts a call; 0 for one text a call, by the call meant for one.
        goal: What we want to reach: MB/s up to tensors, or µs a call where ``batch`` is 0.
    """

    name: str
    vocabulary: str
    texts: Callable[[], Iterator[str]]
    count: int
    contenders: tuple[str, ...]
    batch: int = BATCH
    goal: float | None = None

    def write_texts(self, path: Path, divisor: int) -> tuple[int, int]:
        """Writes the texts, or the part of them that a quick run takes; returns their number and bytes."""
        count = self.count if self.batch == 0 else self.count // divisor
        texts = list(islice(self.texts(), count))
        path.write_text(json.dumps(texts), encoding="utf-8")
        return len(texts), sum(len(text.encode()) for text in texts)


def queries() -> Iterator[str]:
    """English sentences' first 64 bytes, such as end with a whole word."""
    for sentence in english_sentences():
        query, rest = sentence[:_QUERY_BYTES], sentence[_QUERY_BYTES:]
        if sentence.isascii() and rest.startswith(" ") and query[-1].isalpha():
            yield query


WORKS: tuple[Work, ...] = (
    Work(
        "BERT uncased, English passages", "bert-base-uncased", english_passages, 4_000, _ANY_MODEL, goal=250
    ),
    Work(
        "BERT uncased, English sentences",
        "bert-base-uncased",
        english_sentences,
        30_000,
        _ANY_MODEL,
        goal=120,
    ),
    Work("mBERT cased, UDHR", "bert-base-multilingual-cased", udhr_paragraphs, 12_362, _ANY_MODEL, goal=80),
    Work("GPT-2, English passages", "gpt2", english_passages, 4_000, _BPE, goal=350),
    Work("RoBERTa, English passages", "roberta-base", english_passages, 4_000, _BPE, goal=350),
    Work("Unigram (XLNet), English passages", "xlnet-ranked", english_passages, 4_000, _ANY_MODEL, goal=100),
    Work(
        "Unigram (XLM-R), English passages",
        "xlm-roberta-ranked",
        english_passages,
        4_000,
        _ANY_MODEL,
        goal=100,
    ),
    Work("Unigram (XLM-R), UDHR", "xlm-roberta-ranked", udhr_paragraphs, 12_362, _ANY_MODEL),
    Work(
        "BERT uncased, one query of 64 bytes a call",
        "bert-base-uncased",
        queries,
        _QUERIES,
        _ANY_MODEL,
        batch=0,
        goal=1.0,
    ),
    Work(
        "BERT uncased with offsets, English passages",
        "bert-base-uncased",
        english_passages,
        4_000,
        (PENSTOCK, PENSTOCK + _OFFSETS, REFERENCE, REFERENCE + _OFFSETS),
    ),
)
