"""A client process: takes commands as JSON lines on stdin, answers each with one line.

    python -m benchmarks.hybrid.clients PROTOCOL MODEL HOST:PORT SERVER_PID TEXTS

It answers ``{"ready": true}`` once the server has answered a call.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from benchmarks.hybrid.clients.calls import OK, Calls, Request, connect
from benchmarks.hybrid.clients.job import JobFeed
from benchmarks.hybrid.clients.loads import Arrival, Feed, Sender, Shape, Text

_START_TIMEOUT_S = 120.0
_RETRY_S = 0.1
_CALL_TIMEOUT_S = 5.0
# A feed's request may wait behind all others in flight.
_FEED_TIMEOUT_S = 120.0


class Commands:
    """What the process does on command; each method takes and gives JSON values."""

    def __init__(self, address: str, model: str, calls: Calls) -> None:
        self._address = address
        self._model = model
        self._calls = calls
        self._feed: Feed | JobFeed | None = None
        self._running: asyncio.Task[None] | None = None

    async def live(self, texts: str, arrivals: str, start_s: float, deadline_s: float) -> dict[str, Any]:
        """Sends calls at their times; answers when all have an answer or are given up."""
        due = _read_arrivals(arrivals)
        tallies = await Sender(self._calls, read_texts(texts), start_s, deadline_s).run(due)
        return {"tallies": {tenant: tally.as_dict() for tenant, tally in tallies.items()}}

    async def feed(self, texts: str, shape: dict[str, Any]) -> dict[str, Any]:
        """Begins a closed loop."""
        self._begin(Feed(self._calls, read_texts(texts), Shape(**shape), _FEED_TIMEOUT_S))
        return {}

    async def job(self, texts: str, poll_s: float) -> dict[str, Any]:
        """Begins a bulk job."""
        self._begin(JobFeed(self._address, self._model, read_texts(texts), poll_s))
        return {}

    async def rows(self) -> dict[str, Any]:
        """Tells how many rows the feed has had answered."""
        feed, running = self._current()
        if running.done():
            await running
        return {"rows": feed.points[-1][1], "has_ended": running.done()}

    async def finish(self, is_cut: bool) -> dict[str, Any]:
        """Waits for the feed, or cuts it short; answers with its course."""
        feed, running = self._current()
        if is_cut:
            feed.end()
        await running
        self._feed = self._running = None
        return {"points": feed.points, "errors": feed.errors}

    def _begin(self, feed: Feed | JobFeed) -> None:
        self._feed = feed
        self._running = asyncio.create_task(feed.run())

    def _current(self) -> tuple[Feed | JobFeed, asyncio.Task[None]]:
        if self._feed is None or self._running is None:
            raise RuntimeError("There is no feed: begin one first")
        return self._feed, self._running


def read_texts(path: str) -> Sequence[Text]:
    """Reads a file of texts with their tokens."""
    return [Text(*text) for text in json.loads(Path(path).read_text(encoding="utf-8"))]


def _read_arrivals(path: str) -> Sequence[Arrival]:
    return [Arrival(*arrival) for arrival in json.loads(Path(path).read_text(encoding="utf-8"))]


async def main(protocol: str, model: str, address: str, server: int, texts: str, out: TextIO) -> None:
    """Serves commands until stdin ends."""
    calls = connect(protocol, address, model)
    await _until_answered(calls, server, read_texts(texts)[0].text)
    _say(out, {"ready": True})
    commands = Commands(address, model, calls)
    while line := await asyncio.to_thread(sys.stdin.readline):
        arguments: dict[str, Any] = json.loads(line)
        try:
            _say(out, await getattr(commands, arguments.pop("do"))(**arguments))
        except Exception as err:  # noqa: BLE001 - told to the measuring process, which ends
            traceback.print_exc()
            _say(out, {"error": f"{type(err).__name__}: {err}"})
    await calls.close()


async def _until_answered(calls: Calls, server: int, text: str) -> None:
    prepared = calls.prepare(Request([text]))
    give_up_s = time.monotonic() + _START_TIMEOUT_S
    while (status := await calls.send(prepared, _CALL_TIMEOUT_S)) != OK:
        if time.monotonic() > give_up_s or not _is_alive(server):
            raise TimeoutError(f"The server has not answered a call: {status}")
        await asyncio.sleep(_RETRY_S)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _say(out: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    # What libraries print must not mix with the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        protocol, model, address, pid, texts = sys.argv[1:]
        asyncio.run(main(protocol, model, address, int(pid), texts, answers))
