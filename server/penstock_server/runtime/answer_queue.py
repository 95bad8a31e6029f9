"""Answers on their way out: in the order of their texts, or as they become ready."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Protocol, TypeVar


class Settleable(Protocol):
    """Something that is opened when its text arrives and settled when its answer is known."""

    @property
    def is_settled(self) -> bool:
        """Whether the answer is known."""
        ...


E = TypeVar("E", bound=Settleable)


class AnswerQueue(Generic[E]):
    """Holds the entries of texts until their answers are taken; one taker at a time.

    Args:
        in_order: Entries are taken in the order in which they were opened; otherwise as they are settled.
    """

    def __init__(self, *, in_order: bool) -> None:
        self._in_order = in_order
        self._line: deque[E] = deque()
        self._unsent = 0
        self._is_closed = False
        self._error: BaseException | None = None
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        """Entries opened and not taken."""
        return self._unsent

    def open(self, entry: E) -> None:
        """Adds an entry whose answer is not known yet."""
        self._unsent += 1
        if self._in_order:
            self._line.append(entry)

    def settle(self, entry: E) -> None:
        """Notes that an opened entry's answer is known; to be called once for each."""
        if not self._in_order:
            self._line.append(entry)
        self._ready.set()

    def close(self) -> None:
        """Ends the queue once all opened entries are taken. Idempotent."""
        self._is_closed = True
        self._ready.set()

    def fail(self, error: BaseException) -> None:
        """Ends the queue at once: the taker gets the error, whatever waits is not taken."""
        self._error = error
        self._ready.set()

    async def take(self) -> E | None:
        """Waits for the next settled entry; None when the queue is closed and empty.

        Raises:
            BaseException: The error given to ``fail``.
        """
        while True:
            if self._error is not None:
                raise self._error
            if self._line and self._line[0].is_settled:
                self._unsent -= 1
                return self._line.popleft()
            if self._is_closed and self._unsent == 0:
                return None
            self._ready.clear()
            await self._ready.wait()
