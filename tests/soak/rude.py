"""Requests that can never work: each must be refused with the one status that it deserves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio

from penstock.v1 import bulk_pb2, common_pb2, inference_pb2
from tests.soak.plan import CLASSIFIER, EMBEDDER
from tests.soak.session import Session

_PAUSE_S = 0.4
_TIMEOUT_S = 60.0
_INFERENCE, _BULK = "/penstock.v1.InferenceService", "/penstock.v1.BulkService"


@dataclass(frozen=True, slots=True)
class _Rudeness:
    """A request in bytes; several are a stream."""

    method: str
    status: str
    messages: tuple[bytes, ...]
    is_stream: bool = False


def _embed(*texts: str, model: str = EMBEDDER, **fields: Any) -> bytes:
    inputs = [common_pb2.TextInput(text=text) for text in texts]
    request = inference_pb2.EmbedRequest(model=common_pb2.ModelRef(name=model), inputs=inputs, **fields)
    return request.SerializeToString()


def _rudenesses() -> tuple[_Rudeness, ...]:
    embed, invalid = f"{_INFERENCE}/Embed", "INVALID_ARGUMENT"
    text = inference_pb2.StreamRequest(text=inference_pb2.StreamText(id="1")).SerializeToString()
    chunk = bulk_pb2.UploadRequest(chunk=bulk_pb2.UploadChunk(offset=7, data=b"x")).SerializeToString()
    unknown_job = bulk_pb2.GetJobRequest(job_id="no-such-job").SerializeToString()
    not_utf8 = b"\x0a\x06\x0a\x04\xff\xfe\xfd\xfc"
    return (
        _Rudeness(embed, invalid, (b"\xff\xff\xff no protobuf",)),
        _Rudeness(embed, invalid, (not_utf8,)),
        _Rudeness(embed, invalid, (_embed(),)),
        _Rudeness(embed, invalid, (_embed("a text", ""),)),
        _Rudeness(embed, invalid, (_embed(*["x"] * 1025),)),
        _Rudeness(embed, invalid, (_embed("x", embed=common_pb2.EmbedOptions(dimensions=-1)),)),
        _Rudeness(embed, "NOT_FOUND", (_embed("x", model="no-such-model"),)),
        _Rudeness(embed, "FAILED_PRECONDITION", (_embed("x", model=CLASSIFIER),)),
        _Rudeness(f"{_INFERENCE}/NoSuchMethod", "UNIMPLEMENTED", (b"",)),
        _Rudeness(f"{_BULK}/GetJob", "NOT_FOUND", (unknown_job,)),
        _Rudeness(f"{_BULK}/Upload", invalid, (chunk,), is_stream=True),
        _Rudeness(f"{_INFERENCE}/Stream", invalid, (text,), is_stream=True),
        _Rudeness(f"{_INFERENCE}/Stream", invalid, (b"\xff\xff no protobuf",), is_stream=True),
    )


async def malformed(session: Session) -> None:
    """One after the other, a few a second."""
    rudenesses = _rudenesses()
    async with grpc.aio.insecure_channel(session.address) as channel:
        while not session.is_over:
            rudeness = session.random.choice(rudenesses)
            session.book.did("malformed")
            await _send(session, channel, rudeness)
            await session.pause(_PAUSE_S)


async def _send(session: Session, channel: grpc.aio.Channel, rudeness: _Rudeness) -> None:
    id_ = session.book.ask("malformed", [], [rudeness.status])
    try:
        await _exchange(channel, rudeness)
    except grpc.aio.AioRpcError as err:
        session.book.end(id_, err.code().name)
    else:
        session.book.end(id_, "OK")


async def _exchange(channel: grpc.aio.Channel, rudeness: _Rudeness) -> None:
    if not rudeness.is_stream:
        ask = cast(Any, channel).unary_unary(rudeness.method)
        await ask(rudeness.messages[0], timeout=_TIMEOUT_S)
        return

    async def messages() -> AsyncIterator[bytes]:
        for message in rudeness.messages:
            yield message

    talk = cast(Any, channel).stream_stream(rudeness.method)
    async for _ in talk(messages(), timeout=_TIMEOUT_S):
        pass
