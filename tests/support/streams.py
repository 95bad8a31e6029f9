"""A submitter, a clock and a stream of events that a test drives by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field

from penstock_server.domain.errors import InvalidRequest, Overloaded, PenstockError
from penstock_server.runtime.stream_events import StreamEvent, StreamResult, StreamRules
from penstock_server.runtime.stream_session import StreamSession


@dataclass(eq=False)
class HandTicket:
    """A submitted text; the test starts and answers it."""

    text: str
    deadline_ns: int | None
    future: asyncio.Future[str]
    is_started: bool = False
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True

    async def answer(self) -> str:
        return await self.future

    def start(self) -> HandTicket:
        self.is_started = True
        return self

    def finish(self, error: Exception | None = None) -> None:
        self.is_started = True
        if self.future.done():
            return
        if error is None:
            self.future.set_result(f"answer to {self.text}")
        else:
            self.future.set_exception(error)

    @property
    def is_live(self) -> bool:
        return not self.is_cancelled and not self.future.done()


@dataclass
class HandSubmitter:
    """Refuses empty texts and texts that begin with "bad", and any above ``room`` at once."""

    room: int = 1_000_000
    tickets: list[HandTicket] = field(default_factory=list[HandTicket])
    arrivals: int = 0

    def submit(
        self, text: str, pair: str | None, *, deadline_ns: int | None, is_again: bool = False
    ) -> HandTicket:
        self.arrivals += not is_again
        if not text or text.startswith("bad"):
            raise InvalidRequest.of_field("text", "is empty or bad")
        if len(self.live) >= self.room:
            raise Overloaded("The queue is full.", retry_after_s=1.0)
        ticket = HandTicket(text, deadline_ns, asyncio.get_running_loop().create_future())
        self.tickets.append(ticket)
        return ticket

    @property
    def live(self) -> list[HandTicket]:
        return [ticket for ticket in self.tickets if ticket.is_live]

    def of(self, text: str) -> HandTicket:
        """The newest ticket of a text."""
        return next(ticket for ticket in reversed(self.tickets) if ticket.text == text)


@dataclass(eq=False)
class _HandTimer:
    when_ns: int
    call: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class HandClock:
    """Time that passes when the test says so."""

    time_ns: int = 1_000
    timers: list[_HandTimer] = field(default_factory=list[_HandTimer])

    def now_ns(self) -> int:
        return self.time_ns

    def call_at(self, when_ns: int, call: Callable[[], None]) -> _HandTimer:
        timer = _HandTimer(when_ns, call)
        self.timers.append(timer)
        return timer

    def advance(self, by_ns: int) -> None:
        self.time_ns += by_ns
        due = [t for t in self.timers if t.when_ns <= self.time_ns and not t.is_cancelled]
        self.timers = [t for t in self.timers if t.when_ns > self.time_ns and not t.is_cancelled]
        for timer in due:
            timer.call()

    @property
    def waiting(self) -> int:
        """Timers that may still go off."""
        return sum(not timer.is_cancelled for timer in self.timers)


class HandStream:
    """A session with both its ends in the test's hands. Use ``async with``."""

    def __init__(self, *, in_order: bool = True, max_in_flight: int = 8, **rules: int) -> None:
        self.submitter = HandSubmitter()
        self.clock = HandClock()
        self.rules = StreamRules(in_order, max_in_flight, **rules)
        self.results: list[StreamResult[str]] = []
        self.error: BaseException | None = None
        self.read = 0
        self._events: asyncio.Queue[StreamEvent | Exception | None] = asyncio.Queue()
        session: StreamSession[str] = StreamSession(self.submitter, self.rules, self.clock)
        self.answers: AsyncGenerator[StreamResult[str], None] = session.answers(self._source())
        self._taker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> HandStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._taker is not None:
            self._taker.cancel()
            await asyncio.gather(self._taker, return_exceptions=True)
        await self.answers.aclose()

    async def send(self, *events: StreamEvent) -> None:
        """Sends events and lets the session do all it can."""
        for event in events:
            self._events.put_nowait(event)
        await idle()

    async def half_close(self, error: Exception | None = None) -> None:
        self._events.put_nowait(error)
        await idle()

    async def finish(self, text: str, error: PenstockError | None = None) -> None:
        self.submitter.of(text).finish(error)
        await idle()

    def take_all(self) -> None:
        """Takes answers as they come from now on."""
        self._taker = asyncio.create_task(self._take())

    def has_ended(self) -> bool:
        return self._taker is not None and self._taker.done()

    async def _take(self) -> None:
        try:
            async for result in self.answers:
                self.results.append(result)
        except Exception as err:  # noqa: BLE001 - the test looks at it
            self.error = err

    async def _source(self) -> AsyncIterator[StreamEvent]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            self.read += 1
            yield event


async def idle() -> None:
    """Runs the event loop until nothing is left to run: no callback here takes more than a few turns."""
    for _ in range(50):
        await asyncio.sleep(0)
