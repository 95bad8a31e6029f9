"""Performs exchanges on a grpc.aio channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from penstock.channel import TlsSetting, open_aio_channel
from penstock.errors import PenstockError, of_rpc_error
from penstock.exchange import Exchange, Local, Metadata, Method, Pause, Send, Step, Unary

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=Message)

# What grpc.aio says, as INTERNAL, where the other side ends a call just as a message is handed over.
_CUT_WHILE_SENDING = "Internal error from Core"


class AsyncWire:
    """Performs exchanges on a grpc.aio channel, which is opened on the event loop of the first call."""

    def __init__(self, address: str, tls: TlsSetting, metadata: Metadata) -> None:
        self._address = address
        self._tls: TlsSetting = tls
        self._metadata = metadata
        self._opened: grpc.aio.Channel | None = None
        self._is_closed = False

    async def run(self, exchange: Exchange[T]) -> T:
        """Performs the steps of an exchange and returns its result."""
        try:
            step = next(exchange)
            while True:
                try:
                    answer = await self._perform(step)
                except PenstockError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def stream(
        self,
        method: Method[Any, ResponseT],
        request: Message | AsyncIterator[Message],
        timeout_s: float | None,
    ) -> AsyncIterator[ResponseT]:
        """Sends a request, or an iterator of them, and yields the responses; cancels when left early."""
        channel = self._channel()
        kind = channel.stream_stream if isinstance(request, AsyncIterator) else channel.unary_stream
        call = _call(method, kind)(request, timeout=timeout_s, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.RpcError as error:
            raise of_rpc_error(error, self._address) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        self._is_closed = True
        if self._opened is not None:
            await self._opened.close()

    def _channel(self) -> grpc.aio.Channel:
        if self._is_closed:
            raise ValueError("the client is closed: make a new one")
        if self._opened is None:
            self._opened = open_aio_channel(self._address, self._tls)
        return self._opened

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.delay_s)
        if isinstance(step, Local):
            return await asyncio.to_thread(step.work)
        try:
            if isinstance(step, Unary):
                call = _call(step.method, self._channel().unary_unary)
                return await call(step.request, timeout=step.timeout_s, metadata=self._metadata)
            return await self._send(step)
        except grpc.RpcError as error:
            raise of_rpc_error(error, self._address) from error

    async def _send(self, step: Send) -> Any:
        call = _call(step.method, self._channel().stream_unary)
        failures: list[Exception] = []
        requests = shielded(_threaded(step.requests), failures)
        try:
            response = await call(requests, timeout=step.timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.details() != _CUT_WHILE_SENDING:
                raise
            metadata = (error.initial_metadata(), error.trailing_metadata())
            told = "The call ended while a message was being sent."
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, *metadata, details=told) from error
        if failures:
            raise failures[0]
        return response


async def each_of(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Yields the items of either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def shielded(items: AsyncIterator[T], failures: list[Exception]) -> AsyncIterator[T]:
    """Ends early where the iterable fails, and keeps its error: gRPC would only log it."""
    try:
        async for item in items:
            yield item
    except Exception as error:  # noqa: BLE001 - raised again by the caller, whatever it is
        failures.append(error)


async def _threaded(items: Iterator[T]) -> AsyncIterator[T]:
    """Yields the items of an iterator that may block on a disk, off the event loop."""
    end = object()
    while (item := await asyncio.to_thread(next, items, end)) is not end:
        yield item  # type: ignore[misc]


def _call(method: Method[Any, Any], kind: Callable[..., Any]) -> Callable[..., Any]:
    call: Callable[..., Any] = kind(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
    return call
