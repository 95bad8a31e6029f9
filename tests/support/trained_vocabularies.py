"""Small tokenizers trained with the reference, in settings that published ones seldom have."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from random import Random
from typing import Any

from tokenizers import Tokenizer, trainers

from tests.support import vocabulary_parts as parts
from tests.support.corpus_files import word_salad
from tests.support.token_texts import english
from tests.support.vocabulary_parts import Json

_TEXTS = 12_000
# Unigram training is slow, and its vocabulary must hold every character of the texts.
_UNIGRAM_TEXTS = 1_500
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MIN_FREQUENCY = 2
_BYTE_SCORE = -12.0
# The pattern of cl100k and its relatives, whose tokenizers split before they map bytes.
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@cache
def _texts(multilingual: int) -> tuple[str, ...]:
    rng = Random("training")
    return (*islice(word_salad(1), multilingual), *(english(rng) for _ in range(_TEXTS // 4)))


@dataclass(frozen=True, slots=True)
class Shape:
    """A tokenizer to train.

    Attributes:
        family: WordPiece, BPE or Unigram.
        size: Entries of its vocabulary.
        model: Settings of the model.
        sections: The other sections of the file; a callable one is made when it is needed.
        tokens: Added tokens beside the special ones, with their flags; ids follow the vocabulary's.
        charsmap: SentencePiece's normalisation table to put in front of the normalizer, if any.
        flat_scores: Whether all scores become whole numbers, so that many splits are equally good.
        byte_pieces: Whether a piece for every byte is added.
        english_only: Whether texts of other languages are left out, for a small alphabet.
    """

    family: str
    size: int
    model: Json = field(default_factory=dict[str, Any])
    sections: Json = field(default_factory=dict[str, Any])
    tokens: tuple[tuple[str, dict[str, bool]], ...] = ()
    charsmap: str | None = None
    flat_scores: bool = False
    byte_pieces: bool = False
    english_only: bool = False

    @property
    def needs_charsmap(self) -> bool:
        """Whether the sentencepiece package is needed."""
        return self.charsmap is not None

    def train(self) -> Json:
        """Trains it; some seconds.

        Raises:
            Unavailable: The texts or the normalisation table cannot be fetched.
        """
        sections = dict(self.sections)
        if self.charsmap is not None:
            steps = [parts.precompiled(parts.charsmap(self.charsmap))]
            steps += [sections["normalizer"]] if sections.get("normalizer") else []
            sections["normalizer"] = parts.sequence("normalizers", steps)
        content = self._trained(
            parts.tokenizer_json(self._empty_model(), **{**sections, "post_processor": None})
        )
        model = content["model"] | self.model
        if self.byte_pieces:
            _add_byte_pieces(model)
        if self.flat_scores:
            model["vocab"] = [[piece, float(round(score))] for piece, score in model["vocab"]]
        tokens = _added_tokens(self.tokens, model)
        content |= {"model": model, "added_tokens": [*content["added_tokens"], *tokens]}
        return content | {"post_processor": sections.get("post_processor", _TEMPLATE)}

    def _empty_model(self) -> Json:
        empty: Json = {"type": self.family, "vocab": {}}
        if self.family == "Unigram":
            unigram: Json = {"unk_id": None, "vocab": [], "byte_fallback": False}
            return empty | unigram
        if self.family == "BPE":
            merges: Json = {"merges": []}
            return empty | merges | self.model
        empty |= {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
        return empty | self.model

    def _trained(self, untrained: Json) -> Json:
        tokenizer = Tokenizer.from_str(json.dumps(untrained))
        multilingual = 0 if self.english_only else _UNIGRAM_TEXTS if self.family == "Unigram" else _TEXTS
        tokenizer.train_from_iterator(_texts(multilingual), self._trainer())
        content: Json = json.loads(tokenizer.to_str())
        return content

    def _trainer(self) -> Any:
        common: Json = {"vocab_size": self.size, "special_tokens": list(_SPECIALS), "show_progress": False}
        if self.family == "Unigram":
            return trainers.UnigramTrainer(unk_token="[UNK]", **common)
        prefix = self.model.get("continuing_subword_prefix")
        if self.family == "WordPiece":
            return trainers.WordPieceTrainer(
                min_frequency=_MIN_FREQUENCY,
                continuing_subword_prefix="##" if prefix is None else prefix,
                **common,
            )
        suffix = (
            {"end_of_word_suffix": self.model["end_of_word_suffix"]}
            if "end_of_word_suffix" in self.model
            else {}
        )
        alphabet = list(parts.byte_characters()) if _is_byte_level(self.sections) else []
        return trainers.BpeTrainer(
            min_frequency=_MIN_FREQUENCY, initial_alphabet=alphabet, **suffix, **common
        )


def _added_tokens(wanted: tuple[tuple[str, dict[str, bool]], ...], model: Json) -> list[Json]:
    """Added tokens with the ids that the reference gives them: the vocabulary's, else the next free one."""
    vocab = model["vocab"]
    is_unigram = model["type"] == "Unigram"
    known: dict[str, int] = {piece: i for i, (piece, _) in enumerate(vocab)} if is_unigram else vocab
    tokens: list[Json] = []
    free = len(known)
    for text, flags in wanted:
        token_id = known.get(text, free)
        free += token_id == free
        tokens.append(parts.added(token_id, text, special=False, **flags))
    return tokens


def _is_byte_level(sections: Json) -> bool:
    return "ByteLevel" in json.dumps(sections.get("pre_tokenizer"))


def _add_byte_pieces(model: Json) -> None:
    """Gives every byte a piece, which byte_fallback wants all of or none."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    if isinstance(model["vocab"], list):
        model["vocab"] += [[name, _BYTE_SCORE] for name in names]
    else:
        model["vocab"] |= {name: len(model["vocab"]) + index for index, name in enumerate(names)}


def _bert(**settings: Any) -> Json:
    normalizer: Json = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    normalizer |= {"strip_accents": None, "lowercase": True} | settings
    return {"normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}}


def _split_by(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _roberta(*, add_prefix_space: bool, trim_offsets: bool) -> Json:
    return {
        "pre_tokenizer": parts.byte_level_step(add_prefix_space=add_prefix_space, trim_offsets=trim_offsets),
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["[SEP]", 3],
            "cls": ["[CLS]", 2],
            "trim_offsets": trim_offsets,
            "add_prefix_space": add_prefix_space,
        },
    }


def _metaspace(prepend_scheme: str = "always", *, split: bool = True, spaces_first: bool = False) -> Json:
    step = parts.metaspace(prepend_scheme, split)
    if not spaces_first:
        return {"pre_tokenizer": step}
    return {"pre_tokenizer": parts.sequence("pretokenizers", [{"type": "WhitespaceSplit"}, step])}


_TEMPLATE = parts.template("[CLS] A [SEP]", "[CLS] A [SEP] B:1 [SEP]:1", {"[CLS]": 2, "[SEP]": 3})
_NO_REGEX = parts.byte_level_step(use_regex=False)
_ODD_TOKENS: tuple[tuple[str, dict[str, bool]], ...] = (
    ("foo", {"single_word": True}),
    ("fo", {}),
    ("the end", {"normalized": True}),
    ("Bàr", {"normalized": True, "lstrip": True}),
    (" o", {"rstrip": True}),
    ("<b>", {"lstrip": True, "rstrip": True}),
    ("\u0301", {}),
    ("中文", {"normalized": True, "single_word": True}),
)

SHAPES: dict[str, Shape] = {
    "wordpiece-uncased": Shape("WordPiece", 4_000, {}, _bert()),
    "wordpiece-tiny": Shape("WordPiece", 300, {}, _bert()),
    "wordpiece-cased": Shape("WordPiece", 8_000, {}, _bert(lowercase=False)),
    "wordpiece-accents": Shape("WordPiece", 6_000, {}, _bert(strip_accents=False)),
    "wordpiece-strip-cased": Shape("WordPiece", 4_000, {}, _bert(lowercase=False, strip_accents=True)),
    "wordpiece-raw": Shape(
        "WordPiece",
        6_000,
        {},
        _bert(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False),
    ),
    "wordpiece-prefix-at": Shape("WordPiece", 4_000, {"continuing_subword_prefix": "@@"}, _bert()),
    "wordpiece-short-words": Shape("WordPiece", 4_000, {"max_input_chars_per_word": 10}, _bert()),
    "wordpiece-odd-tokens": Shape("WordPiece", 4_000, {}, _bert(), _ODD_TOKENS),
    "bpe-bytes": Shape("BPE", 6_000, {}, _roberta(add_prefix_space=False, trim_offsets=True)),
    "bpe-bytes-tiny": Shape("BPE", 400, {}, _roberta(add_prefix_space=False, trim_offsets=False)),
    "bpe-prefix-space": Shape("BPE", 6_000, {}, _roberta(add_prefix_space=True, trim_offsets=True)),
    "bpe-prefix-space-untrimmed": Shape(
        "BPE", 4_000, {}, _roberta(add_prefix_space=True, trim_offsets=False)
    ),
    "bpe-odd-tokens": Shape(
        "BPE", 4_000, {}, _roberta(add_prefix_space=True, trim_offsets=True), _ODD_TOKENS
    ),
    "bpe-nfc-tokens": Shape(
        "BPE",
        4_000,
        {},
        {"normalizer": {"type": "NFC"}, "pre_tokenizer": parts.byte_level_step()},
        (*(((" " * length), {"normalized": True}) for length in range(8, 1, -1)), *_ODD_TOKENS),
    ),
    "bpe-no-regex": Shape("BPE", 3_000, {}, {"pre_tokenizer": _NO_REGEX}),
    "bpe-ignore-merges": Shape(
        "BPE", 4_000, {"ignore_merges": True}, {"pre_tokenizer": parts.byte_level_step()}
    ),
    "bpe-split-cl100k": Shape(
        "BPE",
        4_000,
        {},
        {"pre_tokenizer": parts.sequence("pretokenizers", [_split_by(_CL100K), _NO_REGEX])},
    ),
    "bpe-clip": Shape(
        "BPE",
        4_000,
        {"end_of_word_suffix": "</w>", "unk_token": "[UNK]"},
        {
            "normalizer": parts.sequence("normalizers", [{"type": "NFC"}, {"type": "Lowercase"}]),
            "pre_tokenizer": {"type": "Whitespace"},
        },
    ),
    "bpe-metaspace-bytes": Shape(
        "BPE",
        4_000,
        {"unk_token": "[UNK]", "fuse_unk": True, "byte_fallback": True},
        _metaspace("first"),
        byte_pieces=True,
    ),
    "unigram-always": Shape("Unigram", 4_000, {}, _metaspace()),
    "unigram-first": Shape("Unigram", 4_000, {}, _metaspace("first")),
    "unigram-never": Shape("Unigram", 4_000, {}, _metaspace("never")),
    "unigram-unsplit": Shape("Unigram", 4_000, {}, _metaspace(split=False)),
    "unigram-tiny": Shape("Unigram", 300, {}, _metaspace(spaces_first=True), english_only=True),
    "unigram-ties": Shape("Unigram", 4_000, {}, _metaspace(spaces_first=True), flat_scores=True),
    "unigram-bytes": Shape(
        "Unigram", 1_000, {"byte_fallback": True}, _metaspace(), byte_pieces=True, english_only=True
    ),
    "unigram-nmt-nfkc": Shape("Unigram", 4_000, {}, _metaspace(spaces_first=True), charsmap="nmt_nfkc"),
    "unigram-nfkc-cf": Shape("Unigram", 4_000, {}, _metaspace(), charsmap="nfkc_cf"),
    "unigram-odd-tokens": Shape(
        "Unigram", 4_000, {}, _metaspace("first"), _ODD_TOKENS, charsmap="nmt_nfkc_cf"
    ),
}
