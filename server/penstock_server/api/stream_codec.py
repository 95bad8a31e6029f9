"""Messages of live text streams to domain values and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from penstock.v1 import common_pb2, inference_pb2
from penstock_server.api import codec
from penstock_server.api.status import status_of
from penstock_server.config import RequestLimits
from penstock_server.domain.answer import Answer, Classifications, Vectors
from penstock_server.domain.errors import InvalidRequest, PenstockError
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestOptions, TaskOptions
from penstock_server.runtime.stream_events import (
    AppendEnd,
    StreamEvent,
    StreamResult,
    StreamRules,
    Superseded,
    TextAppended,
    TextArrived,
)

_IN_ORDER: dict[int, bool] = {
    inference_pb2.STREAM_ORDER_UNSPECIFIED: True,
    inference_pb2.STREAM_ORDER_IN_ORDER: True,
    inference_pb2.STREAM_ORDER_AS_READY: False,
}


@dataclass(frozen=True, slots=True)
class Opening:
    """What the first message of a stream asks for."""

    model: ModelKey
    task: TaskOptions
    options: RequestOptions
    rules: StreamRules
    vector_format: common_pb2.VectorFormat.ValueType


def opening_from_proto(
    message: inference_pb2.StreamOpen, limits: RequestLimits, deadline_ns: int | None
) -> Opening:
    """Reads the first message of a stream.

    Raises:
        InvalidRequest: A field is missing, unknown or out of its range.
    """
    if message.order not in _IN_ORDER:
        raise InvalidRequest.of_field("open.order", f"{message.order} is not a known value")
    task = TaskOptions(
        codec.task_from_proto(message.task, "open.task"),
        embed=codec.embed_options_from_proto(message.embed),
        classify=codec.classify_options_from_proto(message.classify),
    )
    rules = StreamRules(
        in_order=_IN_ORDER[message.order],
        max_in_flight=_max_in_flight(message.max_in_flight, limits),
        text_timeout_ns=_text_timeout_ns(message),
        deadline_ns=deadline_ns,
        id_bytes_max=limits.id_bytes_max,
    )
    return Opening(
        model=codec.model_from_proto(message.model),
        task=task,
        options=codec.options_from_proto(message.options),
        rules=rules,
        vector_format=codec.vector_format_from_proto(message.embed),
    )


async def events_from_proto(
    messages: AsyncIterator[inference_pb2.StreamRequest],
) -> AsyncIterator[StreamEvent]:
    """Reads the messages after the first.

    Raises:
        InvalidRequest: A message is empty, or opens the stream again; the stream cannot go on.
    """
    async for message in messages:
        match message.WhichOneof("message"):
            case "text":
                text = message.text
                pair = text.input.text_pair if text.input.HasField("text_pair") else None
                yield TextArrived(text.id, text.input.text, pair, text.key)
            case "append":
                yield TextAppended(message.append.id, message.append.text, message.append.end)
            case "open":
                raise InvalidRequest.of_field("open", "came twice; open another stream for other options")
            case _:
                raise InvalidRequest.of_field("message", "is not set; send text or append")


def result_to_proto(
    result: StreamResult[Answer], vector_format: common_pb2.VectorFormat.ValueType
) -> inference_pb2.StreamResponse:
    """Writes what became of a text."""
    message = inference_pb2.StreamResult(id=result.id)
    if result.sentence is not None:
        message.sentence.index = result.sentence.index
        message.sentence.start_char = result.sentence.start_char
        message.sentence.end_char = result.sentence.end_char
    match result.outcome:
        case PenstockError() as error:
            message.error.CopyFrom(status_of(error))
        case Superseded(by_id=by_id):
            message.superseded.by_id = by_id
        case AppendEnd(sentences=sentences):
            message.append_end.sentences = sentences
        case Answer() as answer:
            _write_answer(message, answer, vector_format)
    return inference_pb2.StreamResponse(result=message)


def _write_answer(
    message: inference_pb2.StreamResult, answer: Answer, vector_format: common_pb2.VectorFormat.ValueType
) -> None:
    if isinstance(answer.outcome, Vectors):
        message.embedding.CopyFrom(codec.embeddings_to_proto(answer.outcome, vector_format)[0])
    else:
        assert isinstance(answer.outcome, Classifications)
        message.classification.CopyFrom(codec.classifications_to_proto(answer.outcome)[0])
    message.info.CopyFrom(codec.info_to_proto(answer.info))


def _max_in_flight(number: int, limits: RequestLimits) -> int:
    if not 0 <= number <= limits.stream_in_flight_max:
        raise InvalidRequest.of_field(
            "open.max_in_flight", f"is {number}; it must be from 0 (default) to {limits.stream_in_flight_max}"
        )
    return number or limits.stream_in_flight_default


def _text_timeout_ns(message: inference_pb2.StreamOpen) -> int | None:
    if not message.HasField("text_timeout_ms"):
        return None
    if message.text_timeout_ms <= 0:
        raise InvalidRequest.of_field("open.text_timeout_ms", "must be positive; leave it out for no limit")
    return message.text_timeout_ms * 1_000_000
