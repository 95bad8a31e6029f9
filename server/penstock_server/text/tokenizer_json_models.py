"""Models of ``tokenizer.json``: WordPiece, BPE and Unigram."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock_kernels import spec
from penstock_kernels.blob_records import byte_characters
from penstock_kernels.serde_floats import parse_json_float
from penstock_server.text.tokenizer_json_parts import (
    INT32_MAX,
    Contradiction,
    Unsupported,
    keys_of,
    read,
    type_of,
)


class _WordPiece(msgspec.Struct, frozen=True):
    vocab: dict[str, int]
    unk_token: str
    continuing_subword_prefix: str
    max_input_chars_per_word: int


class _Bpe(msgspec.Struct, frozen=True):
    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]
    dropout: float | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool | None = None
    byte_fallback: bool | None = None
    ignore_merges: bool | None = None


class _Unigram(msgspec.Struct, frozen=True):
    vocab: list[tuple[str, msgspec.Raw]]
    unk_id: int | None = None
    byte_fallback: bool = False


def read_model(section: msgspec.Raw, pre_tokenizers: tuple[spec.PreTokenizer, ...]) -> spec.TokenModel:
    """The model.

    Raises:
        Unsupported: It is of another kind, or has an option that is not supported.
        ValueError: It is not as tokenizers writes it, or an id or a token that it needs is not there.
    """
    match type_of(section, "the model") or _legacy_type(section):
        case "WordPiece":
            return _wordpiece(section)
        case "BPE":
            return _bpe(section, pre_tokenizers)
        case "Unigram":
            return _unigram(section)
        case kind:
            raise Unsupported(f"model {kind}")


def _legacy_type(section: msgspec.Raw) -> str | None:
    """What a model without a type is, as its keys tell; files of early releases have such."""
    keys = keys_of(section)
    if "merges" in keys:
        return "BPE"
    if "max_input_chars_per_word" in keys:
        return "WordPiece"
    return "Unigram" if "vocab" in keys and "unk_token" not in keys else None


def _wordpiece(section: msgspec.Raw) -> spec.WordPiece:
    model = read(section, _WordPiece, "model WordPiece")
    _check_ids(model.vocab)
    if model.unk_token not in model.vocab:
        raise Contradiction(f"unk_token {model.unk_token!r} is not in the vocabulary")
    if model.max_input_chars_per_word < 0:
        raise Contradiction("max_input_chars_per_word is negative")
    return spec.WordPiece(
        model.vocab,
        model.vocab[model.unk_token],
        model.continuing_subword_prefix,
        min(model.max_input_chars_per_word, INT32_MAX),
    )


def _check_ids(vocabulary: Mapping[str, int]) -> None:
    if vocabulary and not 0 <= min(vocabulary.values()) <= max(vocabulary.values()) <= INT32_MAX:
        raise Contradiction(f"a token id is outside 0..{INT32_MAX}")


def _bpe(section: msgspec.Raw, pre_tokenizers: tuple[spec.PreTokenizer, ...]) -> spec.Bpe:
    model = read(section, _Bpe, "model BPE")
    _check_ids(model.vocab)
    if model.dropout:
        raise Unsupported(f"BPE dropout {model.dropout}")
    prefix, suffix = model.continuing_subword_prefix or "", model.end_of_word_suffix or ""
    if model.byte_fallback and (prefix or suffix):
        raise Unsupported("BPE byte_fallback together with continuing_subword_prefix or end_of_word_suffix")
    return spec.Bpe(
        vocabulary=model.vocab,
        merges=tuple(_merges(model.merges)),
        unknown_id=_unknown_id(model, pre_tokenizers),
        continuing_prefix=prefix,
        end_suffix=suffix,
        fuse_unknown=bool(model.fuse_unk),
        byte_fallback=bool(model.byte_fallback),
        ignore_merges=bool(model.ignore_merges),
    )


def _merges(merges: list[str | tuple[str, str]]) -> list[tuple[str, str]]:
    """Merges as pairs; early releases wrote "a b", and comments of the merges file among them."""
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        if isinstance(merge, tuple):
            pairs.append(merge)
        elif not merge.startswith("#version"):
            parts = merge.split(" ")
            if len(parts) != 2:
                raise Contradiction(f"the merge {merge!r} is not two tokens with a space between")
            pairs.append((parts[0], parts[1]))
    return pairs


def _unknown_id(model: _Bpe, pre_tokenizers: tuple[spec.PreTokenizer, ...]) -> int | None:
    token = model.unk_token
    if token is None or token in model.vocab:
        return None if token is None else model.vocab[token]
    # Where every byte has its token nothing is unknown, and tokenizers never looks the token up.
    affixes = model.continuing_subword_prefix or model.end_of_word_suffix
    ends_in_bytes = bool(pre_tokenizers) and isinstance(pre_tokenizers[-1], spec.ByteLevel)
    if ends_in_bytes and not affixes and all(byte in model.vocab for byte in byte_characters()):
        return None
    raise Contradiction(f"unk_token {token!r} is not in the vocabulary")


def _unigram(section: msgspec.Raw) -> spec.Unigram:
    model = read(section, _Unigram, "model Unigram")
    if model.unk_id is None:
        raise Unsupported("model Unigram without unk_id")
    if not 0 <= model.unk_id < len(model.vocab):
        raise Contradiction(f"unk_id {model.unk_id} is not in the vocabulary")
    pieces = tuple((piece, _score(score)) for piece, score in model.vocab)
    return spec.Unigram(pieces, model.unk_id, model.byte_fallback)


def _score(number: msgspec.Raw) -> float:
    """The double that tokenizers reads, which is not always the nearest one."""
    try:
        return parse_json_float(bytes(number).decode())
    except ValueError as err:
        raise Contradiction(f"model Unigram: {err}") from err
