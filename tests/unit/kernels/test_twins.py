"""Every native kernel computes what its plain Python twin does."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

import penstock_kernels._batch as native_batch
import penstock_kernels._wordpiece as native_wordpiece
from penstock_kernels import AddedToken, IndexArray, Slot, TemplatePiece, TokenRows, WordPieceSpec, reference
from tests.support.token_oracle import unpack
from tests.support.token_texts import varied_texts

CLS, SEP = TemplatePiece(Slot.SPECIAL, token_id=2), TemplatePiece(Slot.SPECIAL, token_id=3)


def spec_for(texts: list[str], **settings: bool | int) -> WordPieceSpec:
    """Spells any of the texts; has added tokens of every kind."""
    characters = sorted({c for text in texts for c in text} | set("abcdefghijklmnopqrstuvwxyz"))
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *characters,
        *("##" + c for c in characters),
        "the",
        "##ing",
    ]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return WordPieceSpec(
        vocabulary=vocabulary,
        unknown_id=1,
        added_tokens=(
            AddedToken("[SEP]", 3),
            AddedToken("[MASK]", len(vocabulary), lstrip=True, rstrip=True),
            AddedToken("of", len(vocabulary) + 1, single_word=True, normalized=True),
            AddedToken("Was HE", len(vocabulary) + 2, rstrip=True, normalized=True),
        ),
        single=(CLS, TemplatePiece(Slot.FIRST), SEP),
        pair=(CLS, TemplatePiece(Slot.FIRST), SEP, TemplatePiece(Slot.SECOND, type_id=1), SEP),
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lowercase": False, "strip_accents": False},
        {"strip_accents": False, "word_chars_max": 4},
        {"lowercase": False},
        {"clean_text": False, "handle_chinese_chars": False},
    ],
)
def test_wordpiece_equals_its_twin(settings: dict[str, bool | int]) -> None:
    texts = varied_texts(200, seed=21)
    pairs: list[str | bytes | None] = [None if i % 3 else text for i, text in enumerate(reversed(texts))]
    spec = spec_for(texts, **settings)
    native, twin = native_wordpiece.WordPieceTokenizer(spec), reference.WordPieceTokenizer(spec)
    for tokens_max in (None, 5, 8, 13):
        for left in (False, True):
            for special in (True, False):
                assert unpack(
                    native.encode(
                        texts,
                        pairs,
                        tokens_max=tokens_max,
                        truncate_left=left,
                        add_special_tokens=special,
                        return_offsets=True,
                    )
                ) == unpack(
                    twin.encode(
                        texts,
                        pairs,
                        tokens_max=tokens_max,
                        truncate_left=left,
                        add_special_tokens=special,
                        return_offsets=True,
                    )
                )


def test_wordpiece_equals_its_twin_on_any_bytes() -> None:
    rng = random.Random(22)
    pool = [
        b"a",
        b" ",
        b"\xc3",
        b"\xa9",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98\x80",
        b"\xe2\x82",
        b"\xff",
        b"\xc0\x80",
    ]
    pool += [
        b"\xf4\x90\x80\x80",
        b"\xf4\x8f\xbf\xbf",
        b"\xef\xbf\xbd",
        b"\x00",
        b"[SEP]",
        b"\xed\x9f\xbf",
        b"\xe0\x80\x80",
    ]
    texts: list[str | bytes] = [b"".join(rng.choices(pool, k=rng.randint(0, 12))) for _ in range(1_000)]
    texts += [bytes(rng.randbytes(rng.randint(0, 6))) for _ in range(1_000)]
    spec = spec_for(["é😀\ufffd"])
    native = native_wordpiece.WordPieceTokenizer(spec).encode(texts, return_offsets=True)
    twin = reference.WordPieceTokenizer(spec).encode(texts, return_offsets=True)
    np.testing.assert_array_equal(native.valid, twin.valid)
    assert 0 < native.valid.sum() < native.rows
    assert unpack(native) == unpack(twin)


def test_truncation_of_very_unequal_pairs_equals_its_twin() -> None:
    spec = spec_for([])
    native, twin = native_wordpiece.WordPieceTokenizer(spec), reference.WordPieceTokenizer(spec)
    for first in (0, 1, 9, 10, 11, 40, 41):
        for second in (0, 1, 9, 10, 11, 40, 41):
            texts, pairs = ["a " * first], ["b " * second]
            for tokens_max in range(3, 26):
                is_, wanted = (t.encode(texts, pairs, tokens_max=tokens_max) for t in (native, twin))
                assert unpack(is_) == unpack(wanted)
                assert (
                    is_.truncated.tolist() == wanted.truncated.tolist() == [first + second + 3 > tokens_max]
                )


def token_rows(rng: random.Random, rows: int) -> TokenRows:
    lengths = [rng.randint(0, 6) for _ in range(rows)]
    tokens = sum(lengths)
    return TokenRows(
        ids=np.array([rng.randint(1, 30_000) for _ in range(tokens)], np.int32),
        type_ids=np.array([rng.randint(0, 255) for _ in range(tokens)], np.uint8),
        starts=np.cumsum([0, *lengths]).astype(np.int64),
        truncated=np.zeros(rows, np.bool_),
        valid=np.ones(rows, np.bool_),
    )


def unwritten(shape: tuple[int, int], width: int) -> list[IndexArray]:
    if width == 32:
        return [np.full(shape, -1, np.int32) for _ in range(3)]
    return [np.full(shape, -1, np.int64) for _ in range(3)]


@pytest.mark.parametrize("width", [32, 64])
def test_pack_rows_equals_its_twin(width: int) -> None:
    rng = random.Random(23)
    for _ in range(200):
        parts: list[tuple[TokenRows, NDArray[np.int32]]] = []
        for _ in range(rng.randint(0, 4)):
            rows = rng.randint(1, 5)
            chosen = np.array([rng.randrange(rows) for _ in range(rng.randint(0, 4))], np.int32)
            parts.append((token_rows(rng, rows), chosen))
        shape = sum(len(rows) for _, rows in parts), rng.randint(6, 9)
        native, twin = unwritten(shape, width), unwritten(shape, width)
        native_batch.pack_rows(parts, shape[1], 7, native[0], native[1], native[2])
        reference.pack_rows(parts, shape[1], 7, twin[0], twin[1], twin[2])
        for is_, wanted in zip(native, twin, strict=True):
            np.testing.assert_array_equal(is_, wanted)


def test_mean_pool_equals_its_twin() -> None:
    generator = np.random.default_rng(24)
    hidden = generator.standard_normal((5, 7, 33), dtype=np.float32)
    lengths = np.array([0, 1, 7, 3, 5], np.int32)
    native, twin = np.empty((5, 33), np.float32), np.empty((5, 33), np.float32)
    native_batch.mean_pool(hidden, lengths, native)
    reference.mean_pool(hidden, lengths, twin)
    np.testing.assert_allclose(native, twin, rtol=1e-5, atol=1e-6)


def test_l2_normalize_equals_its_twin() -> None:
    native = np.random.default_rng(25).standard_normal((6, 48), dtype=np.float32)
    native[2] = 0.0
    twin = native.copy()
    native_batch.l2_normalize(native)
    reference.l2_normalize(twin)
    np.testing.assert_allclose(native, twin, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(native, axis=1), [1, 1, 0, 1, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("choice", "module"), [("reference", "reference_wordpiece"), ("native", "_wordpiece")]
)
def test_the_environment_chooses_the_kernels(choice: str, module: str) -> None:
    probe = "import penstock_kernels; print(penstock_kernels.WordPieceTokenizer.__module__)"
    environment = os.environ | {"PENSTOCK_KERNELS": choice}
    answer = subprocess.run(
        [sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == f"penstock_kernels.{module}"
