"""Scores are read from tokenizer.json as the reference reads them, roundings included."""

from __future__ import annotations

import json
import random
import struct

import pytest
from tokenizers import Tokenizer as OracleTokenizer

from penstock_kernels.serde_floats import parse_json_float

EDGES = (
    *("0", "-0", "0.0", "-0.0", "18446744073709551615", "18446744073709551616", "-9223372036854775809"),
    *("1e308", "0e999999999999", "1e-999999999999", "123456789012345678901234567890.5e-40", "4.9e-324"),
    *("1e-400", "0.1e-310", "-6.00000000000000000001"),
)
TOO_LARGE = ["1e309", "1e99999999999", "9" * 310, "123456789e305"]


def numbers(rng: random.Random) -> str:
    """Numbers of every shape: short, long, float32 written in full, with exponents."""
    kind = rng.randrange(5)
    if kind == 0:
        return repr(-rng.random() * 20)
    if kind == 1:
        return repr(struct.unpack("<f", struct.pack("<f", -rng.random() * 20))[0])
    if kind == 2:
        return f"-{rng.random() * 10 ** rng.randint(-5, 3):.{rng.randint(1, 25)}f}"
    digits = "".join(rng.choices("0123456789", k=rng.randint(1, 30)))
    whole = str(rng.randrange(10 ** rng.randint(1, 30)))
    return f"{whole}.{digits}" if kind == 3 else f"{whole}.{digits}e{rng.randint(-330, 270)}"


def oracle(texts: list[str]) -> list[float]:
    """What the reference reads: it writes numbers so that they can be read back exactly."""
    vocab = ",".join(f'["{index}",{text}]' for index, text in enumerate(texts))
    content = (
        f'{{"version":"1.0","model":{{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[{vocab}]}}}}'
    )
    written = json.loads(OracleTokenizer.from_str(content).to_str())
    return [float(score) for _, score in written["model"]["vocab"]]


def test_numbers_are_as_the_reference_reads_them() -> None:
    rng = random.Random(5)
    texts = [*EDGES, *(numbers(rng) for _ in range(20_000))]
    actual = [parse_json_float(text) for text in texts]
    assert actual == oracle(texts)
    # Were they rounded correctly, the test would prove nothing.
    assert sum(float(text) != value for text, value in zip(texts, actual, strict=True)) > 1000


@pytest.mark.parametrize("text", TOO_LARGE)
def test_numbers_that_no_double_holds_are_refused_on_both_sides(text: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_json_float(text)
    with pytest.raises(Exception, match="number out of range"):
        oracle([text])


@pytest.mark.parametrize("text", ["", "-", "01", "1.", ".5", "1e", "+1", "NaN", "0x1", "1 "])
def test_what_is_no_json_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a JSON number"):
        parse_json_float(text)
