"""Unigram tokenizers cut as Hugging Face tokenizers does, in every implementation."""

from __future__ import annotations

import base64
import itertools
import json
import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as OracleTokenizer

from penstock_kernels import EncodeOptions
from penstock_kernels._tokenizer import Tokenizer
from penstock_kernels.blob import compile_tokenizer
from penstock_kernels.reference_precompiled import split_charsmap
from penstock_kernels.reference_tokenizer import ReferenceTokens
from penstock_server.text.tokenizer_json import read_spec
from tests.support.charsmaps import charsmap
from tests.support.token_texts import varied_texts

Json = dict[str, Any]
Tokens = list[tuple[int, int, int, int]]

# Deletions, growth, shrinkage, keys that begin with keys, clusters, whitespace of all kinds, and quotes.
ODD_MAP = {
    "a": "",
    "b": "xyz",
    "ab": "Q",
    "c": "c",
    "e\u0301": "\u00e9",
    "\u0301": "",
    "\u0915": "KK",
    "\u00e9": "e",
    "q": " r",
    "\n": " ",
    "\r": " ",
    "\t": " ",
    "\u00a0": " ",
    "\u3000": "",
    "\u00a8": " \u0308",
    "\ufb01": "fi",
    "\u0600": " ",
}
ALPHABET = (
    "abceqxz. \n\r\t\u00a0\u3000\u0301\u00e9\u0915\u094d\u0600\u2028\u2581"
    "\u200b\u200d\ufeff\ufb01\u00a8\x00\x01\u1100\u1161\uac00\u0e33\U0001f1e9'`A\u0130[U]"
)
PIECES: list[tuple[str, float]] = [
    ("<unk>", 0.0),
    ("\u2581", -2.0),
    ("\u2581x", -3.25),
    ("xyz", -3.0),
    ("x", -2.5),
    ("y", -2.5),
    ("xy", -5.0),  # as likely as x and y: of equals, the one that begins first stays
    ("yz", -4.75),
    ("z", -2.25),
    ("e", -3.5),
    ("\u2581.", -4.0),
    (".", -4.5),
    ("K", -6.0),
    ("KK", -8.0),
    ("\u0915\u094d", -7.0),  # not a piece's cut unless unknown characters are joined
    ("fi", -5.5),
    ("\u2581\u2581", -3.0),
    ("[U]", -9.0),
]


def metaspace(scheme: str, *, split: bool = True) -> Json:
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}


def sequence(name: str, *steps: Json) -> Json:
    return {"type": "Sequence", name: list(steps)}


def space_runs(content: str) -> Json:
    return {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": content}


def strip(*, left: bool, right: bool) -> Json:
    return {"type": "Strip", "strip_left": left, "strip_right": right}


def precompiled(replacements: dict[str, str]) -> Json:
    return {
        "type": "Precompiled",
        "precompiled_charsmap": base64.b64encode(charsmap(replacements)).decode(),
    }


PRECOMPILED = precompiled(ODD_MAP)
QUOTES = {"type": "Replace", "pattern": {"String": "``"}, "content": '"'}
WHITESPACE = {"type": "WhitespaceSplit"}
CHAINS: dict[str, tuple[Json | None, Json]] = {
    "xlm-roberta": (PRECOMPILED, sequence("pretokenizers", WHITESPACE, metaspace("always"))),
    "first": (PRECOMPILED, sequence("pretokenizers", WHITESPACE, metaspace("first"))),
    "deberta": (
        sequence("normalizers", strip(left=True, right=True), PRECOMPILED, space_runs(" ")),
        metaspace("always"),
    ),
    "converted": (
        sequence("normalizers", PRECOMPILED, strip(left=False, right=True), space_runs("\u2581")),
        metaspace("first"),
    ),
    "albert": (
        sequence(
            "normalizers",
            QUOTES,
            {"type": "NFKD"},
            {"type": "StripAccents"},
            {"type": "Lowercase"},
            PRECOMPILED,
            space_runs(" "),
        ),
        metaspace("always"),
    ),
    "spaces are words": (PRECOMPILED, metaspace("always")),
    "no prefix": (PRECOMPILED, metaspace("never")),
    "no normaliser": (None, metaspace("always")),
}
UNSPLIT = (PRECOMPILED, metaspace("always", split=False))


def tokenizer_json(chain: tuple[Json | None, Json], *, byte_fallback: bool = False) -> str:
    bytes_ = [(f"<0x{byte:02X}>", -12.0) for byte in range(256)] if byte_fallback else []
    token: Json = {"id": 17, "content": "[U]", "single_word": False, "lstrip": False, "rstrip": False}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [token | {"normalized": True, "special": True}],
            "normalizer": chain[0],
            "pre_tokenizer": chain[1],
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "Unigram",
                "unk_id": 0,
                "byte_fallback": byte_fallback,
                "vocab": [*PIECES, *bytes_],
            },
        }
    )


class Sides:
    """One tokenizer.json in the oracle, the twin, and the native core's two ways."""

    def __init__(self, content: str) -> None:
        spec = read_spec(content.encode())
        blob = compile_tokenizer(spec)
        self.oracle = OracleTokenizer.from_str(content)
        self.twin = ReferenceTokens(spec)
        self.general = Tokenizer(blob, with_fast_path=False)
        self.fast = Tokenizer(blob)

    def check(self, text: str) -> None:
        """Fails unless all four agree; the fast path is asked twice, as it may remember words."""
        expected = self._expected(text)
        # The twin is slow, and does not work in chunks.
        if len(text) < 1000:
            assert [(t.id, t.begin, t.end, t.word) for t in self.twin.tokenize(text)] == expected
        for tokenizer in (self.general, self.fast, self.fast):
            assert native(tokenizer, text) == expected
            assert tokenizer.encode([text]).ids.tolist() == [token[0] for token in expected]

    def _expected(self, text: str) -> Tokens:
        found = self.oracle.encode(text, add_special_tokens=False)
        places = zip(found.ids, found.offsets, found.word_ids, strict=True)
        return [(token_id, begin, end, word or 0) for token_id, (begin, end), word in places]


def native(tokenizer: Tokenizer, text: str) -> Tokens:
    options = EncodeOptions(add_special_tokens=False, return_offsets=True, return_word_ids=True)
    rows = tokenizer.encode([text], options=options)
    assert rows.offsets is not None
    assert rows.word_ids is not None
    places = zip(rows.ids.tolist(), rows.offsets.tolist(), rows.word_ids.tolist(), strict=True)
    return [(token_id, begin, end, word) for token_id, (begin, end), word in places]


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_odd_texts_are_cut_as_the_reference_cuts_them(name: str, *, byte_fallback: bool) -> None:
    sides = Sides(tokenizer_json(CHAINS[name], byte_fallback=byte_fallback))
    assert sides.fast.path_name == "unigram"
    rng = random.Random(7)
    for _ in range(70):
        sides.check("".join(rng.choices(ALPHABET, k=rng.randint(1, 12))))
        sides.check(" ".join("".join(rng.choices(ALPHABET, k=rng.randint(0, 5))) for _ in range(6)))
    for text in varied_texts(30, seed=7):
        sides.check(text)


@pytest.mark.parametrize("name", ["albert", "deberta", "spaces are words"])
def test_separators_meet_where_a_word_between_them_goes(name: str) -> None:
    sides = _sides(name)
    for size in range(5):
        for chars in itertools.product("\r\n\u0301\u3000x", repeat=size):
            sides.check("".join(chars))


@pytest.mark.parametrize("name", ["xlm-roberta", "converted", "albert", "spaces are words"])
def test_marks_may_be_one_cluster_with_the_separator_before_them(name: str) -> None:
    sides = _sides(name)
    rng = random.Random(12)
    for _ in range(600):
        sides.check("".join(rng.choices(" \u00a0\t\n\u0301\u0308\u0903\u094dxq", k=rng.randint(2, 9))))


def test_words_that_are_not_cut_apart_take_the_general_way() -> None:
    sides = Sides(tokenizer_json(UNSPLIT))
    assert sides.fast.path_name == "general"
    for text in varied_texts(40, seed=8):
        sides.check(text)


@pytest.mark.parametrize("replacements", [{" ": "x"}, {" \u0301": "y"}, {"\n": " "}, {"\r": " "}])
def test_maps_that_change_words_by_what_is_around_them_take_the_general_way(
    replacements: dict[str, str],
) -> None:
    sides = Sides(tokenizer_json((precompiled(replacements), metaspace("always"))))
    assert sides.fast.path_name == "general"
    rng = random.Random(9)
    for _ in range(100):
        sides.check("".join(rng.choices("xyz \r\n\u0301", k=8)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(ALPHABET, max_size=20), max_size=8).map(" ".join))
def test_texts_of_risky_characters_are_cut_as_the_reference_cuts_them(text: str) -> None:
    for name in ("xlm-roberta", "deberta", "converted", "albert"):
        _sides(name).check(text)


@cache
def _sides(name: str) -> Sides:
    return Sides(tokenizer_json(CHAINS[name]))


@pytest.mark.parametrize("name", ["xlm-roberta", "deberta", "spaces are words"])
@pytest.mark.parametrize("size", [256, 4095, 4096, 4097])
def test_words_and_spaces_at_the_edges_of_chunks_are_whole(name: str, size: int) -> None:
    sides = Sides(tokenizer_json(CHAINS[name]))
    for filler in ("x y ", "xyz", " ", "\u0915\u094d", "fi\u3000", "y\u00a0\n"):
        text = (filler * size)[:size]
        for ending in ("", " z", "\r\n\r\n\u00e9"):
            sides.check(text + ending)


def test_a_piece_after_an_added_token_begins_anew() -> None:
    sides = Sides(tokenizer_json(CHAINS["converted"]))
    for text in ("x[U]x", "[U] x", " [U]\u00e9 [U]", "x [U", "a[U]a", "[U][U]", "\r\n[U]\r\n"):
        sides.check(text)


def test_a_model_without_unknown_token_is_refused() -> None:
    content = json.loads(tokenizer_json(CHAINS["xlm-roberta"]))
    content["model"]["unk_id"] = None
    with pytest.raises(ValueError, match="unk"):
        Tokenizer(compile_tokenizer(read_spec(json.dumps(content).encode())))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"", "no header"),
        (b"\x00\x00\x00\x00abc\0", "trie of 0 bytes"),
        (b"\xff\xff\x00\x00" + b"\0" * 64, "trie of 65535 bytes"),
        (b"\x04\x00\x00\x00" + b"\0" * 4 + b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_malformed_charsmap_is_refused(broken: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_charsmap(broken)
