"""How texts are encoded: options that tokenizers take with every call, and what they say when they cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

# Word caches of one thread that encodes. Tables are powers of two in size, and 6 MiB are two of them and no
# rest: 131,072 short entries (4 MiB) and 16,384 long ones (2 MiB), each whole huge pages.
# Measured on 2026-11-24 (Zen 4, warm), 131,072 short entries against 65,536: English passages 873 MB/s, not
# 655; 390 languages with mBERT 121 MB/s, not 98. Unigram, whose odd words are long entries, gains about a
# seventh where those fill a huge page too.
CACHE_BYTES = 6 << 20
# More is a slip of the pen: it would hold every word of a language a hundred times.
CACHE_BYTES_MAX = 1 << 30
# As many threads as one tokenizer may be given, more than any machine has cores. Each has caches of its own.
TOKENIZER_THREADS_MAX = 4096
# All rows that one text may make when its overflow is asked for, in tokens: 64 MiB of ids.
OVERFLOW_TOKENS_MAX = 1 << 24
_INT_MAX = 2**31 - 1
_RANGES = {
    "tokens_max": (1, 2**62),
    "stride": (0, 2**62),
    "overflow_tokens_max": (1, 2**62),
    "pad_width": (0, _INT_MAX),
    "pad_multiple": (1, _INT_MAX),
    "pad_id": (0, _INT_MAX),
    "pad_type_id": (0, _INT_MAX),
    "threads": (1, _INT_MAX),
}


class TruncationStrategy(IntEnum):
    """Which text of a row is cut to the limit."""

    LONGEST_FIRST = 0
    ONLY_FIRST = 1
    ONLY_SECOND = 2
    DO_NOT_TRUNCATE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """What a call of a tokenizer is to do. Build one and use it for many calls: that makes short ones fast.

    Attributes:
        tokens_max: Longest row in tokens, special tokens included; None for no limit.
        truncation: Which text of a pair is cut. LONGEST_FIRST is the closed form of tokenizers.
        truncate_left: Cut the beginning of texts instead of the end.
        return_overflow: What is cut away makes further rows, right behind its text's row; of a pair, every
            combination of chunks does. ``samples`` tells which text a row is of. Only for packed rows.
        stride: Tokens that neighbouring rows of an overflow share; less than truncation leaves of a text.
        overflow_tokens_max: All rows that one text may make, in tokens.
        add_special_tokens: Whether the template's special tokens are added.
        split_special_tokens: Whether special tokens written in the texts are text like any other.
        return_offsets: Whether ``offsets`` are computed.
        return_special_mask: Whether ``special_mask`` is.
        return_word_ids: Whether ``word_ids`` are.
        return_sequence_ids: Whether ``sequence_ids`` are.
        pad_width: Width of padded tensors, or None for that of the longest row.
        pad_multiple: The width is rounded up to a multiple of it.
        pad_left: Padding goes before the tokens.
        pad_id: What fills up rows; None for the tokenizer's.
        pad_type_id: Its type id; None for the tokenizer's.
        threads: How many threads may work on the call, at most as many as the tokenizer may have. Results do
            not depend on it.
        compiled: What the native tokenizer made of the options; its own business.

    Raises:
        ValueError: A number is out of its range.
    """

    tokens_max: int | None = None
    truncation: TruncationStrategy = TruncationStrategy.LONGEST_FIRST
    truncate_left: bool = False
    return_overflow: bool = False
    stride: int = 0
    overflow_tokens_max: int = OVERFLOW_TOKENS_MAX
    add_special_tokens: bool = True
    split_special_tokens: bool = False
    return_offsets: bool = False
    return_special_mask: bool = False
    return_word_ids: bool = False
    return_sequence_ids: bool = False
    pad_width: int | None = None
    pad_multiple: int = 1
    pad_left: bool = False
    pad_id: int | None = None
    pad_type_id: int | None = None
    threads: int = 1
    compiled: object = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A number stands for its strategy; another one is refused.
        object.__setattr__(self, "truncation", TruncationStrategy(self.truncation))
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                bound = f"at least {least}" if value < least else f"at most {most}"
                raise ValueError(f"{name} must be {bound}, not {value}")


DEFAULT_OPTIONS = EncodeOptions()


class EncodeStatus(IntEnum):
    """Why a batch was not encoded; numbered as in penstock/row_encoder.h."""

    OK = 0
    OUT_OF_MEMORY = 1
    TEXT_TOO_LONG = 2
    LIMIT_BELOW_SPECIAL_TOKENS = 3
    SECOND_TEXT_MISSING = 4
    TEXT_TOO_SHORT = 5
    STRIDE_TOO_BIG = 6
    TOO_MUCH_OVERFLOW = 7
    ROW_TOO_WIDE = 8


def encode_error(
    status: EncodeStatus, row: int, options: EncodeOptions, special_tokens: tuple[int, int]
) -> MemoryError | ValueError:
    """The error for a batch that could not be encoded.

    Args:
        status: What was wrong.
        row: With which text.
        options: What was asked for.
        special_tokens: How many the template adds to one text, and to a pair.
    """
    match status:
        case EncodeStatus.OUT_OF_MEMORY:
            return MemoryError("not enough memory to hold the tokens; encode fewer texts at a time")
        case EncodeStatus.TEXT_TOO_LONG:
            what = "is longer than 2 GiB; cut it"
        case EncodeStatus.LIMIT_BELOW_SPECIAL_TOKENS:
            return ValueError(
                f"tokens_max is {options.tokens_max}, below the special tokens of a row "
                f"({special_tokens[0]} for a text, {special_tokens[1]} for a pair); allow more tokens"
            )
        case EncodeStatus.SECOND_TEXT_MISSING:
            what = "is too long and only second texts may be cut, but it has none; cut the first"
        case EncodeStatus.TEXT_TOO_SHORT:
            what = (
                f"cannot be cut to tokens_max, {options.tokens_max}, by {options.truncation.name} alone: "
                "the other text is too long; use LONGEST_FIRST or allow more tokens"
            )
        case EncodeStatus.STRIDE_TOO_BIG:
            what = (
                f"cannot overflow with stride {options.stride}: truncation to tokens_max, "
                f"{options.tokens_max}, leaves no more tokens of it; choose a smaller one or allow more"
            )
        case EncodeStatus.TOO_MUCH_OVERFLOW:
            what = (
                f"would overflow into more than overflow_tokens_max, {options.overflow_tokens_max}, tokens; "
                "choose a smaller stride, allow more tokens a row, or cut the text"
            )
        case _:
            what = (
                f"has more tokens than pad_width, {options.pad_width}, is wide; "
                "set tokens_max to the width, or leave the width to the longest row"
            )
    return ValueError(f"text {row} {what}")
