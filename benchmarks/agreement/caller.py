"""A client process that sends live calls at their times and tells what the server says of each.

It is started by ``hybrid.processes.client_process`` and serves one command, ``calls``, again and again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from penstock import AsyncClient, PenstockError

MODEL = "minilm"
ANSWERED = "OK"
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Answered:
    """A call with what the server told of it; times in milliseconds.

    Attributes:
        sent_s: When it was sent, on the monotonic clock.
        lag: How late it was sent.
        client: From the time it was due to its answer.
        status: What became of it; the rest is 0 unless it was answered.
        total: In the server, from its arrival to its answer.
        tokenise, queue, compute: Parts of that, as ``penstock.Timings`` has them.
        batch_rows, batch_padded: Rows of its last batch, and their padded length.
    """

    sent_s: float
    lag: float
    client: float
    status: str
    total: float = 0.0
    tokenise: float = 0.0
    queue: float = 0.0
    compute: float = 0.0
    batch_rows: int = 0
    batch_padded: int = 0

    @property
    def dispatched(self) -> float:
        """From the dispatcher to the answer."""
        return self.total - self.tokenise

    @property
    def rest(self) -> float:
        """What is neither waiting for a batch nor computing it: packing, threads, event loop, delivery."""
        return self.dispatched - self.queue - self.compute


async def send_calls(
    client: AsyncClient, texts: Sequence[str], due_s: Sequence[float], numbers: Sequence[int], tenant: str
) -> list[Answered]:
    """Sends one text a call at the times due, whatever becomes of the calls before."""
    tasks: list[asyncio.Task[Answered]] = []
    for at_s, number in zip(due_s, numbers, strict=True):
        await asyncio.sleep(max(0.0, at_s - time.monotonic()))
        tasks.append(asyncio.create_task(_send(client, texts[number], at_s, tenant)))
    return list(await asyncio.gather(*tasks))


async def _send(client: AsyncClient, text: str, due_s: float, tenant: str) -> Answered:
    sent_s = time.monotonic()
    lag = (sent_s - due_s) * 1e3
    try:
        answer = await client.embed([text], model=MODEL, tenant=tenant, timeout_s=_TIMEOUT_S, explain=True)
    except PenstockError as err:
        return Answered(sent_s, lag, (time.monotonic() - due_s) * 1e3, err.status)
    client_ms = (time.monotonic() - due_s) * 1e3
    timings, explanation = answer.info.timings, answer.info.explanation
    assert explanation is not None
    batch = explanation.batches[-1]
    return Answered(
        sent_s,
        lag,
        client_ms,
        ANSWERED,
        total=timings.total_s * 1e3,
        tokenise=timings.tokenise_s * 1e3,
        queue=timings.queue_s * 1e3,
        compute=timings.compute_s * 1e3,
        batch_rows=batch.rows,
        batch_padded=batch.padded_tokens // batch.rows,
    )


async def _serve(address: str, texts: Sequence[str], out: TextIO) -> None:
    async with AsyncClient(address) as client:
        await client.embed([texts[0]], model=MODEL)
        _say(out, {"ready": True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            order: dict[str, Any] = json.loads(line)
            calls = await send_calls(client, texts, order["due_s"], order["numbers"], order["tenant"])
            _say(out, {"calls": [asdict(call) for call in calls]})


def _say(out: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=out, flush=True)


def calls_of(answer: dict[str, Any]) -> list[Answered]:
    """Reads what the process answered."""
    return msgspec.convert(answer["calls"], list[Answered])


if __name__ == "__main__":
    # What libraries print must not mix with the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        address_, _, texts_ = sys.argv[1:]
        asyncio.run(_serve(address_, json.loads(Path(texts_).read_text(encoding="utf-8")), answers))
