"""BPE: the native core, with its fast path and without, and its twin cut as Hugging Face tokenizers does."""

from __future__ import annotations

import json
import random
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as OracleTokenizer
from tokenizers import models, pre_tokenizers, trainers

from penstock_kernels import EncodeOptions, Tokenizer
from penstock_kernels.blob import compile_tokenizer
from penstock_kernels.reference_bpe import ReferenceBpe
from penstock_kernels.reference_tokenizer import ReferenceTokens
from penstock_kernels.spec import Bpe, TokenizerSpec
from tests.support.token_parity import IDS_ONLY, TokenizerPair
from tests.support.token_texts import varied_texts

# Around GPT-2's regex: contractions, whitespace of one to three bytes, letters and numbers that are no ASCII;
# marks and jamo for the normalisers.
RISKY = (
    "'strevmld SaZ019 \t\n\r\x0b\x1c\x85\u00a0\u2009\u3000.,!-_"
    "\u00e9\u00df\u4e2d\uac00\u00bd\u00b2\u0663\u2167\u0301\u0316\u0323\u1100\u1161\u200b\U0001f600\U0001d7d8\U000105c0"
)
KINDS = {
    "plain": (False, None, False),
    "prefix space": (True, None, False),
    "whole words": (True, None, True),
    "NFC": (False, "NFC", False),
    "NFKC": (True, "NFKC", False),
}


def tokenizer_json(model: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json of nothing but a BPE model."""
    parts = ["truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"]
    return dict.fromkeys(parts) | {"version": "1.0", "added_tokens": [], "model": model}


@cache
def trained() -> str:
    """A byte-level tokenizer.json, trained on generated texts."""
    tokenizer = OracleTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1200, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([*varied_texts(400, seed=5), "we'll say it's don't " * 30], trainer)
    return tokenizer.to_str()


@cache
def byte_level(kind: str, folder: Path) -> TokenizerPair:
    """The trained tokenizer with the options of a kind."""
    add_prefix_space, form, ignore_merges = KINDS[kind]
    content = json.loads(trained())
    content["pre_tokenizer"]["add_prefix_space"] = add_prefix_space
    content["model"]["ignore_merges"] = ignore_merges
    content["normalizer"] = None if form is None else {"type": form}
    return TokenizerPair(content, folder / kind)


def check(pair: TokenizerPair, texts: list[str], twin: ReferenceTokens | None = None) -> None:
    """Native, cold and warm, and the twin against the oracle."""
    pair.check(texts, tokenizers=(pair.cold(), pair.native, pair.general))
    pair.check(texts, case=IDS_ONLY)
    twin = twin or ReferenceTokens(pair.spec)
    for text in texts:
        expected = pair.oracle.encode(text, add_special_tokens=False)
        tokens = twin.tokenize(text)
        assert [token.id for token in tokens] == expected.ids, repr(text)
        assert [(token.begin, token.end) for token in tokens] == expected.offsets, repr(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bpe")


@pytest.mark.parametrize("kind", KINDS)
def test_byte_level_tokens_equal_the_oracles(kind: str, folder: Path) -> None:
    pair = byte_level(kind, folder)
    assert pair.native.path_name == "byte-level"
    rng = random.Random(3)
    risky = ["".join(rng.choices(RISKY, k=rng.choice([1, 2, 3, 8, 40, 90]))) for _ in range(600)]
    check(pair, [*varied_texts(300, seed=6), *risky])


@pytest.mark.parametrize("kind", KINDS)
def test_byte_level_tokens_equal_the_oracles_at_every_edge_of_a_block(kind: str, folder: Path) -> None:
    pair = byte_level(kind, folder)
    edges = ["'ll", "'s", "  x", "\n\nx", "\u3000\u3000x", " \u00a0x", "\u4e2d1", "x" * 15, " " + "y" * 16]
    texts = [
        "a" * before + edge + after for before in range(58, 66) for edge in edges for after in ("", "b c")
    ]
    check(pair, texts)


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), text=st.text(alphabet=RISKY, max_size=80))
@example(kind="prefix space", text="\n")
@example(kind="prefix space", text="'s's")
def test_byte_level_tokens_equal_the_oracles_on_any_text(kind: str, text: str, folder: Path) -> None:
    check(byte_level(kind, folder), [text])


def odd_model(rng: random.Random) -> dict[str, Any]:
    """A BPE model of few characters with any of the options."""
    prefix, suffix = rng.choice(["", "", "##", "\u00e9"]), rng.choice(["", "", "</w>"])
    known = [c for c in "abcde\u00e9\u4e2d" if rng.random() < 0.75]
    tokens = [f"{p}{c}{s}" for c in known for p in {"", prefix} for s in {"", suffix}]
    unknown = "<unk>" if rng.random() < 0.7 else None
    tokens += [] if unknown is None else [unknown]
    byte_fallback = not prefix and not suffix and rng.random() < 0.5
    tokens += [f"<0x{byte:02X}>" for byte in range(256) if byte_fallback and rng.random() < 0.97]
    merges: list[list[str]] = []
    for _ in range(rng.randrange(30) if tokens else 0):
        left, right = rng.choice(tokens), rng.choice(tokens)
        if right.startswith(prefix):
            tokens.append(left + right[len(prefix) :])
            merges.append([left, right])
    # Of equal merges the last counts.
    merges += rng.choices(merges, k=3) if merges and rng.random() < 0.5 else []
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": prefix or None,
        "end_of_word_suffix": suffix or None,
        "fuse_unk": rng.random() < 0.5,
        "byte_fallback": byte_fallback,
        "ignore_merges": rng.random() < 0.3,
        "vocab": {token: index for index, token in enumerate(dict.fromkeys(tokens))},
        "merges": merges,
    }


@pytest.mark.parametrize("seed", range(60))
def test_models_with_any_options_equal_the_oracle(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    pair = TokenizerPair(tokenizer_json(odd_model(rng)), tmp_path)
    texts = [
        "".join(rng.choices("abcde\u00e9\u4e2dfz", k=rng.choice([1, 2, 3, 6, 20, 60]))) for _ in range(60)
    ]
    check(pair, texts)


def test_byte_fallback_with_a_prefix_is_refused() -> None:
    model = Bpe({"a": 0, "##a": 1}, (), continuing_prefix="##", byte_fallback=True)
    with pytest.raises(ValueError, match="byte_fallback"):
        ReferenceBpe(model)
    with pytest.raises(ValueError, match="byte_fallback"):
        Tokenizer(compile_tokenizer(TokenizerSpec(model)))


def test_merges_of_unknown_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        ReferenceBpe(Bpe({"a": 0, "b": 1}, (("a", "b"),)))


@pytest.mark.parametrize("part", ["a", "ab", " ", "\n", "'", "'s", "\u3000", "\u4e2d", "<"])
def test_a_megabyte_of_anything_takes_bounded_time(part: str, folder: Path) -> None:
    pair = byte_level("prefix space", folder)
    text = part * (1_000_000 // len(part.encode()))
    for tokenizer in (pair.native, pair.general):
        begin = time.process_time()
        rows = tokenizer.encode([text], options=EncodeOptions())
        # A fifth of a second here; a quadratic way would take hours.
        assert time.process_time() - begin < 20
        assert rows.rows == 1
