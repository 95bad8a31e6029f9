"""The texts that all contestants are asked, in files with their token counts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hybrid.models import MODEL_FOLDER
from benchmarks.hybrid.servers.encoder import open_tokenizer
from benchmarks.texts import TextKind, bulk_texts, live_texts

_LIVE_TEXTS_MAX = 4_000
_SEED = "texts"


@dataclass(frozen=True, slots=True)
class Corpus:
    """A file of texts."""

    path: Path
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Corpora:
    """Texts of live calls and rows of bulk work: never the same ones."""

    live: Corpus
    bulk: Corpus


def write_corpora(folder: Path, kind: TextKind, bulk_rows: int) -> Corpora:
    """Writes both files.

    Bulk rows keep the order of the data set, as a user's file does. Live texts are drawn anew for each call.
    """
    live = live_texts(kind)
    random.Random(_SEED).shuffle(live)
    return Corpora(
        _write(folder / f"live-{kind}.json", live[:_LIVE_TEXTS_MAX]),
        _write(folder / f"bulk-{kind}-{bulk_rows}.json", bulk_texts(kind, bulk_rows)),
    )


def _write(path: Path, texts: Iterable[str]) -> Corpus:
    chosen = list(texts)
    encodings = open_tokenizer(MODEL_FOLDER).encode_batch_fast(chosen)
    counts = [len(encoding.ids) for encoding in encodings]
    path.write_text(json.dumps(list(zip(chosen, counts, strict=True))), encoding="utf-8")
    return Corpus(path, len(chosen), sum(counts))
