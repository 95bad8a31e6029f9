"""The two loads a client process makes: calls at given times, and a closed loop that never stops asking."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.hybrid.clients.calls import OK, Calls, Request
from benchmarks.hybrid.clients.fates import Tally

# More unanswered calls are not sent: the client's own memory and loop would be measured.
IN_FLIGHT_MAX = 4_096
# Requests are made this long before they are due, so that making them delays none.
_PREPARED_AHEAD_S = 0.5
_RETRY_S = 0.02


@dataclass(frozen=True, slots=True)
class Text:
    """A text and the number of its tokens."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call to be sent ``at_s`` seconds after the start."""

    at_s: float
    text: int
    tenant: str


class Sender:
    """Sends calls of one text when they are due, answered or not.

    Args:
        calls: The connection.
        texts: What arrivals point into.
        start_s: When the first could be due, on the monotonic clock.
        deadline_s: Time that each call has from when it was due.
    """

    def __init__(self, calls: Calls, texts: Sequence[Text], start_s: float, deadline_s: float) -> None:
        self._calls = calls
        self._texts = texts
        self._start_s = start_s
        self._deadline_s = deadline_s

    async def run(self, arrivals: Sequence[Arrival]) -> dict[str, Tally]:
        """Sends all; returns a tally for each tenant when all are answered or given up."""
        tallies = {arrival.tenant: Tally() for arrival in arrivals}
        in_flight: set[asyncio.Task[None]] = set()
        for arrival, prepared in self._prepared(arrivals):
            await asyncio.sleep(max(0.0, self._start_s + arrival.at_s - time.monotonic()))
            tally = tallies[arrival.tenant]
            if len(in_flight) >= IN_FLIGHT_MAX:
                tally.count("NOT_SENT", arrival.at_s, 0.0, self._deadline_s, 0)
                continue
            task = asyncio.create_task(self._send(arrival, prepared, tally))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
        await asyncio.gather(*in_flight)
        return tallies

    def _prepared(self, arrivals: Sequence[Arrival]) -> Iterator[tuple[Arrival, Any]]:
        ahead: deque[tuple[Arrival, Any]] = deque()
        for arrival in arrivals:
            request = Request([self._texts[arrival.text].text], tenant=arrival.tenant)
            ahead.append((arrival, self._calls.prepare(request)))
            while arrival.at_s - ahead[0][0].at_s > _PREPARED_AHEAD_S:
                yield ahead.popleft()
        yield from ahead

    async def _send(self, arrival: Arrival, prepared: Any, tally: Tally) -> None:
        due_s = self._start_s + arrival.at_s
        lag_s = time.monotonic() - due_s
        tally.lag_ms.append(lag_s * 1e3)
        status = await self._calls.send(prepared, max(0.001, self._deadline_s - lag_s))
        elapsed_s = time.monotonic() - due_s
        tally.count(status, arrival.at_s, elapsed_s, self._deadline_s, self._texts[arrival.text].tokens)


@dataclass(frozen=True, slots=True)
class Shape:
    """A closed loop: texts in each request, requests in flight, their class."""

    rows: int
    in_flight: int
    is_bulk: bool
    is_repeated: bool


class Feed:
    """A closed loop over texts, in their order; notes how far it is after each answer.

    Attributes:
        points: Time on the monotonic clock, rows and tokens done until then.
        errors: How often each status but OK came back; such requests are sent again.
    """

    def __init__(self, calls: Calls, texts: Sequence[Text], shape: Shape, timeout_s: float) -> None:
        self._calls = calls
        self._shape = shape
        self._timeout_s = timeout_s
        self._has_ended = False
        self._batches = _batches(texts, shape)
        self.points: list[tuple[float, int, int]] = [(time.monotonic(), 0, 0)]
        self.errors: dict[str, int] = {}

    async def run(self) -> None:
        """Feeds until the texts are done, or ``end``."""
        await asyncio.gather(*(self._work() for _ in range(self._shape.in_flight)))

    def end(self) -> None:
        """Sends no more requests; those in flight are awaited by ``run``."""
        self._has_ended = True

    async def _work(self) -> None:
        for batch in self._batches:
            prepared = self._calls.prepare(Request([text.text for text in batch], self._shape.is_bulk))
            while (status := await self._calls.send(prepared, self._timeout_s)) != OK:
                self.errors[status] = self.errors.get(status, 0) + 1
                if self._has_ended:
                    return
                await asyncio.sleep(_RETRY_S)
            _, rows, tokens = self.points[-1]
            self.points.append(
                (time.monotonic(), rows + len(batch), tokens + sum(text.tokens for text in batch))
            )
            if self._has_ended:
                return


def _batches(texts: Sequence[Text], shape: Shape) -> Iterator[Sequence[Text]]:
    while True:
        for first in range(0, len(texts), shape.rows):
            yield texts[first : first + shape.rows]
        if not shape.is_repeated:
            return
