"""The texts of a soak, with the answers that a quiet server gave to each alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock import Classification, Client, Embedding, Tokens
from penstock_server.text.sentences import SentenceCutter
from tests.soak.plan import CLASSIFIER, EMBEDDER

REFERENCE_TEXTS = Path(__file__).parents[1] / "data" / "reference_texts.jsonl"
# Vectors of texts in the pool are less alike than this, so an answer of another text is seen.
COSINE_MAX = 0.95
_TRANSCRIPTS, _TRANSCRIPT_SENTENCES = 8, 5
_SENTENCE_CHARS_MAX = 200

# What was answered for a row: the number of the text whose reference is nearest, and the distance from the
# reference of the text that was asked.
Judgement = tuple[int, float]
NO_TEXT = -1


@dataclass(frozen=True, slots=True)
class References:
    """Texts with their answers.

    Attributes:
        texts: The pool; a text is known by its number.
        transcripts: Growing texts, each with the numbers of its sentences.
        vectors: float32 ``[texts, dimensions]``, unit length.
        logits: float32 ``[texts, labels]``, labels by name.
        tokens: A digest of each text's token ids.
    """

    texts: tuple[str, ...]
    transcripts: tuple[tuple[str, tuple[int, ...]], ...]
    vectors: NDArray[np.float32]
    logits: NDArray[np.float32]
    tokens: tuple[str, ...]

    def judge_vector(self, text: int, answer: Embedding) -> Judgement:
        """Finds whose vector it is; the distance is 1 - cosine."""
        cosines = self.vectors @ answer.to_numpy()
        return int(cosines.argmax()), round(1.0 - float(cosines[text]), 7)

    def judge_labels(self, text: int, answer: Classification) -> Judgement:
        """Compares logits; many texts have nearly the same, so no other text is named."""
        return text, round(float(np.abs(self.logits[text] - logits_of(answer)).max()), 5)

    def judge_tokens(self, text: int, answer: Tokens) -> Judgement:
        """Compares ids."""
        digest = digest_of(answer)
        return (text, 0.0) if digest == self.tokens[text] else (_index(self.tokens, digest), 1.0)

    def save(self, path: Path) -> None:
        """Writes all of it to a file."""
        words = json.dumps([self.texts, self.transcripts, self.tokens])
        np.savez(path, words=np.array(words), vectors=self.vectors, logits=self.logits)

    @classmethod
    def load(cls, path: Path) -> References:
        """Reads what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            texts, transcripts, tokens = json.loads(str(file["words"]))
            grown = tuple((text, tuple(numbers)) for text, numbers in transcripts)
            return cls(tuple(texts), grown, file["vectors"], file["logits"], tuple(tokens))


def compute_references(address: str, count: int) -> References:
    """Asks a quiet server for each text alone, and keeps texts that can be told apart."""
    candidates = _pool(count)
    growing = _transcripts(candidates)
    texts = list(dict.fromkeys([*candidates, *(text for _, cut in growing for text in cut)]))
    with Client(address, timeout_s=60.0) as client:
        vectors = np.stack([client.embed([text], model=EMBEDDER)[0].to_numpy() for text in texts])
        kept = distinct(vectors)
        texts, vectors = [texts[number] for number in kept], vectors[kept]
        labels = [client.classify([text], model=CLASSIFIER, score_function="none")[0] for text in texts]
        tokens = [client.tokenize([text], model=EMBEDDER)[0] for text in texts]
    numbers = {text: number for number, text in enumerate(texts)}
    whole = [
        (text, tuple(numbers[each] for each in cut)) for text, cut in growing if numbers.keys() >= set(cut)
    ]
    assert whole, "no transcript is left whose sentences can be told apart"
    logits = np.stack([logits_of(each) for each in labels])
    return References(tuple(texts), tuple(whole), vectors, logits, tuple(map(digest_of, tokens)))


def distinct(vectors: NDArray[np.float32]) -> list[int]:
    """Numbers of vectors that are unlike all kept before them."""
    kept: list[int] = []
    for number, vector in enumerate(vectors):
        if not kept or float((vectors[kept] @ vector).max()) < COSINE_MAX:
            kept.append(number)
    return kept


def logits_of(answer: Classification) -> NDArray[np.float32]:
    """The scores in the order of the labels' names."""
    return np.array([each.score for each in sorted(answer.labels, key=lambda each: each.label)], np.float32)


def digest_of(tokens: Tokens) -> str:
    """A few bytes that stand for token ids."""
    return hashlib.sha256(repr(tokens.ids).encode()).hexdigest()[:16]


def _pool(count: int) -> list[str]:
    lines = REFERENCE_TEXTS.read_text(encoding="utf-8").splitlines()
    texts: list[str] = [json.loads(line)["text"] for line in lines]
    # Evenly over the file, which is ordered by kind and length.
    step = max(1, len(texts) // count)
    return texts[::step][:count]


def _transcripts(texts: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Growing texts out of the pool's short ones, with the sentences that the server will find."""
    short = [text for text in texts if len(text) <= _SENTENCE_CHARS_MAX]
    made: list[tuple[str, list[str]]] = []
    for number in range(_TRANSCRIPTS):
        chosen = [short[(number * _TRANSCRIPT_SENTENCES + place) % len(short)] for place in range(5)]
        whole = " ".join(chosen)
        made.append((whole, sentences_of(whole)))
    return made


def sentences_of(text: str) -> list[str]:
    """The sentences of a text."""
    cutter = SentenceCutter()
    return [sentence.text for sentence in [*cutter.append(text), *cutter.finish()]]


def _index(digests: Iterable[str], digest: str) -> int:
    return next((number for number, each in enumerate(digests) if each == digest), NO_TEXT)
