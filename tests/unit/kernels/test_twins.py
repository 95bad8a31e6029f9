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
from penstock_kernels import EncodeOptions, IndexArray, Tokenizer, TokenRows, reference
from penstock_kernels.blob import compile_tokenizer
from tests.support import fuzz_blobs
from tests.support.token_parity import actual_columns
from tests.support.token_texts import varied_texts

TEXTS = varied_texts(150, seed=21)
SUBJECTS = fuzz_blobs.subjects()


def columns(rows: TokenRows) -> dict[str, list[int]]:
    return {name: column.tolist() for name, column in actual_columns(rows).items()} | {
        "truncated": rows.truncated.tolist(),
        "valid": rows.valid.tolist(),
    }


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_tokenizer_equals_its_twin(name: str) -> None:
    rng = random.Random(name)
    blob = compile_tokenizer(SUBJECTS[name])
    twin = reference.ReferenceTokenizer(SUBJECTS[name])
    natives = [Tokenizer(blob), Tokenizer(blob, with_fast_path=False)]
    pairs = [None if rng.random() < 0.6 else text for text in reversed(TEXTS)]
    for _ in range(6):
        options = EncodeOptions(
            tokens_max=rng.choice((None, 7, 12, 20)),
            truncate_left=rng.random() < 0.5,
            return_overflow=rng.random() < 0.5,
            add_special_tokens=rng.random() < 0.7,
            split_special_tokens=rng.random() < 0.3,
            return_offsets=True,
            return_word_ids=True,
            return_sequence_ids=True,
            return_special_mask=True,
        )
        wanted = columns(twin.encode(TEXTS, pairs, options))
        for native in natives:
            assert columns(native.encode(TEXTS, pairs, options)) == wanted


def test_any_bytes_are_judged_as_by_the_twin() -> None:
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
        b"[S]",
        b"\xed\x9f\xbf",
        b"\xe0\x80\x80",
    ]
    texts: list[str | bytes] = [b"".join(rng.choices(pool, k=rng.randint(0, 12))) for _ in range(1_000)]
    texts += [bytes(rng.randbytes(rng.randint(0, 6))) for _ in range(1_000)]
    spec = SUBJECTS["gpt2"]
    native = Tokenizer(compile_tokenizer(spec)).encode(texts)
    assert 0 < native.valid.sum() < native.rows
    assert columns(native) == columns(reference.ReferenceTokenizer(spec).encode(texts))


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


def test_a_tokenizer_that_the_twins_lack_is_refused_with_a_reason() -> None:
    environment = os.environ | {"PENSTOCK_KERNELS": "reference"}
    command = [sys.executable, "-c", "from penstock_kernels import Tokenizer"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "ReferenceTokenizer" in answer.stderr.splitlines()[-1]


@pytest.mark.parametrize(("choice", "module"), [("reference", "reference_batch"), ("native", "_batch")])
def test_the_environment_chooses_the_kernels(choice: str, module: str) -> None:
    probe = "import penstock_kernels; print(penstock_kernels.pack_rows.__module__)"
    environment = os.environ | {"PENSTOCK_KERNELS": choice}
    answer = subprocess.run(
        [sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == f"penstock_kernels.{module}"
