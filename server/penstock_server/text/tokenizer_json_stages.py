"""Normalisers and pre-tokenisers of ``tokenizer.json``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Literal

import msgspec

from penstock_kernels import spec
from penstock_server.domain.decoding import decode_json
from penstock_server.text.tokenizer_json_parts import (
    Contradiction,
    Unsupported,
    is_nothing,
    keys_of,
    read,
    type_of,
)

# The one regex that converters of SentencePiece models write.
_SPACE_RUNS = " {2,}"

Normalizers = tuple[spec.Normalizer, ...]
PreTokenizers = tuple[spec.PreTokenizer, ...]


class _Empty(msgspec.Struct, frozen=True):
    """A component without options."""


class _Bert(msgspec.Struct, frozen=True):
    clean_text: bool
    handle_chinese_chars: bool
    lowercase: bool
    strip_accents: bool | None = None


class _Strip(msgspec.Struct, frozen=True):
    strip_left: bool
    strip_right: bool


class _Replace(msgspec.Struct, frozen=True):
    pattern: dict[str, str]
    content: str


class _Prepend(msgspec.Struct, frozen=True):
    prepend: str


class _Precompiled(msgspec.Struct, frozen=True):
    precompiled_charsmap: str


class _NormalizerSequence(msgspec.Struct, frozen=True):
    normalizers: list[msgspec.Raw]


class _Punctuation(msgspec.Struct, frozen=True):
    behavior: Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] = (
        "Isolated"
    )


class _Digits(msgspec.Struct, frozen=True):
    individual_digits: bool


class ByteLevelSection(msgspec.Struct, frozen=True):
    """ByteLevel as a pre-tokeniser and as a post-processor; ``trim_offsets`` matters for the latter only."""

    add_prefix_space: bool
    trim_offsets: bool
    use_regex: bool = True


class _Metaspace(msgspec.Struct, frozen=True):
    replacement: str
    add_prefix_space: bool | None = None
    prepend_scheme: Literal["always", "never", "first"] = "always"
    split: bool | None = None
    str_rep: str | None = None  # of early releases; tokenizers reads past it


class _PreTokenizerSequence(msgspec.Struct, frozen=True):
    pretokenizers: list[msgspec.Raw]


class _Pattern(msgspec.Struct, frozen=True):
    """The pattern of a Split, to name it."""

    pattern: dict[str, str] = {}


_BEHAVIORS = {
    "Removed": spec.SplitBehavior.REMOVED,
    "Isolated": spec.SplitBehavior.ISOLATED,
    "MergedWithPrevious": spec.SplitBehavior.MERGED_WITH_PREVIOUS,
    "MergedWithNext": spec.SplitBehavior.MERGED_WITH_NEXT,
    "Contiguous": spec.SplitBehavior.CONTIGUOUS,
}
_SCHEMES = {
    "always": spec.PrependScheme.ALWAYS,
    "never": spec.PrependScheme.NEVER,
    "first": spec.PrependScheme.FIRST,
}


def read_normalizers(section: msgspec.Raw) -> Normalizers:
    """The normalisers in the order in which they run.

    Raises:
        Unsupported: One of them is not supported, or an option of it.
        ValueError: One of them is not as tokenizers writes it.
    """
    if is_nothing(section):
        return ()
    stages = _normalizer(section)
    if len({stage for stage in stages if isinstance(stage, spec.Precompiled)}) > 1:
        raise Unsupported("two different normalizers Precompiled")
    return stages


def _normalizer(section: msgspec.Raw) -> Normalizers:
    kind = type_of(section, "a normalizer") or _legacy_type(section)
    if kind not in _NORMALIZERS:
        raise Unsupported(f"normalizer {kind}")
    return _NORMALIZERS[kind](section)


def _legacy_type(section: msgspec.Raw) -> str | None:
    """What a normaliser without a type is, as its keys tell; files of early releases have such."""
    keys = keys_of(section)
    for key, kind in _LEGACY_NORMALIZERS.items():
        if key in keys:
            return kind
    return None


def _bert(section: msgspec.Raw) -> Normalizers:
    bert = read(section, _Bert, "normalizer BertNormalizer")
    accents = bert.lowercase if bert.strip_accents is None else bert.strip_accents
    return (spec.BertNormalizer(bert.clean_text, bert.handle_chinese_chars, accents, bert.lowercase),)


def _strip(section: msgspec.Raw) -> Normalizers:
    strip = read(section, _Strip, "normalizer Strip")
    return (spec.Strip(strip.strip_left, strip.strip_right),)


def _replace(section: msgspec.Raw) -> Normalizers:
    replace = read(section, _Replace, "normalizer Replace")
    match replace.pattern:
        case {"String": pattern} if len(replace.pattern) == 1:
            if not pattern:
                raise Unsupported("normalizer Replace of an empty text")
            return (spec.Replace(pattern, replace.content),)
        case {"Regex": regex} if len(replace.pattern) == 1:
            if regex != _SPACE_RUNS:
                raise Unsupported(f"normalizer Replace with regex {regex!r}")
            return (spec.ReplaceSpaceRuns(replace.content),)
        case _:
            raise Contradiction("normalizer Replace: the pattern must have one key, String or Regex")


def _prepend(section: msgspec.Raw) -> Normalizers:
    text = read(section, _Prepend, "normalizer Prepend").prepend
    if not text:  # tokenizers adds nothing then, but moves the offsets of the first character to (0, 0)
        raise Unsupported("normalizer Prepend of an empty text")
    return (spec.Prepend(text),)


def _precompiled(section: msgspec.Raw) -> Normalizers:
    encoded = read(section, _Precompiled, "normalizer Precompiled").precompiled_charsmap
    try:
        charsmap = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        trie_bytes = int.from_bytes(charsmap[:4], "little") // 4 * 4
        charsmap[4 + trie_bytes :].decode()
    except (binascii.Error, UnicodeDecodeError) as err:
        raise Contradiction(f"normalizer Precompiled: the charsmap is broken: {err}") from err
    if len(charsmap) < 4 + trie_bytes or not trie_bytes:
        raise Contradiction("normalizer Precompiled: the charsmap is cut")
    return (spec.Precompiled(trie_bytes.to_bytes(4, "little") + charsmap[4:]),)


def _normalizer_sequence(section: msgspec.Raw) -> Normalizers:
    parts = read(section, _NormalizerSequence, "normalizer Sequence").normalizers
    return tuple(stage for part in parts for stage in _normalizer(part))


def _plain(name: str, *stages: spec.Normalizer) -> Callable[[msgspec.Raw], Normalizers]:
    """A normaliser that has no options."""

    def reader(section: msgspec.Raw) -> Normalizers:
        read(section, _Empty, f"normalizer {name}")
        return stages

    return reader


_NORMALIZERS: dict[str, Callable[[msgspec.Raw], Normalizers]] = {
    "BertNormalizer": _bert,
    "Strip": _strip,
    "StripAccents": _plain("StripAccents", spec.StripAccents()),
    "NFC": _plain("NFC", spec.UnicodeForm(spec.Form.NFC)),
    "NFD": _plain("NFD", spec.UnicodeForm(spec.Form.NFD)),
    "NFKC": _plain("NFKC", spec.UnicodeForm(spec.Form.NFKC)),
    "NFKD": _plain("NFKD", spec.UnicodeForm(spec.Form.NFKD)),
    "Lowercase": _plain("Lowercase", spec.Lowercase()),
    "Replace": _replace,
    "Prepend": _prepend,
    "Precompiled": _precompiled,
    "Sequence": _normalizer_sequence,
}
# A key that only this normaliser has.
_LEGACY_NORMALIZERS = {
    "handle_chinese_chars": "BertNormalizer",
    "strip_left": "Strip",
    "normalizers": "Sequence",
    "pattern": "Replace",
    "prepend": "Prepend",
}


def read_pre_tokenizers(section: msgspec.Raw) -> PreTokenizers:
    """The pre-tokenisers in the order in which they run.

    Raises:
        Unsupported: One of them is not supported, or an option of it.
        ValueError: One of them is not as tokenizers writes it.
    """
    return () if is_nothing(section) else _pre_tokenizer(section)


def _pre_tokenizer(section: msgspec.Raw) -> PreTokenizers:
    kind = type_of(section, "a pre_tokenizer")
    match kind:
        case "Sequence":
            parts = read(section, _PreTokenizerSequence, "pre_tokenizer Sequence").pretokenizers
            return tuple(stage for part in parts for stage in _pre_tokenizer(part))
        case "Split":
            pattern = decode_json(section, _Pattern).pattern
            raise Unsupported(
                "pre_tokenizer Split with "
                + " and ".join(
                    f"{'regex' if key == 'Regex' else 'text'} {text!r}" for key, text in pattern.items()
                )
            )
        case "BertPreTokenizer" | "WhitespaceSplit" | "Whitespace":
            read(section, _Empty, f"pre_tokenizer {kind}")
            return (_PLAIN_PRE_TOKENIZERS[kind],)
        case _:
            return (_pre_tokenizer_with_options(section, kind),)


_PLAIN_PRE_TOKENIZERS: dict[str, spec.PreTokenizer] = {
    "BertPreTokenizer": spec.BertPreTokenizer(),
    "WhitespaceSplit": spec.WhitespaceSplit(),
    "Whitespace": spec.Whitespace(),
}


def _pre_tokenizer_with_options(section: msgspec.Raw, kind: str | None) -> spec.PreTokenizer:
    match kind:
        case "Punctuation":
            return spec.Punctuation(
                _BEHAVIORS[read(section, _Punctuation, "pre_tokenizer Punctuation").behavior]
            )
        case "Digits":
            return spec.Digits(read(section, _Digits, "pre_tokenizer Digits").individual_digits)
        case "ByteLevel":
            level = read(section, ByteLevelSection, "pre_tokenizer ByteLevel")
            return spec.ByteLevel(level.add_prefix_space, level.use_regex)
        case "Metaspace":
            return _metaspace(section)
        case _:
            raise Unsupported(f"pre_tokenizer {kind}")


def _metaspace(section: msgspec.Raw) -> spec.PreTokenizer:
    metaspace = read(section, _Metaspace, "pre_tokenizer Metaspace")
    if len(metaspace.replacement) != 1:
        raise Contradiction(f"pre_tokenizer Metaspace: {metaspace.replacement!r} is not one character")
    if metaspace.add_prefix_space is False and metaspace.prepend_scheme != "never":
        raise Contradiction(
            "pre_tokenizer Metaspace: add_prefix_space is false but prepend_scheme is not 'never'"
        )
    is_split = metaspace.split is not False
    return spec.Metaspace(metaspace.replacement, _SCHEMES[metaspace.prepend_scheme], is_split)
