"""What every RPC has in common: errors become statuses, and each call leaves one line in the log."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from penstock_server.api.deadlines import Context, remaining_s
from penstock_server.api.status import code_of, message_of, retry_after_s, status_of
from penstock_server.domain.errors import Draining, InvalidRequest, PenstockError
from penstock_server.observability.observer import SILENT, Observer
from penstock_server.runtime.clock import Clock

_OUR_METHODS = ("/penstock.v1.", "/google.longrunning.")
# What may still be asked of a server that is shutting down.
_ALLOWED_WHILE_DRAINING = frozenset(
    {
        "/penstock.v1.BulkService/GetJob",
        "/penstock.v1.BulkService/ListJobs",
        "/penstock.v1.BulkService/GetUpload",
        "/google.longrunning.Operations/GetOperation",
        "/google.longrunning.Operations/ListOperations",
    }
)

_log = structlog.get_logger("penstock.rpc")

Handler = Any


class _Malformed:
    """Stands for a message that could not be parsed, until the handler can answer."""


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Wraps our methods; health and reflection pass through."""

    def __init__(self, clock: Clock, is_draining: Callable[[], bool], observer: Observer = SILENT) -> None:
        self._clock = clock
        self._observer = observer
        self._is_draining = is_draining
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Calls of our methods under way."""
        return self._in_flight

    async def idle(self) -> None:
        """Waits until none of our methods is under way; health and reflection calls do not count."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wraps the method's handler."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or not method.startswith(_OUR_METHODS):
            return handler
        if handler.response_streaming:
            return self._wrap_streaming(handler, method)
        return self._wrap_unary(handler, method)

    def _wrap_unary(self, handler: Handler, method: str) -> Handler:
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def behaviour(request: Any, context: Context) -> Any:
            async with self._edge(method, context):
                return await inner(_checked(request, handler.request_streaming), context)

        build = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return build(behaviour, _lenient(handler.request_deserializer), handler.response_serializer)

    def _wrap_streaming(self, handler: Handler, method: str) -> Handler:
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

        # A coroutine, not a generator: gRPC abandons a generator when the caller goes away, and its cleanup
        # would then run after the call's memory is freed.
        async def behaviour(request: Any, context: Context) -> None:
            async with (
                self._edge(method, context),
                aclosing(inner(_checked(request, handler.request_streaming), context)) as responses,
            ):
                async for response in responses:
                    await context.write(response)

        build = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        return build(behaviour, _lenient(handler.request_deserializer), handler.response_serializer)

    @asynccontextmanager
    async def _edge(self, method: str, context: Context) -> AsyncGenerator[None]:
        self._in_flight += 1
        self._idle.clear()
        start_ns = self._clock.now_ns()
        peer = context.peer()
        structlog.contextvars.clear_contextvars()
        code = grpc.StatusCode.OK
        try:
            if self._is_draining() and method not in _ALLOWED_WHILE_DRAINING:
                raise Draining("The server is shutting down; send the request to another one.")
            yield
        except PenstockError as err:
            code = code_of(err)
            structlog.contextvars.bind_contextvars(reason=err.reason, message=err.message)
            if code is grpc.StatusCode.INTERNAL:
                incident = _incident(err)
                err = type(err)(f"{err.message} Incident {incident}.", incident=incident)
            await _abort(context, err)
        except grpc.aio.AbortError:
            code = context.code()
            raise
        except Exception as err:  # noqa: BLE001 - whatever it is, the caller is told an incident id only
            code = grpc.StatusCode.INTERNAL
            incident = _incident(err)
            await _abort(
                context,
                PenstockError(f"The server failed unexpectedly. Incident {incident}.", incident=incident),
            )
        except BaseException:
            # The caller went away or its deadline passed; gRPC has answered already.
            code = _code_of_cancelled(context)
            raise
        finally:
            duration_ms = (self._clock.now_ns() - start_ns) / 1e6
            _log.info("rpc", method=method, code=code.name, duration_ms=round(duration_ms, 3), peer=peer)
            self._observer.rpc_ended(method.rpartition("/")[2], code.name)
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()


def _incident(err: BaseException) -> str:
    """Logs an error in full under an id that the caller is told instead of its text."""
    incident = uuid.uuid4().hex[:12]
    _log.error("incident", incident=incident, exc_info=err)
    return incident


async def _abort(context: Context, error: PenstockError) -> None:
    trailers: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", status_of(error).SerializeToString())
    ]
    delay_s = retry_after_s(error)
    if delay_s is not None:
        trailers.append(("grpc-retry-pushback-ms", str(max(1, int(delay_s * 1000)))))
    await context.abort(code_of(error), message_of(error), tuple(trailers))


def _code_of_cancelled(context: Context) -> grpc.StatusCode:
    seconds = remaining_s(context)
    late = seconds is not None and seconds <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


def _lenient(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Lets unparsable messages through to the handler, because gRPC would answer INTERNAL for them."""

    def deserialize(data: bytes) -> Any:
        try:
            return deserializer(data)
        except (DecodeError, UnicodeDecodeError):
            return _Malformed()

    return deserialize


def _checked(request: Any, streaming: bool) -> Any:
    return _checked_stream(request) if streaming else _checked_message(request)


def _checked_message(message: Any) -> Any:
    if isinstance(message, _Malformed):
        raise InvalidRequest(
            "The message cannot be parsed: it is no such protobuf, or a text is not valid UTF-8."
        )
    return message


async def _checked_stream(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for message in messages:
        yield _checked_message(message)
