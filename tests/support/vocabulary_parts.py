"""Parts of tokenizer.json files, and real models' pieces out of the formats that packages keep them in."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from tests.support.packages import BLINGFIRE, SENTENCEPIECE, member

Json = dict[str, Any]

# Bytes that stand for themselves in a byte-level vocabulary; the others get characters from U+0100 on.
_PLAIN_BYTES = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES = 256
_SPACE = "▁"
# Scores by rank: like those of SentencePiece models, -3.5 for the most frequent piece to about -15.
_SCORE_FIRST = 3.5
_SCORE_SLOPE = 0.9


@cache
def blingfire_pieces(name: str) -> tuple[bytes, ...]:
    """The pieces of a model in order of their ids, out of BlingFire's ``.i2w`` file.

    A little-endian header gives where the table of ends lies; behind the table lie the pieces themselves. A
    leading space marks the start of a word. What is read so equals the known vocabularies of bert-base-cased
    and bert-base-uncased but for the spelling of special tokens.

    Raises:
        Unavailable: The package cannot be fetched.
    """
    content = member(BLINGFIRE, f"blingfire/{name}.i2w")
    (at,) = struct.unpack_from("<8xI", content)
    (count,) = struct.unpack_from("<I", content, at)
    ends = struct.unpack_from(f"<{count + 1}I", content, at + 4)
    text = at + 4 * (count + 2)
    return tuple(content[text + first : text + last] for first, last in pairwise(ends))


def wordpieces(name: str, specials: dict[int, str]) -> dict[str, int]:
    """A WordPiece vocabulary out of BlingFire's file, with special tokens spelled as given."""
    texts = [piece.decode() for piece in blingfire_pieces(name)]
    spelled = [text[1:] if text.startswith(" ") else "##" + text for text in texts]
    return {specials.get(index, text): index for index, text in enumerate(spelled)}


@cache
def byte_characters() -> tuple[str, ...]:
    """The character for each byte in a byte-level vocabulary."""
    others = iter(range(_BYTES, 2 * _BYTES))
    return tuple(chr(byte if byte in _PLAIN_BYTES else next(others)) for byte in range(_BYTES))


def byte_level(piece: bytes) -> str:
    """The spelling of bytes in a byte-level vocabulary."""
    characters = byte_characters()
    return "".join(characters[byte] for byte in piece)


def gpt2_pieces() -> list[bytes]:
    """GPT-2's pieces in order of their ids, ``<|endoftext|>`` last."""
    pieces = list(blingfire_pieces("gpt2"))
    # The file spells NUL as a space, which no other single byte is before this place.
    pieces[pieces.index(b" ")] = b"\0"
    return pieces


def merges_of(pieces: Sequence[bytes]) -> list[tuple[str, str]]:
    """The merges behind byte-level pieces whose ids are in order of the merges, as GPT-2's are.

    Merging a piece's own bytes by the earlier merges must leave two symbols, and those are its merge.
    """
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    merges: list[tuple[str, str]] = []
    for piece in pieces[_BYTES:]:
        symbols = [piece[index : index + 1] for index in range(len(piece))]
        while len(symbols) > 2:
            joined = [first + second for first, second in pairwise(symbols)]
            at = min(range(len(joined)), key=lambda index: (ranks.get(joined[index], math.inf), index))
            symbols[at : at + 2] = [joined[at]]
        merges.append((byte_level(symbols[0]), byte_level(symbols[1])))
    return merges


def ranked_scores(pieces: Sequence[str], specials: int) -> list[tuple[str, float]]:
    """Pieces with made-up scores that fall with their rank; the first few, special tokens, have 0."""
    ranked = [
        (piece, -_SCORE_FIRST - _SCORE_SLOPE * math.log(rank))
        for rank, piece in enumerate(pieces[specials:], 1)
    ]
    return [*((piece, 0.0) for piece in pieces[:specials]), *ranked]


def sentence_pieces(name: str) -> list[str]:
    """The pieces of a Unigram model in BlingFire's file, spelled with U+2581."""
    return [piece.decode().replace(" ", _SPACE) for piece in blingfire_pieces(name)]


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What matters here of a SentencePiece model file."""

    pieces: tuple[tuple[str, float], ...]
    charsmap: bytes


def read_sentencepiece(name: str) -> SentencePieceModel:
    """Reads a model of the sentencepiece package's tests (a protocol buffer)."""
    pieces: list[tuple[str, float]] = []
    charsmap = b""
    for number, value in _fields(_sentencepiece_file(f"test/{name}.model")):
        if number == 1:
            piece = dict(_fields(value))
            (score,) = struct.unpack("<f", piece.get(2, bytes(4)))
            pieces.append((piece[1].decode(), score))
        elif number == 3:
            charsmap = dict(_fields(value)).get(2, b"")
    return SentencePieceModel(tuple(pieces), charsmap)


def charsmap(name: str) -> bytes:
    """One of SentencePiece's normalisation tables: nmt_nfkc, nfkc, nmt_nfkc_cf or nfkc_cf."""
    return _sentencepiece_file(f"src/sentencepiece/package_data/{name}.bin")


def _sentencepiece_file(path: str) -> bytes:
    return member(SENTENCEPIECE, f"sentencepiece-{SENTENCEPIECE.version}/{path}")


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protocol buffer message; numbers are given as their bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == 0:
            start = at
            _, at = _varint(content, at)
            yield key >> 3, content[start:at]
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            length, at = _varint(content, at)
        yield key >> 3, content[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def tokenizer_json(model: Json, **sections: Any) -> Json:
    """A whole file around a model; sections left out are null, and there is no truncation or padding."""
    empty: Json = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": []}
    empty |= {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    return {**empty, **sections, "model": model}


def added(token_id: int, content: str, *, special: bool = True, **flags: bool) -> Json:
    """An added token; flags are single_word, lstrip, rstrip and normalized, False unless given."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": content, "special": special} | plain | flags


def sequence(kind: str, steps: list[Json]) -> Json:
    """A Sequence of normalizers or pretokenizers."""
    return {"type": "Sequence", kind: steps}


def precompiled(table: bytes) -> Json:
    """SentencePiece's normalisation as a normalizer."""
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode("ascii")}


def replace(pattern: Json, content: str) -> Json:
    """A Replace normalizer; the pattern is ``{"Regex": ...}`` or ``{"String": ...}``."""
    return {"type": "Replace", "pattern": pattern, "content": content}


def metaspace(prepend_scheme: str = "always", split: bool = True) -> Json:
    """A Metaspace pre-tokenizer."""
    return {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": prepend_scheme, "split": split}


def byte_level_step(**settings: bool) -> Json:
    """A ByteLevel pre-tokenizer or post-processor, GPT-2's settings unless given."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    } | settings


def template(single: str, pair: str, ids: dict[str, int]) -> Json:
    """A TemplateProcessing of texts like ``[CLS] A [SEP] B:1 [SEP]:1``."""
    tokens = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ids}
    return {
        "type": "TemplateProcessing",
        "single": [_template_piece(part) for part in single.split()],
        "pair": [_template_piece(part) for part in pair.split()],
        "special_tokens": tokens,
    }


def _template_piece(part: str) -> Json:
    name, _, type_id = part.partition(":")
    kind = "Sequence" if name in ("A", "B") else "SpecialToken"
    return {kind: {"id": name, "type_id": int(type_id or 0)}}
