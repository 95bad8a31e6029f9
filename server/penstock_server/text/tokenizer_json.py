"""Reads ``tokenizer.json`` as tokenizers 0.23.3 does, and refuses by name what Penstock does not compute.

The sections are read in ``tokenizer_json_stages``, ``_models`` and ``_templates``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Literal

import msgspec

from penstock_kernels import spec
from penstock_kernels.blob_records import ids_end_of
from penstock_server.domain.decoding import decode_json
from penstock_server.domain.errors import ModelBroken
from penstock_server.text.tokenizer_json_models import read_model
from penstock_server.text.tokenizer_json_parts import (
    INT32_MAX,
    NOTHING,
    Contradiction,
    Unsupported,
    is_nothing,
    read,
)
from penstock_server.text.tokenizer_json_stages import read_normalizers, read_pre_tokenizers
from penstock_server.text.tokenizer_json_templates import TYPE_ID_MAX, read_post_processor

_UINT32_MAX = 2**32 - 1
_PAD_TOKENS = ("[PAD]", "<pad>")


class _AddedToken(msgspec.Struct, frozen=True):
    id: int
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class _Padding(msgspec.Struct, frozen=True):
    strategy: msgspec.Raw
    direction: Literal["Left", "Right"]
    pad_id: int
    pad_type_id: int
    pad_token: str
    pad_to_multiple_of: int | None = None


class _File(msgspec.Struct, frozen=True):
    """The sections.

    Truncation and padding are each call's own, but for the padding's ids; tokens are never decoded to text.
    """

    model: msgspec.Raw
    version: Literal["1.0"] = "1.0"
    added_tokens: list[msgspec.Raw] = []
    normalizer: msgspec.Raw = NOTHING
    pre_tokenizer: msgspec.Raw = NOTHING
    post_processor: msgspec.Raw = NOTHING
    padding: msgspec.Raw = NOTHING
    truncation: msgspec.Raw = NOTHING
    decoder: msgspec.Raw = NOTHING


@contextmanager
def explained(name: str) -> Generator[None]:
    """Turns what goes wrong in reading a tokenizer file into ModelBroken that names the file.

    Args:
        name: The file, without its folder.
    """
    try:
        yield
    except Unsupported as err:
        raise ModelBroken(
            f"{name} needs {err}, which Penstock does not support; use a model without it, or ask for it"
        ) from err
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise ModelBroken(f"{name} is not a tokenizer.json: {err}") from err
    except ValueError as err:
        raise ModelBroken(f"{name} contradicts itself: {err}") from err


def read_spec(content: bytes) -> spec.TokenizerSpec:
    """What a tokenizer is made of.

    Args:
        content: The file.

    Raises:
        ValueError: It is not a ``tokenizer.json``, contradicts itself, or uses a feature that Penstock does
            not compute; ``explained`` says which.
    """
    file = _file(content)
    pre_tokenizers = read_pre_tokenizers(file.pre_tokenizer)
    model = read_model(file.model, pre_tokenizers)
    vocabulary = _vocabulary(model)
    added = _added_tokens(file.added_tokens, vocabulary, _size(model))
    post = read_post_processor(file.post_processor)
    if post.trim is not None:
        _check_trim(model, vocabulary)
    pad_id, pad_type_id = _padding(file.padding, vocabulary | {token.content: token.id for token in added})
    plain = spec.TokenizerSpec(model)
    tokenizer = spec.TokenizerSpec(
        model=model,
        normalizers=read_normalizers(file.normalizer),
        pre_tokenizers=pre_tokenizers,
        added_tokens=added,
        single=plain.single if post.single is None else post.single,
        pair=plain.pair if post.pair is None else post.pair,
        trim=post.trim,
        retypes_overflow=post.retypes_overflow,
        pad_id=pad_id,
        pad_type_id=pad_type_id,
    )
    ids_end_of(tokenizer)  # for what it refuses
    return tokenizer


def _file(content: bytes) -> _File:
    known = {field.name for field in msgspec.structs.fields(_File)}
    unknown = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).keys() - known
    if unknown:
        raise Unsupported(f"the unknown section {min(unknown)!r}")
    return decode_json(content, _File)


def _vocabulary(model: spec.TokenModel) -> dict[str, int]:
    if isinstance(model, spec.Unigram):
        return {piece: token_id for token_id, (piece, _) in enumerate(model.pieces)}
    return dict(model.vocabulary)


def _size(model: spec.TokenModel) -> int:
    """The vocabulary's size as tokenizers counts it: a piece that is there twice counts twice."""
    return len(model.pieces) if isinstance(model, spec.Unigram) else len(model.vocabulary)


def _added_tokens(
    sections: list[msgspec.Raw], vocabulary: Mapping[str, int], size: int
) -> tuple[spec.AddedToken, ...]:
    """Added tokens with the ids that tokenizers gives them, which need not be the file's.

    The vocabulary's id counts, else numbers are counted up from the vocabulary's size, in the file's order.
    """
    tokens: dict[str, spec.AddedToken] = {}
    next_id = size
    for raw in sections:
        section = read(raw, _AddedToken, "an added token")
        if not 0 <= section.id <= _UINT32_MAX:
            raise Contradiction(
                f"the id {section.id} of the added token {section.content!r} is no 32-bit number"
            )
        if not section.content:
            continue
        known = tokens.get(section.content)
        token = _added_token(section, vocabulary.get(section.content, next_id) if known is None else known.id)
        if known is not None and known != token:
            raise Unsupported(f"two different added tokens {section.content!r}")
        if known is None and section.content not in vocabulary:
            next_id += 1
        tokens[section.content] = token
    if len({token.id for token in tokens.values()}) < len(tokens):
        raise Unsupported("two added tokens with one id")
    return tuple(tokens.values())


def _added_token(section: _AddedToken, token_id: int) -> spec.AddedToken:
    return spec.AddedToken(
        content=section.content,
        id=token_id,
        single_word=section.single_word,
        lstrip=section.lstrip,
        rstrip=section.rstrip,
        normalized=section.normalized,
        special=section.special,
    )


def _check_trim(model: spec.TokenModel, vocabulary: Mapping[str, int]) -> None:
    """Trimming needs each token's text by its id; unknown pieces of Unigram have the text of their place."""
    if isinstance(model, spec.Unigram):
        raise Unsupported("a post_processor with trim_offsets for a Unigram model")
    if len(set(vocabulary.values())) < len(vocabulary):
        raise Unsupported("a post_processor with trim_offsets for a vocabulary that has an id twice")


def _padding(section: msgspec.Raw, ids: Mapping[str, int]) -> tuple[int, int]:
    """Id and type id of padding: the file's, or those of its usual token, or 0."""
    if is_nothing(section):
        return next((ids[token] for token in _PAD_TOKENS if token in ids), 0), 0
    padding = read(section, _Padding, "padding")
    if not 0 <= padding.pad_id <= INT32_MAX:
        raise Contradiction(f"pad_id {padding.pad_id} is outside 0..{INT32_MAX}")
    if not 0 <= padding.pad_type_id <= TYPE_ID_MAX:
        raise Unsupported(f"pad_type_id {padding.pad_type_id}")
    return padding.pad_id, padding.pad_type_id
