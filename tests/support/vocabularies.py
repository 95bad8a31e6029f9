"""Named tokenizer.json contents to prove tokenizers on, built from pinned packages and kept under data/.

    for vocabulary in VOCABULARIES:
        if vocabulary.unavailable() is None:
            check(vocabulary.path())

``origin`` says how real each is: no registry has every famous file whole, and none is called what it is not.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.support import published_vocabularies as published
from tests.support import trained_vocabularies as trained
from tests.support.packages import (
    AEGIS_NLI,
    BLINGFIRE,
    MODEL2VEC,
    ROOT,
    SENTENCEPIECE,
    WORDFREQ,
    Archive,
    Unavailable,
    fetch,
)
from tests.support.vocabulary_parts import Json

FOLDER = ROOT / "data" / "vocabularies"
# Counted up when a recipe changes, so that files of the old one are not taken for the new.
_EDITION = 1


class Family(StrEnum):
    """The model in the file."""

    WORDPIECE = "WordPiece"
    BPE = "BPE"
    UNIGRAM = "Unigram"


class Origin(StrEnum):
    """How real a vocabulary is."""

    # A published tokenizer.json, or one equal to it in all that decides ids.
    REAL = "real"
    # The published pieces in their order, with scores made up from the rank.
    PIECES = "real pieces, made-up scores"
    # Published pieces in a pipeline of another model.
    SHAPE = "real pieces in another model's pipeline"
    TRAINED = "trained here"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer.json.

    Attributes:
        name: What to call it in reports; also its file's name.
        family: Its model.
        origin: How real it is.
        build: Makes the content.
        needs: Packages that it is built from.
    """

    name: str
    family: Family
    origin: Origin
    build: Callable[[], Json]
    needs: tuple[Archive, ...] = ()

    def path(self) -> Path:
        """The file under ``data/vocabularies``, built if it is not there.

        Raises:
            Unavailable: As `unavailable` says.
        """
        path = FOLDER / f"{self.name}.{_EDITION}.json"
        if not path.is_file():
            FOLDER.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
                built = Path(scratch) / path.name
                built.write_text(json.dumps(self.build(), ensure_ascii=False), encoding="utf-8")
                os.replace(built, path)
        return path

    def content(self) -> Json:
        """The content of the file, for changing it; truncation and padding are null.

        Raises:
            Unavailable: As `unavailable` says.
        """
        content: dict[str, Any] = json.loads(self.path().read_text(encoding="utf-8"))
        return content

    def unavailable(self) -> str | None:
        """Why it cannot be built here, or None if it can; fetches what it needs."""
        try:
            for archive in self.needs:
                fetch(archive)
        except Unavailable as err:
            return str(err)
        return None


def _trained(name: str, shape: trained.Shape) -> Vocabulary:
    needs = (WORDFREQ, SENTENCEPIECE) if shape.needs_charsmap else (WORDFREQ,)
    return Vocabulary(name, Family(shape.family), Origin.TRAINED, shape.train, needs)


_WP, _BPE, _UNI = Family.WORDPIECE, Family.BPE, Family.UNIGRAM
_BF_SP = (BLINGFIRE, SENTENCEPIECE)
VOCABULARIES: tuple[Vocabulary, ...] = (
    Vocabulary("bert-base-uncased", _WP, Origin.REAL, published.bert_base_uncased, (MODEL2VEC,)),
    Vocabulary(
        "bert-base-cased",
        _WP,
        Origin.REAL,
        lambda: published.bert("bert_base_cased_tok", lowercase=False),
        (BLINGFIRE,),
    ),
    Vocabulary(
        "bert-base-multilingual-cased",
        _WP,
        Origin.REAL,
        lambda: published.bert("bert_multi_cased", lowercase=False),
        (BLINGFIRE,),
    ),
    Vocabulary(
        "bert-base-chinese",
        _WP,
        Origin.REAL,
        lambda: published.bert("bert_chinese", lowercase=True),
        (BLINGFIRE,),
    ),
    Vocabulary("gpt2", _BPE, Origin.REAL, published.gpt2, (BLINGFIRE,)),
    Vocabulary("roberta-base", _BPE, Origin.REAL, published.roberta, (BLINGFIRE,)),
    Vocabulary("modernbert-shape", _BPE, Origin.SHAPE, published.modernbert_shape, (BLINGFIRE,)),
    Vocabulary("deberta-v3", _UNI, Origin.REAL, published.deberta_v3, (AEGIS_NLI,)),
    Vocabulary("xlm-roberta-ranked", _UNI, Origin.PIECES, published.xlm_roberta, _BF_SP),
    Vocabulary("xlnet-ranked", _UNI, Origin.PIECES, published.xlnet, _BF_SP),
    Vocabulary("albert-shape", _UNI, Origin.SHAPE, published.albert_shape, _BF_SP),
    Vocabulary("deberta-v2-shape", _UNI, Origin.SHAPE, published.deberta_v2_shape, _BF_SP),
    Vocabulary(
        "kyoto-unigram",
        _UNI,
        Origin.REAL,
        lambda: published.sentencepiece_model("kyoto_ja_unigram_8000"),
        (SENTENCEPIECE,),
    ),
    Vocabulary(
        "botchan-unigram",
        _UNI,
        Origin.REAL,
        lambda: published.sentencepiece_model("botchan_en_unigram_1000"),
        (SENTENCEPIECE,),
    ),
    *(_trained(name, shape) for name, shape in trained.SHAPES.items()),
)


def vocabulary(name: str) -> Vocabulary:
    """The vocabulary of a name.

    Raises:
        KeyError: There is none of that name.
    """
    return {each.name: each for each in VOCABULARIES}[name]
