"""From the caller's texts and options to request messages. Pure; wrong types fail here, with their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

from penstock.errors import ErrorDetails, InvalidRequestError, Violation
from penstock.options import (
    Aggregation,
    CallOptions,
    OverloadPolicy,
    RequestClass,
    RowOptions,
    ScoreFunction,
    TaskOptions,
    Truncation,
    WireEnum,
)
from penstock.v1 import common_pb2

Text = str | tuple[str, str]
WireT = TypeVar("WireT", bound=WireEnum)

# Bytes that UTF-8 takes at most for a character of a str that is not ASCII.
_UTF8_BYTES_MAX = 4


def parse(kind: type[WireT], word: WireT | str) -> WireT:
    """Returns the member for a word.

    Raises:
        ValueError: There is no such word; the text lists those there are.
    """
    # Called by its value alone, an Enum looks up the member; checkers see the constructor of a new one.
    lookup = cast(Callable[[str], WireT], kind)
    return lookup(word)


def number_of(kind: type[WireEnum], word: WireEnum | str | None) -> int:
    """Returns the contract's number of a word; None is unspecified, 0.

    Raises:
        ValueError: There is no such word; the text lists those there are.
    """
    return 0 if word is None else parse(kind, word).number


def inputs_of(texts: Iterable[Text], argument: str = "texts") -> list[common_pb2.TextInput]:
    """Builds the messages of texts and text pairs.

    Raises:
        TypeError: ``texts`` is a single text, or an item is neither a str nor a pair of str.
        InvalidRequestError: A text cannot be written as UTF-8.
    """
    refuse_single(texts, argument)
    return [input_of(text, f"{argument}[{index}]") for index, text in enumerate(texts)]


def input_of(text: Text, argument: str) -> common_pb2.TextInput:
    """Builds the message of one text or pair."""
    # What the annotation promises is checked all the same: most callers have no type checker.
    item = cast(object, text)
    try:
        if isinstance(item, str):
            return common_pb2.TextInput(text=item)
        if isinstance(item, tuple | list):
            parts = cast(Sequence[object], item)
            if len(parts) == 2 and isinstance(parts[0], str) and isinstance(parts[1], str):
                return common_pb2.TextInput(text=parts[0], text_pair=parts[1])
    except UnicodeEncodeError as error:
        raise _not_utf8(argument, error) from None
    raise TypeError(f"{argument} must be a str or a (str, str) pair, not {_short(text)}")


def strings_of(texts: Iterable[str], argument: str) -> list[str]:
    """Checks a list of plain texts."""
    refuse_single(texts, argument)
    checked: list[str] = []
    for index, text in enumerate(cast(Iterable[object], texts)):
        if not isinstance(text, str):
            raise TypeError(f"{argument}[{index}] must be a str, not {_short(text)}")
        check_utf8(text, f"{argument}[{index}]")
        checked.append(text)
    return checked


def refuse_single(texts: object, argument: str) -> None:
    """Refuses one str where many are meant: it would be read as a list of its characters."""
    if isinstance(texts, str | bytes):
        raise TypeError(f"{argument} must be a list of texts, not a single one: write [{_short(texts, 20)}]")


def check_utf8(text: str, argument: str) -> None:
    """Refuses a str with lone surrogates, which no UTF-8 can carry."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise _not_utf8(argument, error) from None


def text_bytes_max(text: str) -> int:
    """Bounds the bytes of a text in UTF-8, without encoding it."""
    return len(text) if text.isascii() else len(text) * _UTF8_BYTES_MAX


def input_bytes_max(text: common_pb2.TextInput) -> int:
    """Returns the bytes of a text or pair in a message."""
    return text.ByteSize()


def model_of(model: str, version: str) -> common_pb2.ModelRef:
    """Builds the message that names a model."""
    if not isinstance(cast(object, model), str):
        raise TypeError(f"model must be the model's name, not {_short(model)}")
    return common_pb2.ModelRef(name=model, version=version)


def row_options_of(options: RowOptions) -> common_pb2.RequestOptions:
    """Builds the options that calls, streams and jobs share."""
    return common_pb2.RequestOptions(
        truncation=cast(common_pb2.Truncation.ValueType, number_of(Truncation, options.get("truncation"))),
        tokens_max=options.get("tokens_max") or 0,
        tenant=options.get("tenant", ""),
    )


def call_options_of(options: CallOptions) -> common_pb2.RequestOptions:
    """Builds the options of a call or stream."""
    message = row_options_of(options)
    message.request_class = cast(
        common_pb2.RequestClass.ValueType, number_of(RequestClass, options.get("request_class"))
    )
    message.overload_policy = cast(
        common_pb2.OverloadPolicy.ValueType, number_of(OverloadPolicy, options.get("on_overload"))
    )
    message.explain = options.get("explain", False)
    return message


def embed_options_of(options: TaskOptions) -> common_pb2.EmbedOptions:
    """Builds the options of the embed task; unset is the model's own setting."""
    return common_pb2.EmbedOptions(
        normalize=options.get("normalize"), dimensions=options.get("dimensions") or 0
    )


def classify_options_of(options: TaskOptions) -> common_pb2.ClassifyOptions:
    """Builds the options of the classify task."""
    return common_pb2.ClassifyOptions(
        top_k=options.get("top_k") or 0, score_function=score_function_of(options.get("score_function"))
    )


def tag_options_of(options: TaskOptions) -> common_pb2.TagOptions:
    """Builds the options of the tag task."""
    number = number_of(Aggregation, options.get("aggregation"))
    return common_pb2.TagOptions(
        aggregation=cast(common_pb2.Aggregation.ValueType, number),
        score_min=options.get("score_min") or 0.0,
    )


def score_function_of(word: ScoreFunction | str | None) -> common_pb2.ScoreFunction.ValueType:
    """Returns the contract's number of a score function."""
    return cast(common_pb2.ScoreFunction.ValueType, number_of(ScoreFunction, word))


def _not_utf8(argument: str, error: UnicodeEncodeError) -> InvalidRequestError:
    why = f"not valid Unicode at character {error.start}: {error.reason}; decode it with errors='replace'"
    violation = Violation(argument, why)
    return InvalidRequestError(f"{argument}: {why}", ErrorDetails("INVALID_REQUEST", violations=(violation,)))


def _short(item: object, length: int = 40) -> str:
    shown = repr(item)
    return shown if len(shown) <= length else f"{shown[:length]}…"
