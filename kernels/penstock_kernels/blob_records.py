"""The small records of a compiled tokenizer: stages, added tokens and templates (penstock/blob.h)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from penstock_kernels import spec

Text = tuple[int, int]  # a TextRef: where it begins among the strings, and its size in bytes
# Chosen: sixty times the largest vocabularies; bounds the tables that have a place for every id.
TOKEN_IDS_MAX = 1 << 24
_NO_TEXT: Text = (0, 0)

_STAGE = np.dtype(
    [
        ("kind", "<i4"),
        ("flags", "<i4"),
        ("number", "<i4"),
        ("unused", "<i4"),
        ("text", "<u4", 2),
        ("other", "<u4", 2),
    ]
)
_ADDED_TOKEN = np.dtype([("id", "<i4"), ("flags", "<i4"), ("content", "<u4", 2)])
_TEMPLATE = np.dtype([("slot", "<i4"), ("type_id", "<i4"), ("token_id", "<i4"), ("unused", "<i4")])


class Strings:
    """Texts one behind the other; equal ones are kept once."""

    def __init__(self) -> None:
        self._texts: dict[str, Text] = {}
        self._bytes = bytearray()

    def put(self, text: str) -> Text:
        """Where the text lies."""
        if text not in self._texts:
            encoded = text.encode()
            self._texts[text] = len(self._bytes), len(encoded)
            self._bytes += encoded
        return self._texts[text]

    def bytes(self) -> bytes:
        """All of them."""
        return bytes(self._bytes)


_Stage = tuple[int, int, int, int, Text, Text]


def _stage(
    kind: int, *, flags: int = 0, number: int = 0, text: Text = _NO_TEXT, other: Text = _NO_TEXT
) -> _Stage:
    return kind, flags, number, 0, text, other


def normalizers(stages: Iterable[spec.Normalizer], strings: Strings) -> bytes:
    """StageRecords of normalisers."""
    return np.array([_normalizer(stage, strings) for stage in stages], _STAGE).tobytes()


def _normalizer(stage: spec.Normalizer, strings: Strings) -> _Stage:
    match stage:
        case spec.BertNormalizer(clean, chinese, accents, lower):
            return _stage(1, flags=flags(clean, chinese, accents, lower))
        case spec.UnicodeForm(form):
            return _stage(2, number=form)
        case spec.Lowercase():
            return _stage(3)
        case spec.StripAccents():
            return _stage(4)
        case spec.Strip(left, right):
            return _stage(5, flags=flags(left, right))
        case spec.Replace(pattern, content):
            return _stage(6, text=strings.put(pattern), other=strings.put(content))
        case spec.ReplaceSpaceRuns(content):
            return _stage(7, other=strings.put(content))
        case spec.Prepend(text):
            return _stage(8, text=strings.put(text))
        case spec.Precompiled():
            return _stage(9)


def pre_tokenizers(stages: Iterable[spec.PreTokenizer], strings: Strings) -> bytes:
    """StageRecords of pre-tokenisers."""
    return np.array([_pre_tokenizer(stage, strings) for stage in stages], _STAGE).tobytes()


def _pre_tokenizer(stage: spec.PreTokenizer, strings: Strings) -> _Stage:
    match stage:
        case spec.BertPreTokenizer():
            return _stage(1)
        case spec.WhitespaceSplit():
            return _stage(2)
        case spec.Whitespace():
            return _stage(3)
        case spec.Punctuation(behavior):
            return _stage(4, number=behavior)
        case spec.Digits(individual):
            return _stage(5, flags=flags(individual))
        case spec.ByteLevel(prefix, regex):
            return _stage(6, flags=flags(prefix, regex))
        case spec.Metaspace(replacement, scheme, split):
            return _stage(7, flags=flags(split), number=scheme, text=strings.put(replacement))


def added_tokens(tokens: Iterable[spec.AddedToken], strings: Strings) -> bytes:
    """AddedTokenRecords."""
    records = [
        (
            token.id,
            flags(token.single_word, token.lstrip, token.rstrip, token.normalized, token.special),
            strings.put(token.content),
        )
        for token in tokens
    ]
    return np.array(records, _ADDED_TOKEN).tobytes()


def template(pieces: Sequence[spec.TemplatePiece]) -> bytes:
    """TemplateRecords."""
    for piece in pieces:
        if not 0 <= piece.type_id <= 255:
            raise ValueError(f"type id {piece.type_id} is outside 0..255")
    records = [(piece.slot, piece.type_id, piece.token_id, 0) for piece in pieces]
    return np.array(records, _TEMPLATE).tobytes()


def ids_end_of(tokenizer: spec.TokenizerSpec) -> int:
    """One past the highest id that rows may have.

    Raises:
        ValueError: An id is out of the range that blobs can hold.
    """
    ids = list(tokenizer.tokens_by_id())
    ids += [
        piece.token_id for piece in (*tokenizer.single, *tokenizer.pair) if piece.slot is spec.Slot.SPECIAL
    ]
    lowest, highest = min([*ids, tokenizer.pad_id]), max([*ids, tokenizer.pad_id])
    if not 0 <= lowest <= highest < TOKEN_IDS_MAX:
        raise ValueError(f"token id {lowest if lowest < 0 else highest} is outside 0..{TOKEN_IDS_MAX - 1}")
    return highest + 1


def flags(*bits: bool) -> int:
    """The bits as a number, the first one lowest."""
    return sum(1 << place for place, bit in enumerate(bits) if bit)


def byte_characters() -> list[str]:
    """The characters that byte-level vocabularies write each byte as: itself, if it is visible in Latin-1."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(0x100 + hidden.index(byte)) for byte in range(256)]
