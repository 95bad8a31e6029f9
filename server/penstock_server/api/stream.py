"""The Stream RPC: live text in, answers out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import structlog

from penstock.v1 import inference_pb2
from penstock_server.api.callers import CallerReader
from penstock_server.api.deadlines import Context, deadline_of
from penstock_server.api.messages import Messages
from penstock_server.api.stream_codec import (
    Opening,
    events_from_proto,
    opening_from_proto,
    result_to_proto,
)
from penstock_server.config import RequestLimits
from penstock_server.domain.answer import Answer
from penstock_server.domain.errors import Draining, InvalidRequest
from penstock_server.domain.tasks import Task
from penstock_server.runtime.clock import TimerClock
from penstock_server.runtime.inference import Inference
from penstock_server.runtime.request_ticket import InferenceCall, LateTicket, RequestTicket, TextRow
from penstock_server.runtime.stream_session import StreamSession


class StreamHandler:
    """Answers Stream calls; one for all streams of a server.

    Args:
        inference: Computes the texts.
        limits: What a stream may ask for.
        clock: The server's time.
        callers: Reads who calls.
    """

    def __init__(
        self, inference: Inference, limits: RequestLimits, clock: TimerClock, callers: CallerReader
    ) -> None:
        self._inference = inference
        self._callers = callers
        self._limits = limits
        self._clock = clock
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Ends the open streams softly: what they have sent is answered, then they get UNAVAILABLE."""
        self._draining.set()

    async def handle(
        self, requests: AsyncIterator[inference_pb2.StreamRequest], context: Context
    ) -> AsyncGenerator[inference_pb2.StreamResponse, None]:
        """Answers one stream.

        Raises:
            PenstockError: The stream cannot be opened or cannot go on.
        """
        messages = Messages(requests, self._draining)
        try:
            opening = await self._opening(messages, context)
            options = self._callers.options_of(opening.options, context)
            structlog.contextvars.bind_contextvars(model=opening.model.name, tenant=options.tenant)
            call = self._inference.call(
                opening.model,
                opening.task,
                options,
                opening.rules.deadline_ns,
                method="Stream",
                metadata=self._callers.metadata_of(context),
            )
            yield _opened(call, opening)
            session: StreamSession[Answer] = StreamSession(
                _Texts(self._inference, call), opening.rules, self._clock
            )
            async with aclosing(session.answers(events_from_proto(messages))) as answers:
                async for result in answers:
                    yield result_to_proto(result, opening.vector_format)
        finally:
            await messages.close()
        if messages.is_cut:
            raise _shutting_down()

    async def _opening(self, messages: Messages[inference_pb2.StreamRequest], context: Context) -> Opening:
        """Reads the first message."""
        first = await anext(messages, None)
        if messages.is_cut:
            raise _shutting_down()
        if first is None or first.WhichOneof("message") != "open":
            raise InvalidRequest.of_field("open", "must be the stream's first message")
        return opening_from_proto(first.open, self._limits, deadline_of(context, self._clock))


class _Texts:
    """Submits the texts of one stream."""

    def __init__(self, inference: Inference, call: InferenceCall) -> None:
        self._inference = inference
        self._call = call

    def submit(
        self, text: str, pair: str | None, *, deadline_ns: int | None, is_again: bool = False
    ) -> RequestTicket | LateTicket:
        """Submits one text.

        Raises:
            PenstockError: The text is refused.
        """
        if pair is not None and self._call.task.task is Task.EMBED:
            raise InvalidRequest.of_field("input.text_pair", "this task takes single texts only")
        call = replace(self._call, deadline_ns=deadline_ns)
        return self._inference.submit(call, TextRow(text, pair), is_again=is_again)


def _opened(call: InferenceCall, opening: Opening) -> inference_pb2.StreamResponse:
    key = call.model.manifest.key
    return inference_pb2.StreamResponse(
        opened=inference_pb2.StreamOpened(
            model=key.name, model_version=key.version, max_in_flight=opening.rules.max_in_flight
        )
    )


def _shutting_down() -> Draining:
    return Draining("The server is shutting down; open the stream on another one.")
