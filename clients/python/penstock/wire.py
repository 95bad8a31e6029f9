"""Performs exchanges on a grpc channel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from penstock.errors import PenstockError, of_rpc_error
from penstock.exchange import Exchange, Local, Metadata, Method, Pause, Send, Step, Unary

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=Message)


class Wire:
    """Performs exchanges on a grpc channel."""

    def __init__(self, address: str, channel: grpc.Channel, metadata: Metadata) -> None:
        self._address = address
        self._channel = channel
        self._metadata = metadata
        self._calls: dict[str, Callable[..., Any]] = {}

    def run(self, exchange: Exchange[T]) -> T:
        """Performs the steps of an exchange and returns its result."""
        try:
            step = next(exchange)
            while True:
                try:
                    answer = self._perform(step)
                except PenstockError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def stream(
        self, method: Method[Any, ResponseT], request: Message | Iterator[Message], timeout_s: float | None
    ) -> Iterator[ResponseT]:
        """Sends a request, or an iterator of them, and yields the responses; cancels when left early."""
        kind = self._channel.stream_stream if isinstance(request, Iterator) else self._channel.unary_stream
        call = self._call(method, kind)(request, timeout=timeout_s, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise of_rpc_error(error, self._address) from error
        finally:
            call.cancel()

    def pause(self, delay_s: float) -> None:
        """Waits."""
        time.sleep(delay_s)

    def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        self._channel.close()

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return self.pause(step.delay_s)
        if isinstance(step, Local):
            return step.work()
        try:
            if isinstance(step, Unary):
                call = self._call(step.method, self._channel.unary_unary)
                return call(step.request, timeout=step.timeout_s, metadata=self._metadata)
            return self._send(step)
        except grpc.RpcError as error:
            raise of_rpc_error(error, self._address) from error

    def _send(self, step: Send) -> Any:
        call = self._call(step.method, self._channel.stream_unary)
        failures: list[Exception] = []
        response = call(shielded(step.requests, failures), timeout=step.timeout_s, metadata=self._metadata)
        if failures:
            raise failures[0]
        return response

    def _call(self, method: Method[Any, Any], kind: Callable[..., Any]) -> Callable[..., Any]:
        call = self._calls.get(method.path)
        if call is None:
            call = kind(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            self._calls[method.path] = call
        return call


def shielded(items: Iterable[T], failures: list[Exception]) -> Iterator[T]:
    """Ends early where the iterable fails, and keeps its error to be raised on the caller's thread.

    gRPC reads requests on a thread of its own, where an error would only be logged.
    """
    try:
        yield from items
    except Exception as error:  # noqa: BLE001 - raised again by the caller, whatever it is
        failures.append(error)
