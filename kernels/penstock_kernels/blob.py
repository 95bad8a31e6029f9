"""Compiles a tokenizer to one run of bytes that is mapped and read in place (records: penstock/blob.h).

The layout, all numbers little-endian::

    magic "PSTKTEXT" | u32 version | u32 CRC-32 of what follows | u64 size of the whole | u32 sections | u32 0
    for each section, by number: u32 number | u32 0 | u64 offset | u64 size
    the sections, each at an offset that 64 divides

Compiling is deterministic: equal specs give equal bytes.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import _compile, spec
from penstock_kernels.blob_records import (
    Strings,
    added_tokens,
    byte_characters,
    flags,
    ids_end_of,
    normalizers,
    pre_tokenizers,
    template,
)

MAGIC = b"PSTKTEXT"
VERSION = 1  # kBlobVersion of blob.h
_HEADER = struct.Struct("<8sIIQII")
_ENTRY = struct.Struct("<IIQQ")
_CHECKSUM_END = 16  # the checksum covers what lies behind itself
_ALIGNMENT = 64
_TRIM_MAX = 255
_UNKNOWN_PENALTY = 10.0
# Rust's char::is_whitespace, and the space as byte-level vocabularies write it.
_TRIMMED = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u0120").union(
    map(chr, range(0x2000, 0x200B))
)


class Section(IntEnum):
    """What a section holds; the numbers are the format's."""

    CONFIG = 1
    STRINGS = 2
    NORMALIZERS = 3
    PRE_TOKENIZERS = 4
    ADDED_TOKENS = 5
    SINGLE = 6
    PAIR = 7
    TOKEN_STARTS = 8
    TOKEN_TEXTS = 9
    TOKEN_IS_THERE = 10
    TOKEN_TRIMS = 11
    VOCABULARY_TRIE = 12
    SCORES = 13
    MERGE_TABLE = 14
    BYTE_IDS = 15
    CHARSMAP_TRIE = 16
    CHARSMAP_TEXTS = 17


class BlobBroken(ValueError):
    """These bytes are not a compiled tokenizer, or not as they were written."""


Sections = dict[Section, bytes]

_CONFIG = np.dtype(
    [
        ("model_kind", "<i4"),
        ("model_flags", "<i4"),
        ("config_flags", "<i4"),
        ("unknown_id", "<i4"),
        ("word_chars_max", "<i8"),
        ("continuing_prefix", "<u4", 2),
        ("end_suffix", "<u4", 2),
        ("ids_end", "<i4"),
        ("pad_id", "<i4"),
        ("pad_type_id", "<i4"),
        ("unused", "<i4"),
        ("unknown_score", "<f8"),
    ]
)


def compile_tokenizer(tokenizer: spec.TokenizerSpec) -> bytes:
    """Compiles a tokenizer. O(size of the vocabulary), some hundred milliseconds for 250,000 tokens.

    Raises:
        ValueError: The specification has an id or a size that the format cannot hold, or contradicts itself;
            the text names it.
    """
    strings = Strings()
    tokens = tokenizer.tokens_by_id()
    ids_end = ids_end_of(tokenizer)
    sections, model = _model(tokenizer, ids_end, strings)
    sections |= _token_sections(tokenizer, tokens, ids_end)
    sections |= {
        Section.NORMALIZERS: normalizers(tokenizer.normalizers, strings),
        Section.PRE_TOKENIZERS: pre_tokenizers(tokenizer.pre_tokenizers, strings),
        Section.ADDED_TOKENS: added_tokens(tokenizer.added_tokens, strings),
        Section.SINGLE: template(tokenizer.single),
        Section.PAIR: template(tokenizer.pair),
    }
    sections |= _charsmap(tokenizer)
    sections[Section.CONFIG] = _config(tokenizer, ids_end, model)
    sections[Section.STRINGS] = strings.bytes()
    return _assemble(sections)


def check_blob(blob: bytes | memoryview) -> None:
    """Checks the header and the checksum.

    Raises:
        BlobBroken: The bytes are not a compiled tokenizer of this version, or were cut or changed.
    """
    view = memoryview(blob)
    if len(view) < _HEADER.size:
        raise BlobBroken("it ends within its header")
    magic, version, checksum, size, _, _ = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise BlobBroken("it does not begin like a compiled tokenizer")
    if version != VERSION:
        raise BlobBroken(f"its format is {version}, not {VERSION}")
    if size != len(view):
        raise BlobBroken(f"it has {len(view)} bytes, not {size}")
    if zlib.crc32(view[_CHECKSUM_END:]) != checksum:
        raise BlobBroken("its checksum is wrong")


def _assemble(sections: Mapping[Section, bytes]) -> bytes:
    if sys.byteorder != "little":
        raise ValueError("compiled tokenizers are for little-endian machines only")
    kept = [(number, content) for number, content in sorted(sections.items()) if content]
    at = _HEADER.size + len(kept) * _ENTRY.size
    table, body = b"", bytearray()
    start = at
    for number, content in kept:
        body += bytes(-(start + len(body)) % _ALIGNMENT)
        table += _ENTRY.pack(number, 0, start + len(body), len(content))
        body += content
    rest = _HEADER.pack(MAGIC, VERSION, 0, start + len(body), len(kept), 0)[_CHECKSUM_END:] + table + body
    return struct.pack("<8sII", MAGIC, VERSION, zlib.crc32(rest)) + rest


def _token_sections(tokenizer: spec.TokenizerSpec, tokens: Mapping[int, str], ids_end: int) -> Sections:
    ids = sorted(tokens)
    texts = [tokens[token_id].encode() for token_id in ids]
    sizes = np.zeros(ids_end, np.int64)
    sizes[ids] = [len(text) for text in texts]
    starts = np.concatenate(([0], np.cumsum(sizes)))
    if starts[-1] > np.iinfo(np.uint32).max:
        raise ValueError("the vocabulary's texts take more than 4 GiB")
    is_there = np.zeros(ids_end, np.uint8)
    is_there[ids] = 1
    sections = {
        Section.TOKEN_STARTS: starts.astype("<u4").tobytes(),
        Section.TOKEN_TEXTS: b"".join(texts),
        Section.TOKEN_IS_THERE: is_there.tobytes(),
    }
    if tokenizer.trim is not None:
        sections[Section.TOKEN_TRIMS] = _trims(tokens, ids_end)
    return sections


def _trims(tokens: Mapping[int, str], ids_end: int) -> bytes:
    """How many spaces each token's text begins and ends with."""
    trims = np.zeros((ids_end, 2), np.uint8)
    for token_id, text in tokens.items():
        if not text or (text[0] not in _TRIMMED and text[-1] not in _TRIMMED):
            continue
        ends = _spaces(text), _spaces(text[::-1])
        if max(ends) > _TRIM_MAX:
            raise ValueError(f"token {token_id} begins or ends with more than {_TRIM_MAX} spaces")
        trims[token_id] = ends
    return trims.tobytes()


def _spaces(text: str) -> int:
    return next((i for i, char in enumerate(text) if char not in _TRIMMED), len(text))


def _charsmap(tokenizer: spec.TokenizerSpec) -> Sections:
    """The character map of SentencePiece: its trie's size in bytes (u32), the trie, the replacements."""
    maps = [stage.charsmap for stage in tokenizer.normalizers if isinstance(stage, spec.Precompiled)]
    if not maps:
        return {}
    if len(set(maps)) > 1:
        raise ValueError("there are two different Precompiled normalizers")
    charsmap = maps[0]
    trie_bytes = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 4 or trie_bytes % 4 or trie_bytes > len(charsmap) - 4:
        raise ValueError("the character map of the normalizer Precompiled is cut or broken")
    return {
        Section.CHARSMAP_TRIE: charsmap[4 : 4 + trie_bytes],
        Section.CHARSMAP_TEXTS: charsmap[4 + trie_bytes :],
    }


def _config(tokenizer: spec.TokenizerSpec, ids_end: int, model: Mapping[str, Any]) -> bytes:
    trim = tokenizer.trim
    record = np.zeros(1, _CONFIG)
    values = {
        "ids_end": ids_end,
        "pad_id": tokenizer.pad_id,
        "pad_type_id": tokenizer.pad_type_id,
        "config_flags": flags(
            trim is not None, trim is not None and trim.add_prefix_space, tokenizer.retypes_overflow
        ),
        "unknown_id": -1,
    }
    for name, value in (values | dict(model)).items():
        record[name] = value
    return record.tobytes()


def _model(tokenizer: spec.TokenizerSpec, ids_end: int, strings: Strings) -> tuple[Sections, dict[str, Any]]:
    """The model's sections, and its part of the configuration."""
    model = tokenizer.model
    match model:
        case spec.WordPiece():
            return _wordpiece(model, strings)
        case spec.Unigram():
            return _unigram(model, ids_end)
        case spec.Bpe():
            is_byte_level = any(isinstance(stage, spec.ByteLevel) for stage in tokenizer.pre_tokenizers)
            return _bpe(model, is_byte_level, strings)


def _trie(vocabulary: Mapping[bytes, int]) -> bytes:
    ids: NDArray[np.int32] = np.fromiter(vocabulary.values(), np.int32, len(vocabulary))
    return _compile.build_double_array(list(vocabulary), ids)


def _wordpiece(model: spec.WordPiece, strings: Strings) -> tuple[Sections, dict[str, Any]]:
    trie = _trie({token.encode(): token_id for token, token_id in model.vocabulary.items()})
    config = {
        "model_kind": 1,
        "unknown_id": model.unknown_id,
        "word_chars_max": model.word_chars_max,
        "continuing_prefix": strings.put(model.continuing_prefix),
    }
    return {Section.VOCABULARY_TRIE: trie}, config


def _bpe(model: spec.Bpe, is_byte_level: bool, strings: Strings) -> tuple[Sections, dict[str, Any]]:
    ids = model.vocabulary
    sections = {
        Section.VOCABULARY_TRIE: _trie({token.encode(): token_id for token, token_id in ids.items()}),
        Section.MERGE_TABLE: _merge_table(model),
    }
    if is_byte_level:
        symbols = [ids.get(symbol, -1) for symbol in byte_characters()]
        sections[Section.BYTE_IDS] = np.array(symbols, "<i4").tobytes()
    elif model.byte_fallback:
        sections[Section.BYTE_IDS] = _fallback_ids(ids)
    config = {
        "model_kind": 2,
        "model_flags": flags(model.fuse_unknown, model.byte_fallback, model.ignore_merges),
        "unknown_id": -1 if model.unknown_id is None else model.unknown_id,
        "continuing_prefix": strings.put(model.continuing_prefix),
        "end_suffix": strings.put(model.end_suffix),
    }
    return sections, config


def _merge_table(model: spec.Bpe) -> bytes:
    prefix_bytes = len(model.continuing_prefix.encode())
    merges = np.empty((len(model.merges), 4), np.int32)
    for rank, (left, right) in enumerate(model.merges):
        # The reference drops as many bytes as the prefix has, whether they are the prefix or not.
        merged = left + (right.encode()[prefix_bytes:].decode() if prefix_bytes else right)
        try:
            merges[rank] = model.vocabulary[left], model.vocabulary[right], rank, model.vocabulary[merged]
        except KeyError as err:
            raise ValueError(
                f"merge {rank}, {left!r} and {right!r}: {err} is not in the vocabulary"
            ) from None
    return _compile.build_merge_table(merges)


def _unigram(model: spec.Unigram, ids_end: int) -> tuple[Sections, dict[str, Any]]:
    ids = {piece: token_id for token_id, (piece, _) in enumerate(model.pieces)}
    scores = np.zeros(ids_end, "<f8")
    scores[: len(model.pieces)] = [score for _, score in model.pieces]
    sections = {
        Section.VOCABULARY_TRIE: _trie({piece.encode(): token_id for piece, token_id in ids.items()}),
        Section.SCORES: scores.tobytes(),
    }
    if model.byte_fallback:
        sections[Section.BYTE_IDS] = _fallback_ids(ids)
    config = {
        "model_kind": 3,
        "model_flags": flags(False, model.byte_fallback),
        "unknown_id": -1 if model.unknown_id is None else model.unknown_id,
        "unknown_score": min((score for _, score in model.pieces), default=float("inf")) - _UNKNOWN_PENALTY,
    }
    return sections, config


def _fallback_ids(ids: Mapping[str, int]) -> bytes:
    """Ids of the tokens ``<0x00>`` to ``<0xFF>``, -1 for those that are not there."""
    return np.array([ids.get(f"<0x{byte:02X}>", -1) for byte in range(256)], "<i4").tobytes()
