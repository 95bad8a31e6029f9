"""What a WordPiece tokenizer is made of, as ``tokenizer.json`` says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is found in text before any word is cut.

    Attributes:
        content: The text that is looked for; not empty.
        id: Its token id.
        single_word: It matches only where no word character touches it.
        lstrip: Whitespace before it belongs to it.
        rstrip: Whitespace after it belongs to it.
        normalized: It is looked for, normalised, in normalised text; else as it is in the raw text.
    """

    content: str
    id: int
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


class Slot(IntEnum):
    """What an element of a template stands for."""

    FIRST = 0
    SECOND = 1
    SPECIAL = 2


@dataclass(frozen=True, slots=True)
class TemplatePiece:
    """One element of a template: a text, or one special token.

    Attributes:
        slot: What stands here.
        type_id: Type id of its tokens, 0 to 255.
        token_id: The special token; unused for texts.
    """

    slot: Slot
    type_id: int = 0
    token_id: int = 0


@dataclass(frozen=True, slots=True)
class WordPieceSpec:
    """A BERT-style tokenizer: normaliser, added tokens, vocabulary and templates.

    Attributes:
        vocabulary: Token ids, 0 to 2**31 - 1, by token.
        unknown_id: Id of words that the vocabulary cannot spell.
        continuing_prefix: What vocabulary entries inside a word begin with.
        word_chars_max: Longer words, in code points after normalisation, are unknown.
        clean_text: Delete control characters and unify whitespace.
        handle_chinese_chars: Make every CJK ideograph a word of its own.
        strip_accents: Decompose (NFD) and delete marks.
        lowercase: Lower-case.
        added_tokens: Tokens found in text.
        single: Template of one text.
        pair: Template of two.
    """

    vocabulary: Mapping[str, int]
    unknown_id: int
    continuing_prefix: str = "##"
    word_chars_max: int = 100
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool = True
    lowercase: bool = True
    added_tokens: tuple[AddedToken, ...] = ()
    single: tuple[TemplatePiece, ...] = (TemplatePiece(Slot.FIRST),)
    pair: tuple[TemplatePiece, ...] = field(
        default=(TemplatePiece(Slot.FIRST), TemplatePiece(Slot.SECOND, type_id=1))
    )

    def tokens_by_id(self) -> dict[int, str]:
        """Token text by id, added tokens included."""
        tokens = {token_id: token for token, token_id in self.vocabulary.items()}
        return tokens | {token.id: token.content for token in self.added_tokens}
