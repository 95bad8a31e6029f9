"""Compiling tokenizers: what the sections hold, and that broken blobs are told from whole ones."""

from __future__ import annotations

import dataclasses
import itertools
import random
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_kernels import EncodeOptions, Tokenizer, spec
from penstock_kernels.blob import (
    BlobBroken,
    Section,
    check_blob,
    compile_tokenizer,
)
from penstock_kernels.blob_records import TOKEN_IDS_MAX, byte_characters

WORDPIECE = spec.TokenizerSpec(
    model=spec.WordPiece({"[UNK]": 0, "hello": 1, "##s": 4}, unknown_id=0, word_chars_max=7),
    normalizers=(
        spec.BertNormalizer(True, False, True, False),
        spec.UnicodeForm(spec.Form.NFKC),
        spec.Lowercase(),
        spec.StripAccents(),
        spec.Strip(False, True),
        spec.Replace("``", '"'),
        spec.ReplaceSpaceRuns("\u2581"),
        spec.Prepend("\u2581"),
    ),
    pre_tokenizers=(
        spec.BertPreTokenizer(),
        spec.WhitespaceSplit(),
        spec.Whitespace(),
        spec.Punctuation(spec.SplitBehavior.CONTIGUOUS),
        spec.Digits(True),
        spec.ByteLevel(True, False),
        spec.Metaspace("_", spec.PrependScheme.FIRST, False),
    ),
    added_tokens=(
        spec.AddedToken("[X]", 5, single_word=True, lstrip=True),
        spec.AddedToken("y", 6, rstrip=True, normalized=True, special=True),
    ),
    single=(spec.TemplatePiece(spec.Slot.SPECIAL, 3, 9), spec.TemplatePiece(spec.Slot.FIRST, 255)),
    retypes_overflow=True,
    pad_id=4,
    pad_type_id=2,
)
BYTES = {symbol: i for i, symbol in enumerate(byte_characters())}
BPE = spec.TokenizerSpec(
    model=spec.Bpe(
        BYTES | {"ab": 256, "\u0120ab": 257, "x\u0120\u0120": 258}, (("a", "b"), ("\u0120", "ab"))
    ),
    pre_tokenizers=(spec.ByteLevel(),),
    trim=spec.TrimOffsets(),
)
UNIGRAM = spec.TokenizerSpec(
    model=spec.Unigram((("<unk>", 0.0), ("\u2581a", -1.5), ("<0x41>", -9.25)), 0, byte_fallback=True),
    normalizers=(spec.Precompiled(b"\x08\0\0\0" + bytes(range(8)) + b"x\0y\0"),),
    pre_tokenizers=(spec.Metaspace(),),
)
FAMILIES = pytest.mark.parametrize(
    "tokenizer", [WORDPIECE, BPE, UNIGRAM], ids=["WordPiece", "BPE", "Unigram"]
)


def sections(blob: bytes) -> dict[Section, bytes]:
    """The sections, read without the writer's help."""
    count = struct.unpack_from("<I", blob, 24)[0]
    table = [struct.unpack_from("<IIQQ", blob, 32 + 24 * i) for i in range(count)]
    return {Section(number): blob[at : at + size] for number, _, at, size in table}


def numbers(content: bytes, columns: int = 1) -> list[list[int]]:
    values: list[list[int]] = np.frombuffer(content, "<i4").reshape(-1, columns).tolist()
    return values


def merges_of(found: dict[Section, bytes]) -> list[list[int]]:
    """Left, right, rank and merged, by rank: the first record tells how many there are."""
    header, *records = numbers(found[Section.MERGE_TABLE], 4)
    return records[: header[0]]


def texts(found: dict[Section, bytes], content: bytes, columns: int, first: int) -> list[list[str]]:
    """The texts that records point to from a column on."""
    rows = numbers(content, columns)
    return [
        [found[Section.STRINGS][row[i] : row[i] + row[i + 1]].decode() for i in range(first, columns, 2)]
        for row in rows
    ]


@FAMILIES
def test_a_blob_is_whole_aligned_and_the_same_every_time(tokenizer: spec.TokenizerSpec) -> None:
    blob = compile_tokenizer(tokenizer)
    check_blob(blob)
    assert compile_tokenizer(tokenizer) == blob
    magic, version, checksum, size = struct.unpack_from("<8sIIQ", blob)
    assert (magic, version, size) == (b"PSTKTEXT", 1, len(blob))
    assert checksum == zlib.crc32(blob[16:])
    count = struct.unpack_from("<I", blob, 24)[0]
    table = [struct.unpack_from("<IIQQ", blob, 32 + 24 * i) for i in range(count)]
    assert [number for number, *_ in table] == sorted({number for number, *_ in table})
    assert all(at % 64 == 0 for _, _, at, _ in table)


def test_stages_are_written_in_their_order_with_their_options() -> None:
    found = sections(compile_tokenizer(WORDPIECE))
    stages = numbers(found[Section.NORMALIZERS], 8)
    assert [row[:3] for row in stages] == [
        [1, 0b0101, 0],
        [2, 0, 2],
        [3, 0, 0],
        [4, 0, 0],
        [5, 2, 0],
        [6, 0, 0],
        [7, 0, 0],
        [8, 0, 0],
    ]
    assert texts(found, found[Section.NORMALIZERS], 8, 4)[5:] == [["``", '"'], ["", "\u2581"], ["\u2581", ""]]
    assert [row[:3] for row in numbers(found[Section.PRE_TOKENIZERS], 8)] == [
        [1, 0, 0],
        [2, 0, 0],
        [3, 0, 0],
        [4, 0, 4],
        [5, 1, 0],
        [6, 1, 0],
        [7, 0, 2],
    ]
    assert texts(found, found[Section.PRE_TOKENIZERS], 8, 4)[6] == ["_", ""]


def test_added_tokens_templates_and_configuration_are_written() -> None:
    found = sections(compile_tokenizer(WORDPIECE))
    assert [row[:2] for row in numbers(found[Section.ADDED_TOKENS], 4)] == [[5, 0b00011], [6, 0b11100]]
    assert texts(found, found[Section.ADDED_TOKENS], 4, 2) == [["[X]"], ["y"]]
    assert numbers(found[Section.SINGLE], 4) == [[2, 3, 9, 0], [0, 255, 0, 0]]
    assert numbers(found[Section.PAIR], 4) == [[0, 0, 0, 0], [1, 1, 0, 0]]
    config = numbers(found[Section.CONFIG], 16)[0]
    assert config[:6] == [1, 0, 4, 0, 7, 0]
    assert found[Section.STRINGS][config[6] : config[6] + config[7]] == b"##"
    assert config[10:13] == [10, 4, 2]  # the template's id 9 is the highest


def test_token_texts_are_found_by_id() -> None:
    found = sections(compile_tokenizer(WORDPIECE))
    starts: NDArray[np.uint32] = np.frombuffer(found[Section.TOKEN_STARTS], "<u4")
    words = [found[Section.TOKEN_TEXTS][a:b].decode() for a, b in itertools.pairwise(starts)]
    assert words == ["[UNK]", "hello", "", "", "##s", "[X]", "y", "", "", ""]
    assert list(found[Section.TOKEN_IS_THERE]) == [1, 1, 0, 0, 1, 1, 1, 0, 0, 0]
    assert Section.TOKEN_TRIMS not in found


def test_bpe_has_merges_symbols_and_trims() -> None:
    found = sections(compile_tokenizer(BPE))
    merges = merges_of(found)
    a, b, space = (BYTES[symbol] for symbol in ("a", "b", "\u0120"))
    assert merges == [[a, b, 0, 256], [space, 256, 1, 257]]
    assert numbers(found[Section.BYTE_IDS]) == [[i] for i in range(256)]
    trims = np.frombuffer(found[Section.TOKEN_TRIMS], np.uint8).reshape(-1, 2).tolist()
    assert [trims[token_id] for token_id in (256, 257, 258, space)] == [[0, 0], [1, 0], [0, 2], [1, 1]]
    assert numbers(found[Section.CONFIG], 16)[0][2] == 0b011


def test_continuations_lose_as_many_bytes_as_the_prefix_has() -> None:
    vocabulary = {"a": 0, "##b": 1, "ab": 2, "xyc": 3, "ac": 4}
    model = spec.Bpe(vocabulary, (("a", "##b"), ("a", "xyc")), continuing_prefix="##")
    found = sections(compile_tokenizer(spec.TokenizerSpec(model)))
    merges = merges_of(found)
    assert merges == [[0, 1, 0, 2], [0, 3, 1, 4]]


def test_unigram_has_scores_bytes_and_a_charsmap() -> None:
    found = sections(compile_tokenizer(UNIGRAM))
    assert np.frombuffer(found[Section.SCORES], "<f8").tolist() == [0.0, -1.5, -9.25]
    assert numbers(found[Section.BYTE_IDS]) == [[2 if byte == 0x41 else -1] for byte in range(256)]
    assert found[Section.CHARSMAP_TRIE] == bytes(range(8))
    assert found[Section.CHARSMAP_TEXTS] == b"x\0y\0"
    assert struct.unpack_from("<d", found[Section.CONFIG], 56) == (-19.25,)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pad_id": TOKEN_IDS_MAX}, "token id 16777216 is outside"),
        ({"model": spec.WordPiece({"a": -1}, 0)}, "token id -1 is outside"),
        ({"single": (spec.TemplatePiece(spec.Slot.FIRST, 256),)}, "type id 256 is outside"),
        ({"model": spec.Bpe({"a": 0, "b": 1}, (("a", "b"),))}, "merge 0, 'a' and 'b': 'ab' is not in"),
        ({"normalizers": (spec.Precompiled(b"\x08\0\0\0xxxx"),)}, "character map .* is cut or broken"),
        (
            {
                "normalizers": (
                    spec.Precompiled(b"\x04\0\0\0xxxxy\0"),
                    spec.Precompiled(b"\x04\0\0\0xxxxz\0"),
                )
            },
            "two different Precompiled",
        ),
        (
            {"model": spec.WordPiece({" " * 256: 0}, 0), "trim": spec.TrimOffsets()},
            "token 0 begins or ends with more than 255 spaces",
        ),
    ],
)
def test_what_the_format_cannot_hold_is_refused(changes: dict[str, object], reason: str) -> None:
    plain = spec.TokenizerSpec(spec.WordPiece({"a": 0}, 0))
    with pytest.raises(ValueError, match=reason):
        compile_tokenizer(dataclasses.replace(plain, **changes))  # type: ignore[arg-type]


@FAMILIES
def test_a_flipped_byte_is_told_wherever_it_is(tokenizer: spec.TokenizerSpec) -> None:
    blob = compile_tokenizer(tokenizer)
    spread = {*range(2048), *random.Random(7).sample(range(len(blob)), 500)}
    for at in (at for at in spread if at < len(blob)):
        broken = bytearray(blob)
        broken[at] ^= 1 << at % 8
        with pytest.raises(BlobBroken):
            check_blob(bytes(broken))


@FAMILIES
def test_a_cut_blob_is_told(tokenizer: spec.TokenizerSpec) -> None:
    blob = compile_tokenizer(tokenizer)
    for size in {*range(0, len(blob), 61), *range(64), len(blob) - 1}:
        with pytest.raises(BlobBroken):
            check_blob(blob[:size])
    with pytest.raises(BlobBroken, match="bytes, not"):
        check_blob(blob + b"\0")


@FAMILIES
def test_a_blob_that_was_never_checked_is_refused_or_harmless(tokenizer: spec.TokenizerSpec) -> None:
    blob = compile_tokenizer(tokenizer)
    options = EncodeOptions(return_offsets=True)
    chance = random.Random(9)
    opened = refused = 0
    for _ in range(100):
        broken = bytearray(blob)
        for _ in range(chance.choice([1, 2, 20])):
            within = chance.choice([len(blob), min(len(blob), 1500)])
            broken[chance.randrange(within)] = chance.choice([0, 1, 128, 255])
        try:
            Tokenizer(bytes(broken)).encode(["hellos [X] ab \u00e9\u4e2d a", "ab" * 50, ""], options=options)
            opened += 1
        except (ValueError, MemoryError):
            refused += 1
    assert opened
    assert refused
