"""Messages of a caller, until it has sent all or the server drains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

_Message = TypeVar("_Message")


class Messages(Generic[_Message]):
    """An iterator over a caller's messages that a drain cuts short.

    Args:
        requests: The messages.
        draining: Set when the server drains.

    Attributes:
        is_cut: Whether the messages ended because the server drains.
    """

    def __init__(self, requests: AsyncIterator[_Message], draining: asyncio.Event) -> None:
        self._requests = requests
        self._draining = asyncio.create_task(draining.wait())
        self._reading: asyncio.Future[_Message | None] | None = None
        self.is_cut = False

    def __aiter__(self) -> Messages[_Message]:
        return self

    async def __anext__(self) -> _Message:
        self._reading = asyncio.ensure_future(anext(self._requests, None))
        await asyncio.wait((self._reading, self._draining), return_when=asyncio.FIRST_COMPLETED)
        if not self._reading.done():
            self.is_cut = True
            raise StopAsyncIteration
        message = self._reading.result()
        if message is None:
            raise StopAsyncIteration
        return message

    async def close(self) -> None:
        """Stops reading; idempotent."""
        self._draining.cancel()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
