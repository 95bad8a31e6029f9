"""How each server is called: a request is made before its time has come, then sent, and its status told.

Client libraries are imported by name when they are asked for: each process has only its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

MODEL = "minilm"
OK, TIMED_OUT = "OK", "DEADLINE_EXCEEDED"
# Triton's levels: 1 goes first.
_LIVE_LEVEL, _BULK_LEVEL = 1, 2
# Part of a call's time that it may wait in Triton's queue; the rest is for its batch.
_TRITON_QUEUE_PART = 0.6


@dataclass(frozen=True, slots=True)
class Request:
    """What a call asks for."""

    texts: Sequence[str]
    is_bulk: bool = False
    tenant: str = ""


class Calls(Protocol):
    """A connection to a server."""

    def prepare(self, request: Request) -> Any:
        """Turns a request into whatever ``send`` takes."""
        ...

    async def send(self, prepared: Any, timeout_s: float) -> str:
        """Sends it; returns the status, ``OK`` if there is an answer."""
        ...

    async def close(self) -> None:
        """Closes the connection."""
        ...


class PenstockCalls:
    """Unary calls as generated stubs make them."""

    def __init__(self, address: str, model: str) -> None:
        self._model = model
        self._aio: Any = import_module("grpc.aio")
        self._common: Any = import_module("penstock.v1.common_pb2")
        self._messages: Any = import_module("penstock.v1.inference_pb2")
        self._channel = self._aio.insecure_channel(address)
        self._embed = self._channel.unary_unary(
            "/penstock.v1.InferenceService/Embed",
            request_serializer=bytes,
            response_deserializer=self._messages.EmbedResponse.FromString,
        )

    def prepare(self, request: Request) -> bytes:
        """Serialises the message."""
        common = self._common
        options = common.RequestOptions(tenant=request.tenant)
        if request.is_bulk:
            options.request_class = common.REQUEST_CLASS_BULK
        inputs = [common.TextInput(text=text) for text in request.texts]
        message = self._messages.EmbedRequest(
            model=common.ModelRef(name=self._model), options=options, inputs=inputs
        )
        serialised: bytes = message.SerializeToString()
        return serialised

    async def send(self, prepared: bytes, timeout_s: float) -> str:
        """Makes one call, with its deadline."""
        try:
            await self._embed(prepared, timeout=timeout_s)
        except self._aio.AioRpcError as err:
            name: str = err.code().name
            return name
        return OK

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()


class TritonCalls:
    """Triton's own asynchronous gRPC client."""

    def __init__(self, address: str) -> None:
        self._grpc: Any = import_module("tritonclient.grpc.aio")
        self._numpy: Any = import_module("numpy")
        self._errors: Any = import_module("tritonclient.utils")
        self._client = self._grpc.InferenceServerClient(address)

    def prepare(self, request: Request) -> tuple[Any, int]:
        """Makes the input tensor."""
        texts = self._numpy.array([[text.encode()] for text in request.texts], dtype=object)
        tensor = self._grpc.InferInput("TEXT", list(texts.shape), "BYTES")
        tensor.set_data_from_numpy(texts)
        return tensor, _BULK_LEVEL if request.is_bulk else _LIVE_LEVEL

    async def send(self, prepared: tuple[Any, int], timeout_s: float) -> str:
        """Makes one call; Triton drops it from its queue in time to answer what it still can."""
        tensor, level = prepared
        queue_us = int(timeout_s * _TRITON_QUEUE_PART * 1e6)
        try:
            answer = await self._client.infer(
                MODEL, [tensor], priority=level, timeout=queue_us, client_timeout=timeout_s
            )
        except self._errors.InferenceServerException as err:
            return str(err.status()).removeprefix("StatusCode.")
        answer.as_numpy("VECTOR")
        return OK

    async def close(self) -> None:
        """Closes the channel."""
        await self._client.close()


class HttpCalls:
    """A server that takes JSON by POST.

    Args:
        address: Host and port.
        path: Where to.
        options: Fields beside ``input``; None if the body is the list of texts itself.
    """

    def __init__(self, address: str, path: str, options: Mapping[str, str] | None) -> None:
        self._http: Any = import_module("aiohttp")
        self._url = f"http://{address}{path}"
        self._options = options
        # As many connections as calls: a limit of the client would make a queue of its own.
        self._session = self._http.ClientSession(connector=self._http.TCPConnector(limit=0))

    def prepare(self, request: Request) -> bytes:
        """Serialises the body."""
        texts = list(request.texts)
        return json.dumps(texts if self._options is None else {**self._options, "input": texts}).encode()

    async def send(self, prepared: bytes, timeout_s: float) -> str:
        """Makes one call."""
        timeout = self._http.ClientTimeout(total=timeout_s)
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(
                self._url, data=prepared, timeout=timeout, headers=headers
            ) as answer:
                await answer.read()
                if answer.status != 200:
                    return f"HTTP_{answer.status}"
        except TimeoutError:
            return TIMED_OUT
        except self._http.ClientError as err:
            return type(err).__name__
        return OK

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()


def connect(protocol: str, address: str, model: str) -> Calls:
    """Connects by the protocol's name; Penstock alone has several models."""
    if protocol == "penstock":
        return PenstockCalls(address, model)
    if protocol == "triton":
        return TritonCalls(address)
    if protocol == "infinity":
        # Vectors as base64: as decimal numbers they cost both sides more.
        return HttpCalls(address, "/embeddings", {"model": MODEL, "encoding_format": "base64"})
    if protocol == "mosec":
        return HttpCalls(address, "/inference", None)
    raise ValueError(f"There is no protocol {protocol!r}")
