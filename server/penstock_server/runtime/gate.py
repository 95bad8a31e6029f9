"""A gate that many pass together, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Gate:
    """Lets work run side by side, and suspects one at a time with nothing beside them.

    Who wants to be alone goes before those who come later, so it never waits for ever.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._together = 0
        self._alone = False
        self._want_alone = 0

    @asynccontextmanager
    async def passing(self, *, alone: bool) -> AsyncGenerator[None]:
        """Waits for the way to be free, and holds it."""
        await (self._enter_alone() if alone else self._enter())
        try:
            yield
        finally:
            await self._leave(alone=alone)

    async def _enter(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._alone and not self._want_alone)
            self._together += 1

    async def _enter_alone(self) -> None:
        async with self._changed:
            self._want_alone += 1
            try:
                await self._changed.wait_for(lambda: not self._alone and not self._together)
                self._alone = True
            finally:
                self._want_alone -= 1
                self._changed.notify_all()

    async def _leave(self, *, alone: bool) -> None:
        async with self._changed:
            if alone:
                self._alone = False
            else:
                self._together -= 1
            self._changed.notify_all()
