"""What the gestures of a client share: the connection, the notes, chance, and the time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock import AsyncClient, Classification, Embedding, Tokens
from tests.soak.book import Book
from tests.soak.plan import Plan
from tests.soak.references import Judgement, References

ANSWERED, REFUSED, LATE = "OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"


@dataclass(slots=True)
class Session:
    """One client process."""

    name: str
    address: str
    plan: Plan
    client: AsyncClient
    book: Book
    references: References
    folder: Path
    random: random.Random
    until_s: float

    @property
    def is_over(self) -> bool:
        """Whether nothing new may be begun."""
        return time.monotonic() >= self.until_s

    def texts(self, rows: int) -> list[int]:
        """Numbers of texts, none twice."""
        return self.random.sample(range(len(self.references.texts)), rows)

    def text(self) -> int:
        """The number of a text."""
        return self.random.randrange(len(self.references.texts))

    def judge(self, text: int, answer: object) -> Judgement:
        """Compares an answer with the reference of its text."""
        if isinstance(answer, Embedding):
            return self.references.judge_vector(text, answer)
        if isinstance(answer, Classification):
            return self.references.judge_labels(text, answer)
        assert isinstance(answer, Tokens), answer
        return self.references.judge_tokens(text, answer)

    async def pause(self, seconds: float) -> None:
        """Waits, at most until the time is over."""
        await asyncio.sleep(max(0.0, min(seconds, self.until_s - time.monotonic())))

    async def arrivals(self, rate: float, until_s: float) -> AsyncIterator[None]:
        """A Poisson process: yields at each arrival."""
        due_s = time.monotonic()
        while True:
            due_s += self.random.expovariate(rate)
            if due_s >= min(until_s, self.until_s):
                return
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            yield

    def turns(self, gestures: tuple[str, ...]) -> Callable[[], str]:
        """Each gesture in turn, in an order drawn anew every time, so that all of them are made."""
        left: list[str] = []

        def following() -> str:
            if not left:
                left.extend(self.random.sample(gestures, len(gestures)))
            return left.pop()

        return following


class Crowd:
    """Tasks under way, bounded; a failure of one is raised where they are awaited."""

    def __init__(self, tasks_max: int) -> None:
        self._tasks_max = tasks_max
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts a task, or drops it where the crowd is full."""
        if len(self._tasks) >= self._tasks_max:
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    async def finish(self) -> None:
        """Waits for all of them."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._failures:
            raise self._failures[0]


async def repeated(session: Session, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Does something again and again until the time is over."""
    while not session.is_over:
        await work()
