"""The texts of a load: real review sentences, whole reviews, or a mix of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from penstock_server.text.sentences import SentenceCutter
from tests.support.reviews import reviews

# Live texts come from the first reviews, bulk rows from those after, so that no row is asked twice at once.
LIVE_REVIEWS = 1_500


class TextKind(StrEnum):
    """What the texts of a load are."""

    SENTENCES = "sentences"
    REVIEWS = "reviews"
    # Nine sentences for each whole review.
    MIXED = "mixed"


def live_texts(kind: TextKind) -> list[str]:
    """Texts for live calls."""
    whole = list(reviews(LIVE_REVIEWS))
    if kind is TextKind.REVIEWS:
        return whole
    sentences = [sentence for review in whole for sentence in sentences_of(review)]
    if kind is TextKind.SENTENCES:
        return sentences
    return sentences[: 9 * len(whole)] + whole


def bulk_texts(kind: TextKind, count: int) -> Iterator[str]:
    """Yields rows for a bulk job."""
    sentences_each = 9 if kind is TextKind.MIXED else None
    for review in reviews(50_000, skip=LIVE_REVIEWS):
        texts = [] if kind is TextKind.REVIEWS else sentences_of(review)[:sentences_each]
        if kind is not TextKind.SENTENCES:
            texts.append(review)
        for text in texts:
            if count <= 0:
                return
            yield text
            count -= 1


def write_bulk_file(path: Path, kind: TextKind, count: int) -> int:
    """Writes rows as JSON lines; returns how many."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for text in bulk_texts(kind, count):
            file.write(json.dumps({"text": text}) + "\n")
            written += 1
    return written


def sentences_of(review: str) -> list[str]:
    """The sentences of a review."""
    cutter = SentenceCutter()
    return [sentence.text for sentence in [*cutter.append(review), *cutter.finish()]]
