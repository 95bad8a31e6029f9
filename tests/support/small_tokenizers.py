"""Small tokenizer.json contents, to change one thing of them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s", "e"]


def added(content: str, token_id: int, **flags: bool) -> Json:
    """An entry of ``added_tokens``."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content} | plain | flags


def special(content: str) -> Json:
    """The entry of one of TOKENS."""
    return added(content, TOKENS.index(content))


def tokenizer_json(**changes: Any) -> Json:
    """A small BERT tokenizer.json; changes replace whole sections."""
    sections: Json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special(token) for token in TOKENS[:5]],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": wordpiece(),
    }
    return sections | changes


def bare(model: Json, **changes: Any) -> Json:
    """A tokenizer.json of nothing but a model."""
    nothing = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    return tokenizer_json(added_tokens=[], model=model, **nothing) | changes


def wordpiece(**changes: Any) -> Json:
    """A WordPiece model of TOKENS."""
    section: Json = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {token: i for i, token in enumerate(TOKENS)},
    }
    return section | changes


def bpe(**changes: Any) -> Json:
    """A BPE model that merges "a" and "b"."""
    section: Json = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {"a": 0, "b": 1, "ab": 2},
        "merges": [["a", "b"]],
    }
    return section | changes


def unigram(**changes: Any) -> Json:
    """A Unigram model of three pieces."""
    section: Json = {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["<unk>", 0.0], ["\u2581a", -1.5], ["b", -2.25]],
        "byte_fallback": False,
    }
    return section | changes


def template(**changes: Any) -> Json:
    """A TemplateProcessing without special tokens."""
    text_a, text_b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    section: Json = {
        "type": "TemplateProcessing",
        "single": [text_a],
        "pair": [text_a, text_b],
        "special_tokens": {},
    }
    return section | changes
