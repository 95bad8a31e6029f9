"""Messages to domain values and back, for live calls; what jobs and streams share is here too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf import duration_pb2

from penstock.v1 import common_pb2
from penstock_server.domain.answer import Answer, AnswerInfo, Classifications, Vectors
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.explanation import BatchRun, Explanation
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import (
    ClassifyOptions,
    EmbedOptions,
    OverloadPolicy,
    RequestClass,
    RequestOptions,
    ScoreFunction,
    Task,
    Truncation,
)
from penstock_server.runtime.request_ticket import TextRow

NAME_BYTES_MAX = 128
# Measured 2026-11-27: 3 us for a vector of 384 as numbers and its place in the response, 1.3 us for a label.
_QUICK_VECTORS_MAX = 256
_QUICK_LABELS_MAX = 512
# How the field `values` begins on the wire: its number, and that a length follows.
_VALUES_TAG = bytes([common_pb2.Embedding.DESCRIPTOR.fields_by_name["values"].number << 3 | 2])

_Value = TypeVar("_Value")

_TASKS: dict[int, Task] = {
    common_pb2.TASK_EMBED: Task.EMBED,
    common_pb2.TASK_CLASSIFY: Task.CLASSIFY,
    common_pb2.TASK_TAG: Task.TAG,
    common_pb2.TASK_RERANK: Task.RERANK,
}
_CLASSES: dict[int, RequestClass | None] = {
    common_pb2.REQUEST_CLASS_UNSPECIFIED: None,
    common_pb2.REQUEST_CLASS_LIVE_CRITICAL: RequestClass.LIVE_CRITICAL,
    common_pb2.REQUEST_CLASS_LIVE: RequestClass.LIVE,
    common_pb2.REQUEST_CLASS_FLEX: RequestClass.FLEX,
    common_pb2.REQUEST_CLASS_BULK: RequestClass.BULK,
}
_POLICIES: dict[int, OverloadPolicy | None] = {
    common_pb2.OVERLOAD_POLICY_UNSPECIFIED: None,
    common_pb2.OVERLOAD_POLICY_REJECT: OverloadPolicy.REJECT,
    common_pb2.OVERLOAD_POLICY_DEMOTE_TO_FLEX: OverloadPolicy.DEMOTE_TO_FLEX,
    common_pb2.OVERLOAD_POLICY_DEMOTE_TO_BULK: OverloadPolicy.DEMOTE_TO_BULK,
}
_TRUNCATIONS: dict[int, Truncation | None] = {
    common_pb2.TRUNCATION_UNSPECIFIED: None,
    common_pb2.TRUNCATION_ERROR: Truncation.ERROR,
    common_pb2.TRUNCATION_RIGHT: Truncation.RIGHT,
    common_pb2.TRUNCATION_LEFT: Truncation.LEFT,
}
_SCORE_FUNCTIONS: dict[int, ScoreFunction | None] = {
    common_pb2.SCORE_FUNCTION_UNSPECIFIED: None,
    common_pb2.SCORE_FUNCTION_SOFTMAX: ScoreFunction.SOFTMAX,
    common_pb2.SCORE_FUNCTION_SIGMOID: ScoreFunction.SIGMOID,
    common_pb2.SCORE_FUNCTION_NONE: ScoreFunction.NONE,
}
_CLASS_NUMBERS: dict[RequestClass, common_pb2.RequestClass.ValueType] = {
    RequestClass.LIVE_CRITICAL: common_pb2.REQUEST_CLASS_LIVE_CRITICAL,
    RequestClass.LIVE: common_pb2.REQUEST_CLASS_LIVE,
    RequestClass.FLEX: common_pb2.REQUEST_CLASS_FLEX,
    RequestClass.BULK: common_pb2.REQUEST_CLASS_BULK,
}
TASK_NUMBERS: dict[Task, common_pb2.Task.ValueType] = {
    Task.EMBED: common_pb2.TASK_EMBED,
    Task.CLASSIFY: common_pb2.TASK_CLASSIFY,
    Task.TAG: common_pb2.TASK_TAG,
    Task.RERANK: common_pb2.TASK_RERANK,
}


def model_from_proto(ref: common_pb2.ModelRef) -> ModelKey:
    """Reads which model is meant; the version may be empty."""
    if not ref.name:
        raise InvalidRequest.of_field("model.name", "is required; ListModels tells the names")
    return ModelKey(name_from_proto(ref.name, "model.name"), name_from_proto(ref.version, "model.version"))


def name_from_proto(name: str, field: str) -> str:
    """Reads a name or an id, which must be short: it is repeated in logs and errors."""
    if len(name.encode()) > NAME_BYTES_MAX:
        raise InvalidRequest.of_field(field, f"is longer than {NAME_BYTES_MAX} bytes")
    return name


def task_from_proto(number: int, field: str = "task") -> Task:
    """Reads a task, which must be set."""
    return _known(_TASKS, number, field)


def options_from_proto(message: common_pb2.RequestOptions) -> RequestOptions:
    """Reads the options of any request."""
    return RequestOptions(
        request_class=_known(_CLASSES, message.request_class, "options.request_class"),
        overload_policy=_known(_POLICIES, message.overload_policy, "options.overload_policy"),
        truncation=_known(_TRUNCATIONS, message.truncation, "options.truncation"),
        tokens_max=_positive_or_none(message.tokens_max, "options.tokens_max"),
        tenant=name_from_proto(message.tenant, "options.tenant"),
        explain=message.explain,
    )


def embed_options_from_proto(message: common_pb2.EmbedOptions) -> EmbedOptions:
    """Reads the options of the embed head."""
    return EmbedOptions(
        normalize=message.normalize if message.HasField("normalize") else None,
        dimensions=_positive_or_none(message.dimensions, "embed.dimensions"),
    )


def classify_options_from_proto(message: common_pb2.ClassifyOptions) -> ClassifyOptions:
    """Reads the options of the classify head."""
    return ClassifyOptions(
        top_k=_positive_or_none(message.top_k, "classify.top_k"),
        score_function=_known(_SCORE_FUNCTIONS, message.score_function, "classify.score_function"),
    )


def vector_format_from_proto(message: common_pb2.EmbedOptions) -> common_pb2.VectorFormat.ValueType:
    """Reads how vectors travel, which must be a known format."""
    if message.vector_format not in common_pb2.VectorFormat.values():
        raise InvalidRequest.of_field("embed.vector_format", f"{message.vector_format} is not a known value")
    return message.vector_format


def rows_from_proto(inputs: Iterable[common_pb2.TextInput], *, pairs: bool) -> list[TextRow]:
    """Reads texts, or pairs where the task allows them."""
    rows = [TextRow(item.text, item.text_pair if item.HasField("text_pair") else None) for item in inputs]
    if not pairs:
        for index, row in enumerate(rows):
            if row.pair is not None:
                raise InvalidRequest.of_field(
                    f"inputs[{index}].text_pair", "this task takes single texts only"
                )
    return rows


def info_to_proto(info: AnswerInfo) -> common_pb2.AnswerInfo:
    """Writes what is said of an answer."""
    explanation = info.explanation
    return common_pb2.AnswerInfo(
        model=info.model.name,
        model_version=info.model.version,
        served_class=_CLASS_NUMBERS[info.served_class],
        timings=common_pb2.Timings(
            total=_duration(info.total_ns),
            tokenise=_duration(info.tokenise_ns),
            queue=_duration(info.queue_ns),
            compute=_duration(info.compute_ns),
        ),
        tokens=info.tokens,
        truncated_rows=info.truncated_rows,
        job_id=info.job_id,
        explanation=None if explanation is None else explanation_to_proto(explanation),
    )


def explanation_to_proto(explanation: Explanation) -> common_pb2.Explanation:
    """Writes what happened to a request."""
    demoted_from, predicted_ns = explanation.demoted_from, explanation.predicted_ns
    return common_pb2.Explanation(
        batches=[_batch_to_proto(run, explanation.admitted_ns) for run in explanation.batches],
        tenant=explanation.tenant,
        demoted_from=common_pb2.REQUEST_CLASS_UNSPECIFIED
        if demoted_from is None
        else _CLASS_NUMBERS[demoted_from],
        routing_rule=explanation.routing_rule,
        spared_version=explanation.spared_version,
        cached_rows=explanation.cached_rows,
        predicted=None if predicted_ns is None else _duration(predicted_ns),
    )


def _batch_to_proto(run: BatchRun, admitted_ns: int) -> common_pb2.BatchExplanation:
    return common_pb2.BatchExplanation(
        lane=run.lane,
        rows=run.rows,
        own_rows=run.own_rows,
        tokens=run.tokens,
        padded_tokens=run.padded_tokens,
        shared_with=[
            common_pb2.ClassRows(request_class=_CLASS_NUMBERS[request_class], rows=rows)
            for request_class, rows in run.rows_by_class
        ],
        waited=_duration(run.start_ns - admitted_ns),
        computed=_duration(run.end_ns - run.start_ns),
        shared_rows=run.shared_rows,
    )


def embeddings_to_proto(
    vectors: Vectors, vector_format: common_pb2.VectorFormat.ValueType
) -> list[common_pb2.Embedding]:
    """Writes vectors, packed unless numbers were asked for."""
    little_endian = vectors.values.astype("<f4", copy=False)
    if vector_format == common_pb2.VECTOR_FORMAT_REPEATED_FLOAT:
        # As the field lies on the wire: reading it copies the numbers at once, where a list of them would be
        # a Python object each (1,024 vectors of 384: 1.7 ms against 21, measured 2026-11-27).
        head = _VALUES_TAG + _varint(4 * vectors.values.shape[1])
        return [common_pb2.Embedding.FromString(head + row.tobytes()) for row in little_endian]
    return [common_pb2.Embedding(packed=row.tobytes()) for row in little_endian]


def is_quickly_written(outcome: Vectors | Classifications | None) -> bool:
    """Whether a message of these answers is written within about a millisecond."""
    if outcome is None:
        return True
    if isinstance(outcome, Vectors):
        return len(outcome.values) <= _QUICK_VECTORS_MAX
    return outcome.scores.size <= _QUICK_LABELS_MAX


def classifications_to_proto(answers: Classifications) -> list[common_pb2.Classification]:
    """Writes labels with their scores."""
    label_ids: list[list[int]] = answers.label_ids.tolist()
    scores: list[list[float]] = answers.scores.tolist()
    return [
        common_pb2.Classification(
            labels=[
                common_pb2.LabelScore(label=answers.labels[label_id], score=score)
                for label_id, score in zip(row_ids, row_scores, strict=True)
            ]
        )
        for row_ids, row_scores in zip(label_ids, scores, strict=True)
    ]


def vectors_of(answer: Answer) -> Vectors | None:
    """The vectors of an embed answer; None if a job computes them."""
    assert answer.outcome is None or isinstance(answer.outcome, Vectors)
    return answer.outcome


def classifications_of(answer: Answer) -> Classifications | None:
    """The labels of a classify answer; None if a job computes them."""
    assert answer.outcome is None or isinstance(answer.outcome, Classifications)
    return answer.outcome


def _varint(number: int) -> bytes:
    """A number as protobuf writes lengths: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _duration(nanoseconds: int) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(max(0, nanoseconds))
    return duration


def _known(values: dict[int, _Value], number: int, field: str) -> _Value:
    if number not in values:
        reason = "is required" if number == 0 else f"{number} is not a known value"
        raise InvalidRequest.of_field(field, reason)
    return values[number]


def _positive_or_none(number: int, field: str) -> int | None:
    if number < 0:
        raise InvalidRequest.of_field(field, "must not be negative; 0 means the default")
    return number or None
