"""InferenceService: live calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import structlog

from penstock.v1 import inference_pb2, inference_pb2_grpc
from penstock_server.api import codec
from penstock_server.api.callers import CallerReader
from penstock_server.api.deadlines import Context, deadline_of
from penstock_server.domain.answer import Answer
from penstock_server.domain.tasks import RequestOptions, Task, TaskOptions
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.inference import Inference, Tokenised
from penstock_server.runtime.request_ticket import InferenceCall, TextRow

if TYPE_CHECKING:
    from penstock.v1 import common_pb2
    from penstock_kernels import TokenRows
    from penstock_server.api.stream import StreamHandler


_Response = TypeVar("_Response")

_METHODS = {Task.EMBED: "Embed", Task.CLASSIFY: "Classify", Task.TAG: "Tag", Task.RERANK: "Rerank"}


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Parses messages, has the runtime answer them, writes messages."""

    def __init__(
        self, inference: Inference, streams: StreamHandler, clock: Clock, callers: CallerReader
    ) -> None:
        self._inference = inference
        self._callers = callers
        self._streams = streams
        self._clock = clock

    async def Embed(  # noqa: N802 - gRPC's name
        self, request: inference_pb2.EmbedRequest, context: Context
    ) -> inference_pb2.EmbedResponse:
        """Computes vectors."""
        vector_format = codec.vector_format_from_proto(request.embed)
        rows = codec.rows_from_proto(request.inputs, pairs=False)
        task = TaskOptions(Task.EMBED, embed=codec.embed_options_from_proto(request.embed))
        answer = await self._answer(
            request.model, task, codec.options_from_proto(request.options), rows, context
        )
        return await self._written(answer, lambda: _embedded(answer, vector_format))

    async def Classify(  # noqa: N802 - gRPC's name
        self, request: inference_pb2.ClassifyRequest, context: Context
    ) -> inference_pb2.ClassifyResponse:
        """Computes label scores."""
        rows = codec.rows_from_proto(request.inputs, pairs=True)
        task = TaskOptions(Task.CLASSIFY, classify=codec.classify_options_from_proto(request.classify))
        answer = await self._answer(
            request.model, task, codec.options_from_proto(request.options), rows, context
        )
        return await self._written(answer, lambda: _classified(answer))

    async def Tag(  # noqa: N802 - gRPC's name
        self, request: inference_pb2.TagRequest, context: Context
    ) -> inference_pb2.TagResponse:
        """Not in this release: says which model or task is wrong, or that tagging is not built."""
        self._call(request.model, TaskOptions(Task.TAG), codec.options_from_proto(request.options), context)
        raise AssertionError("check_options refuses the task")

    async def Rerank(  # noqa: N802 - gRPC's name
        self, request: inference_pb2.RerankRequest, context: Context
    ) -> inference_pb2.RerankResponse:
        """Not in this release: says which model or task is wrong, or that reranking is not built."""
        self._call(
            request.model, TaskOptions(Task.RERANK), codec.options_from_proto(request.options), context
        )
        raise AssertionError("check_options refuses the task")

    async def Tokenize(  # noqa: N802 - gRPC's name
        self, request: inference_pb2.TokenizeRequest, context: Context
    ) -> inference_pb2.TokenizeResponse:
        """Splits texts into tokens."""
        rows = codec.rows_from_proto(request.inputs, pairs=True)
        tokenised = await self._inference.tokenise(
            codec.model_from_proto(request.model),
            self._callers.options_of(codec.options_from_proto(request.options), context),
            rows,
            special=not request.omit_special_tokens,
            offsets=request.return_offsets,
        )
        # Off the event loop: a response may hold a million tokens.
        return await self._inference.off_loop(
            rows,
            lambda: _tokens_to_proto(tokenised, with_tokens=request.return_tokens),
            written=tokenised.tokens,
        )

    async def Stream(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[inference_pb2.StreamRequest], context: Context
    ) -> AsyncIterator[inference_pb2.StreamResponse]:
        """Answers live text as it arrives."""
        async with aclosing(self._streams.handle(request_iterator, context)) as responses:
            async for response in responses:
                yield response

    def _call(
        self, ref: common_pb2.ModelRef, task: TaskOptions, options: RequestOptions, context: Context
    ) -> InferenceCall:
        model = codec.model_from_proto(ref)
        options = self._callers.options_of(options, context)
        structlog.contextvars.bind_contextvars(model=model.name, tenant=options.tenant)
        deadline_ns = deadline_of(context, self._clock)
        metadata = self._callers.metadata_of(context)
        return self._inference.call(
            model, task, options, deadline_ns, method=_METHODS[task.task], metadata=metadata
        )

    async def _written(self, answer: Answer, write: Callable[[], _Response]) -> _Response:
        """Writes an answer's message, a large one on a thread."""
        if codec.is_quickly_written(answer.outcome):
            return write()
        return await self._inference.on_thread(write)

    async def _answer(
        self,
        ref: common_pb2.ModelRef,
        task: TaskOptions,
        options: RequestOptions,
        rows: list[TextRow],
        context: Context,
    ) -> Answer:
        structlog.contextvars.bind_contextvars(rows=len(rows))
        answer = await self._inference.answer(self._call(ref, task, options, context), rows)
        structlog.contextvars.bind_contextvars(
            tokens=answer.info.tokens, request_class=answer.info.served_class.name
        )
        return answer


def _embedded(
    answer: Answer, vector_format: common_pb2.VectorFormat.ValueType
) -> inference_pb2.EmbedResponse:
    vectors = codec.vectors_of(answer)
    if vectors is None:
        return inference_pb2.EmbedResponse(info=codec.info_to_proto(answer.info))
    return inference_pb2.EmbedResponse(
        embeddings=codec.embeddings_to_proto(vectors, vector_format),
        dimensions=vectors.values.shape[1],
        info=codec.info_to_proto(answer.info),
    )


def _classified(answer: Answer) -> inference_pb2.ClassifyResponse:
    labels = codec.classifications_of(answer)
    if labels is None:
        return inference_pb2.ClassifyResponse(info=codec.info_to_proto(answer.info))
    return inference_pb2.ClassifyResponse(
        classifications=codec.classifications_to_proto(labels),
        info=codec.info_to_proto(answer.info),
    )


def _tokens_to_proto(tokenised: Tokenised, *, with_tokens: bool) -> inference_pb2.TokenizeResponse:
    sequences = [_sequence(tokenised.tokens, row) for row in range(tokenised.tokens.rows)]
    if with_tokens:
        for sequence in sequences:
            sequence.tokens.extend(tokenised.model.tokenizer.tokens(sequence.ids))
    return inference_pb2.TokenizeResponse(sequences=sequences, info=codec.info_to_proto(tokenised.info))


def _sequence(tokens: TokenRows, row: int) -> inference_pb2.TokenSequence:
    first, end = int(tokens.starts[row]), int(tokens.starts[row + 1])
    sequence = inference_pb2.TokenSequence(
        ids=tokens.ids[first:end].tolist(),
        type_ids=tokens.type_ids[first:end].tolist(),
        truncated=bool(tokens.truncated[row]),
    )
    if tokens.offsets is not None:
        sequence.start_chars.extend(tokens.offsets[first:end, 0].tolist())
        sequence.end_chars.extend(tokens.offsets[first:end, 1].tolist())
    return sequence
