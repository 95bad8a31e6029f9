"""What a tokenizer is made of: the parts of ``tokenizer.json`` that Penstock computes, as plain values.

Names follow Hugging Face ``tokenizers``; each class is one component of its pipeline. The native core
compiles a TokenizerSpec to a blob (``penstock_kernels.blob``); the reference twin runs it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

# ---- Normalisers


@dataclass(frozen=True, slots=True)
class BertNormalizer:
    """The four stages of BERT, in this order; strip_accents is decided already (null follows lowercase)."""

    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool = True
    lowercase: bool = True


class Form(IntEnum):
    """A Unicode normal form (of Unicode 9.0, as the reference has it)."""

    NFC = 0
    NFD = 1
    NFKC = 2
    NFKD = 3


@dataclass(frozen=True, slots=True)
class UnicodeForm:
    """NFC, NFD, NFKC or NFKD."""

    form: Form


@dataclass(frozen=True, slots=True)
class Lowercase:
    """Lower-cases character by character (Rust's ``char::to_lowercase``; no final sigma)."""


@dataclass(frozen=True, slots=True)
class StripAccents:
    """Deletes combining marks; decomposes nothing."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Deletes whitespace at the piece's ends."""

    left: bool = True
    right: bool = True


@dataclass(frozen=True, slots=True)
class Replace:
    """Replaces every occurrence of a literal text (not empty)."""

    pattern: str
    content: str


@dataclass(frozen=True, slots=True)
class ReplaceSpaceRuns:
    """Replaces every run of two or more U+0020 (the regex `` {2,}``)."""

    content: str


@dataclass(frozen=True, slots=True)
class Prepend:
    """Puts a text before the piece, unless the piece is empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Precompiled:
    """SentencePiece's character map, as the bytes that the JSON holds in base64."""

    charsmap: bytes


Normalizer: TypeAlias = (
    BertNormalizer
    | UnicodeForm
    | Lowercase
    | StripAccents
    | Strip
    | Replace
    | ReplaceSpaceRuns
    | Prepend
    | Precompiled
)

# ---- Pre-tokenisers


@dataclass(frozen=True, slots=True)
class BertPreTokenizer:
    """Cuts at whitespace, isolates punctuation (Unicode 8.0)."""


@dataclass(frozen=True, slots=True)
class WhitespaceSplit:
    """Cuts at whitespace."""


@dataclass(frozen=True, slots=True)
class Whitespace:
    r"""Keeps the matches of ``\w+|[^\w\s]+``."""


class SplitBehavior(IntEnum):
    """What becomes of a delimiter."""

    REMOVED = 0
    ISOLATED = 1
    MERGED_WITH_PREVIOUS = 2
    MERGED_WITH_NEXT = 3
    CONTIGUOUS = 4


@dataclass(frozen=True, slots=True)
class Punctuation:
    """Cuts at punctuation."""

    behavior: SplitBehavior = SplitBehavior.ISOLATED


@dataclass(frozen=True, slots=True)
class Digits:
    """Cuts numbers from the rest, each digit alone if ``individual``."""

    individual: bool = False


@dataclass(frozen=True, slots=True)
class ByteLevel:
    """GPT-2's pre-tokeniser: a space before the piece, its regex, and bytes as printable characters."""

    add_prefix_space: bool = True
    use_regex: bool = True


class PrependScheme(IntEnum):
    """Where Metaspace puts its character although no space is there."""

    ALWAYS = 0
    NEVER = 1
    FIRST = 2


@dataclass(frozen=True, slots=True)
class Metaspace:
    """SentencePiece's pre-tokeniser: spaces become ``replacement`` and, if ``split``, begin the words."""

    replacement: str = "\u2581"
    scheme: PrependScheme = PrependScheme.ALWAYS
    split: bool = True


PreTokenizer: TypeAlias = (
    BertPreTokenizer | WhitespaceSplit | Whitespace | Punctuation | Digits | ByteLevel | Metaspace
)

# ---- Models


@dataclass(frozen=True, slots=True)
class WordPiece:
    """Greedy longest prefixes.

    Attributes:
        vocabulary: Ids, 0 to 2**31 - 1, by token.
        unknown_id: Id of words that the vocabulary cannot spell.
        continuing_prefix: What vocabulary entries inside a word begin with.
        word_chars_max: Longer words, in code points after normalisation, are unknown.
    """

    vocabulary: Mapping[str, int]
    unknown_id: int
    continuing_prefix: str = "##"
    word_chars_max: int = 100


@dataclass(frozen=True, slots=True)
class Bpe:
    """Byte-pair merges in the order of their ranks.

    Attributes:
        vocabulary: Ids by token.
        merges: Pairs by rank; of duplicates the last counts. Both parts and their union are tokens.
        unknown_id: Id of characters that the vocabulary lacks; None drops them.
        continuing_prefix: Before every symbol but a word's first; "" for none.
        end_suffix: After a word's last symbol; "" for none.
        fuse_unknown: Neighbouring unknown characters make one token.
        byte_fallback: Unknown characters are spelt in ``<0xXX>`` tokens, if all of them exist.
        ignore_merges: A word that is in the vocabulary is its token, whatever the merges make of it.
    """

    vocabulary: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    unknown_id: int | None = None
    continuing_prefix: str = ""
    end_suffix: str = ""
    fuse_unknown: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


@dataclass(frozen=True, slots=True)
class Unigram:
    """The most probable cut.

    Attributes:
        pieces: Token and log probability by id, the doubles as the reference parses them.
        unknown_id: Index of the unknown piece, or None.
        byte_fallback: Unknown characters are spelt in ``<0xXX>`` tokens, if all of them exist.
    """

    pieces: tuple[tuple[str, float], ...]
    unknown_id: int | None = None
    byte_fallback: bool = False


TokenModel: TypeAlias = WordPiece | Bpe | Unigram

# ---- The rest


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
        special: It is not looked for in calls with ``split_special_tokens``.
    """

    content: str
    id: int
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = False


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
class TrimOffsets:
    """Post-processing of byte-level offsets: spaces are no part of a token's text.

    Attributes:
        add_prefix_space: As the post-processor (not the pre-tokeniser) has it.
    """

    add_prefix_space: bool = True


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """A whole tokenizer.

    Attributes:
        model: What cuts words into tokens.
        normalizers: Run in this order on each piece between added tokens.
        pre_tokenizers: Run in this order on each piece.
        added_tokens: Tokens found in text.
        single: Template of one text.
        pair: Template of two.
        trim: Trims offsets, if given.
        retypes_overflow: Overflow rows get the template's type ids too (RobertaProcessing, BertProcessing);
            else theirs stay those of the encoded texts (TemplateProcessing of tokenizers 0.23.3).
        pad_id: What fills up short rows, unless a call says otherwise.
        pad_type_id: Its type id.
    """

    model: TokenModel
    normalizers: tuple[Normalizer, ...] = ()
    pre_tokenizers: tuple[PreTokenizer, ...] = ()
    added_tokens: tuple[AddedToken, ...] = ()
    single: tuple[TemplatePiece, ...] = (TemplatePiece(Slot.FIRST),)
    pair: tuple[TemplatePiece, ...] = (TemplatePiece(Slot.FIRST), TemplatePiece(Slot.SECOND, type_id=1))
    trim: TrimOffsets | None = None
    retypes_overflow: bool = False
    pad_id: int = 0
    pad_type_id: int = 0

    def tokens_by_id(self) -> dict[int, str]:
        """Token text by id, added tokens included."""
        if isinstance(self.model, Unigram):
            tokens = {index: piece for index, (piece, _) in enumerate(self.model.pieces)}
        else:
            tokens = {token_id: token for token, token_id in self.model.vocabulary.items()}
        return tokens | {token.id: token.content for token in self.added_tokens}
