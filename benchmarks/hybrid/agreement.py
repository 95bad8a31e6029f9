"""How near the vectors of one model are to those of another, on the texts of live calls."""

from __future__ import annotations

import json

import numpy as np

import penstock
from benchmarks.hybrid.contestants import Contestant
from benchmarks.hybrid.corpora import Corpora
from benchmarks.hybrid.turn import NO_DEADLINE_S, turn

_TEXTS = 500
_TIMEOUT_S = 120.0


def agreement(contestant: Contestant, other_model: str, corpora: Corpora) -> dict[str, float]:
    """Cosines between vectors of normalised models: the mean, the worst, and the worst of a hundred.

    Args:
        contestant: A Penstock server that has both models.
        other_model: The model to compare its own with.
        corpora: Where the texts are.
    """
    texts = [text for text, _ in json.loads(corpora.live.path.read_text(encoding="utf-8"))[:_TEXTS]]
    with turn(contestant, corpora, NO_DEADLINE_S) as running:
        client = penstock.Client(running.address, timeout_s=_TIMEOUT_S)
        with client:
            ours, theirs = (
                client.embed(texts, model=model).to_numpy() for model in (contestant.model, other_model)
            )
    cosines = np.sum(ours * theirs, axis=1)
    return {
        "texts": float(len(texts)),
        "cosine_mean": float(cosines.mean()),
        "cosine_p1": float(np.quantile(cosines, 0.01)),
        "cosine_min": float(cosines.min()),
    }
