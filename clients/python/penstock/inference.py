"""The exchanges of live calls: split, ask, join."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from penstock.answers import (
    AnswerInfo,
    Classification,
    Classifications,
    RankedDocument,
    Ranking,
    TagLists,
    Tokenizations,
    Tokens,
    spans_of,
)
from penstock.exchange import Deadline, Exchange, Method, Step, ask, split_rows
from penstock.inputs import (
    Text,
    call_options_of,
    check_utf8,
    classify_options_of,
    embed_options_of,
    input_bytes_max,
    inputs_of,
    model_of,
    score_function_of,
    strings_of,
    tag_options_of,
    text_bytes_max,
)
from penstock.methods import CLASSIFY, EMBED, RERANK, TAG, TOKENIZE
from penstock.options import CallOptions, ScoreFunction, TaskOptions
from penstock.v1 import common_pb2, inference_pb2
from penstock.vectors import Embedding, Embeddings

ROWS_MAX = 1024
# Under gRPC's usual limit of 4 MiB a message, whatever the server's own limit is.
CALL_BYTES_MAX = 3 * 1024 * 1024

RowT = TypeVar("RowT")
ResponseT = TypeVar(
    "ResponseT",
    inference_pb2.EmbedResponse,
    inference_pb2.ClassifyResponse,
    inference_pb2.TagResponse,
    inference_pb2.RerankResponse,
    inference_pb2.TokenizeResponse,
)


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What every live call needs to know.

    Attributes:
        model: Name of the model.
        options: The caller's options.
        timeout_s: The client's own limit, where the options set none.
        rows_max: Most texts of one request.
    """

    model: str
    options: CallOptions
    timeout_s: float | None
    rows_max: int

    def deadline(self) -> Deadline:
        """Starts the call's deadline, which covers all its requests and retries."""
        return Deadline(self.options.get("timeout_s", self.timeout_s))


def embed(texts: Iterable[str], settings: CallSettings, task: TaskOptions) -> Exchange[Embeddings]:
    """Asks for one vector for each text."""
    options, head = call_options_of(settings.options), embed_options_of(task)

    def request(
        model: common_pb2.ModelRef, rows: Sequence[common_pb2.TextInput]
    ) -> inference_pb2.EmbedRequest:
        return inference_pb2.EmbedRequest(model=model, inputs=rows, options=options, embed=head)

    parts = _split(inputs_of(texts), settings)
    responses, info = yield from _ask_parts(EMBED, parts, request, settings)
    return Embeddings([Embedding.of(row) for each in responses for row in each.embeddings], info)


def classify(texts: Iterable[Text], settings: CallSettings, task: TaskOptions) -> Exchange[Classifications]:
    """Asks for the labels of each text or pair."""
    options, head = call_options_of(settings.options), classify_options_of(task)

    def request(
        model: common_pb2.ModelRef, rows: Sequence[common_pb2.TextInput]
    ) -> inference_pb2.ClassifyRequest:
        return inference_pb2.ClassifyRequest(model=model, inputs=rows, options=options, classify=head)

    parts = _split(inputs_of(texts), settings)
    responses, info = yield from _ask_parts(CLASSIFY, parts, request, settings)
    rows = [Classification.of(row) for each in responses for row in each.classifications]
    return Classifications(rows, info)


def tag(texts: Iterable[str], settings: CallSettings, task: TaskOptions) -> Exchange[TagLists]:
    """Asks for the labelled spans of each text."""
    options, head = call_options_of(settings.options), tag_options_of(task)

    def request(model: common_pb2.ModelRef, rows: Sequence[common_pb2.TextInput]) -> inference_pb2.TagRequest:
        return inference_pb2.TagRequest(model=model, inputs=rows, options=options, tag=head)

    parts = _split(inputs_of(texts), settings)
    responses, info = yield from _ask_parts(TAG, parts, request, settings)
    return TagLists([spans_of(row) for each in responses for row in each.tags], info)


@dataclass(frozen=True, slots=True)
class TokenizeSettings:
    """Options of Tokenize."""

    special_tokens: bool
    strings: bool
    offsets: bool


def tokenize(texts: Iterable[Text], settings: CallSettings, how: TokenizeSettings) -> Exchange[Tokenizations]:
    """Asks for the tokens of each text or pair."""
    options = call_options_of(settings.options)

    def request(
        model: common_pb2.ModelRef, rows: Sequence[common_pb2.TextInput]
    ) -> inference_pb2.TokenizeRequest:
        return inference_pb2.TokenizeRequest(
            model=model,
            inputs=rows,
            options=options,
            omit_special_tokens=not how.special_tokens,
            return_tokens=how.strings,
            return_offsets=how.offsets,
        )

    parts = _split(inputs_of(texts), settings)
    responses, info = yield from _ask_parts(TOKENIZE, parts, request, settings)
    rows = [
        Tokens.of(row, strings=how.strings, offsets=how.offsets)
        for each in responses
        for row in each.sequences
    ]
    return Tokenizations(rows, info)


def rerank_arguments(
    places: tuple[str | Iterable[str], ...], query: str | None, texts: Iterable[str] | None
) -> tuple[str, Iterable[str]]:
    """Tells query and documents apart, given by place or by name.

    Raises:
        TypeError: One is missing, given twice, or of the wrong type.
    """
    rest = list(places)
    if query is None and rest and isinstance(rest[0], str):
        query = cast(str, rest.pop(0))
    if texts is None and rest:
        texts = rest.pop(0)
    if query is None or texts is None or rest:
        raise TypeError("rerank takes a query and texts: rerank(query, texts, model=…)")
    return query, texts


def rerank(
    query: str,
    documents: Iterable[str],
    settings: CallSettings,
    top_k: int | None,
    score_function: ScoreFunction | str | None,
) -> Exchange[Ranking]:
    """Asks how well documents answer a query, and merges the parts by score."""
    check_utf8(query, "query")
    options, scoring = call_options_of(settings.options), score_function_of(score_function)

    def request(model: common_pb2.ModelRef, rows: Sequence[str]) -> inference_pb2.RerankRequest:
        return inference_pb2.RerankRequest(
            model=model,
            query=query,
            documents=rows,
            options=options,
            top_k=top_k or 0,
            score_function=scoring,
        )

    rows = strings_of(documents, "documents")
    parts = split_rows(rows, settings.rows_max, CALL_BYTES_MAX, text_bytes_max)
    responses, info = yield from _ask_parts(RERANK, parts, request, settings)
    ranked: list[RankedDocument] = []
    first = 0
    for part, response in zip(parts, responses, strict=True):
        ranked += [RankedDocument(first + each.index, each.score) for each in response.documents]
        first += len(part)
    ranked.sort(key=lambda each: (-each.score, each.index))
    return Ranking(ranked[:top_k] if top_k else ranked, info)


def _split(
    inputs: Sequence[common_pb2.TextInput], settings: CallSettings
) -> list[Sequence[common_pb2.TextInput]]:
    return split_rows(inputs, settings.rows_max, CALL_BYTES_MAX, input_bytes_max)


def _ask_parts(
    method: Method[Any, ResponseT],
    parts: Sequence[Sequence[RowT]],
    request: Callable[[common_pb2.ModelRef, Sequence[RowT]], Any],
    settings: CallSettings,
) -> Generator[Step, Any, tuple[list[ResponseT], AnswerInfo]]:
    """Sends the parts one after the other, under one deadline.

    The version that answers the first part answers all: vectors of two versions do not compare.
    """
    deadline = settings.deadline()
    model = model_of(settings.model, settings.options.get("version", ""))
    responses: list[ResponseT] = []
    for part in parts:
        response: ResponseT = yield from ask(method, request(model, part), deadline)
        responses.append(response)
        model.version = response.info.model_version
    infos = [AnswerInfo.of(response.info) for response in responses]
    return responses, infos[0] if len(infos) == 1 else AnswerInfo.joined(infos)
