"""Live text: what goes into a stream, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from penstock.answers import AnswerInfo, Classification, Span
from penstock.errors import PenstockError, of_status
from penstock.inputs import (
    Text,
    call_options_of,
    check_utf8,
    classify_options_of,
    embed_options_of,
    input_of,
    model_of,
    number_of,
    tag_options_of,
)
from penstock.options import StreamOptions, StreamOrder, Task
from penstock.outcomes import Answer, answer_of
from penstock.v1 import common_pb2, inference_pb2
from penstock.vectors import Embedding

_INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class StreamText:
    """A text of a stream.

    Attributes:
        id: The caller's name for the text, repeated in its answer; unique among texts in flight.
        text: The text, or a pair.
        key: Latest wins: a text supersedes an earlier one with the same key that is not yet computed.
    """

    id: str
    text: Text
    key: str = ""


@dataclass(frozen=True, slots=True)
class StreamAppend:
    """A piece of a growing text, such as a transcript; each finished sentence is answered.

    Attributes:
        id: The caller's name for the growing text.
        text: What is added at its end.
        end: The text ends here: what remains is answered as a sentence.
    """

    id: str
    text: str
    end: bool = False


# A text alone is given a number for its id: "0", "1", …, in the order of the items.
StreamItem = str | tuple[str, str] | StreamText | StreamAppend


@dataclass(frozen=True, slots=True)
class SentenceRange:
    """Where a sentence stands in a growing text; characters are code points of the whole text."""

    index: int
    start_char: int
    end_char: int


@dataclass(frozen=True, slots=True)
class StreamResult:
    """The answer to one text or sentence: just one of answer, error, superseded_by, sentences_total is set.

    Attributes:
        id: Id of the text.
        answer: The text's vector, labels or spans.
        error: Why the text could not be answered; the stream goes on.
        superseded_by: Id of the later text with the same key that replaced it.
        sentence: Where the sentence stands; for growing texts only.
        sentences_total: The growing text is complete; so many sentences were answered.
        info: What answered; None for errors and superseded texts.
    """

    id: str
    answer: Answer | None = None
    error: PenstockError | None = None
    superseded_by: str | None = None
    sentence: SentenceRange | None = None
    sentences_total: int | None = None
    info: AnswerInfo | None = None

    @property
    def embedding(self) -> Embedding | None:
        """The answer, if it is a vector."""
        return self.answer if isinstance(self.answer, Embedding) else None

    @property
    def classification(self) -> Classification | None:
        """The answer, if it is labels."""
        return self.answer if isinstance(self.answer, Classification) else None

    @property
    def tags(self) -> tuple[Span, ...] | None:
        """The answer, if it is spans."""
        return self.answer if isinstance(self.answer, tuple) else None

    @classmethod
    def of(cls, message: inference_pb2.StreamResult) -> StreamResult:
        """Reads the server's message."""
        outcome = message.WhichOneof("outcome")
        sentence = None
        if message.HasField("sentence"):
            place = message.sentence
            sentence = SentenceRange(place.index, place.start_char, place.end_char)
        return cls(
            message.id,
            answer=answer_of(message),
            error=of_status(message.error) if outcome == "error" else None,
            superseded_by=message.superseded.by_id if outcome == "superseded" else None,
            sentence=sentence,
            sentences_total=message.append_end.sentences if outcome == "append_end" else None,
            info=AnswerInfo.of(message.info) if message.HasField("info") else None,
        )


def results_of(message: inference_pb2.StreamResponse) -> Iterator[StreamResult]:
    """Yields the answer of a message, if it is one and not the note that the stream is open."""
    if message.WhichOneof("message") == "result":
        yield StreamResult.of(message.result)


def open_request(model: str, task: Task | str, options: StreamOptions) -> inference_pb2.StreamRequest:
    """Builds the message that opens a stream."""
    text_timeout_s = options.get("text_timeout_s")
    opening = inference_pb2.StreamOpen(
        model=model_of(model, options.get("version", "")),
        task=cast(common_pb2.Task.ValueType, number_of(Task, task)),
        options=call_options_of(options),
        embed=embed_options_of(options),
        classify=classify_options_of(options),
        tag=tag_options_of(options),
        order=cast(inference_pb2.StreamOrder.ValueType, number_of(StreamOrder, options.get("order"))),
        max_in_flight=options.get("max_in_flight") or 0,
        # The field holds 24 days; more, or for ever, is as good as that.
        text_timeout_ms=None
        if text_timeout_s is None
        else max(1, round(min(text_timeout_s * 1000, _INT32_MAX))),
    )
    return inference_pb2.StreamRequest(open=opening)


def item_requests() -> Callable[[StreamItem], inference_pb2.StreamRequest]:
    """Returns a function that builds the message of each item, numbering the texts that have no id."""
    position = -1

    def build(item: StreamItem) -> inference_pb2.StreamRequest:
        nonlocal position
        position += 1
        return _item_request(item, position)

    return build


def _item_request(item: StreamItem, position: int) -> inference_pb2.StreamRequest:
    argument = f"texts[{position}]"
    if isinstance(item, StreamAppend):
        check_utf8(item.text, argument)
        append = inference_pb2.StreamAppend(id=item.id, text=item.text, end=item.end)
        return inference_pb2.StreamRequest(append=append)
    if isinstance(item, str):
        item = StreamText(str(position), item)
    elif isinstance(item, tuple) and len(cast(tuple[object, ...], item)) == 2:
        item = StreamText(item[0], item[1])
    if not isinstance(item, StreamText):
        kinds = "a str, an (id, text) pair, a StreamText or a StreamAppend"
        raise TypeError(f"{argument} must be {kinds}, not {type(cast(object, item)).__name__}")
    text = inference_pb2.StreamText(id=item.id, input=input_of(item.text, argument), key=item.key)
    return inference_pb2.StreamRequest(text=text)
