"""Turns: who goes next where only so many may go at once."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """Slots that go by turns of tenants, so that nobody waits behind all that another one has begun.

    A free slot goes to the waiting tenant that holds the fewest, of several to the one that came to wait
    first; what a tenant has waiting goes in its order. Owned by the event loop; O(tenants that wait).

    Args:
        slots: How many may go at once.
        keeps_room: Whether a tenant takes only as many slots as it leaves free, so that the next one to come
            finds some; else one that is alone takes all.
    """

    def __init__(self, slots: int, *, keeps_room: bool = False) -> None:
        self._free = slots
        self._keeps_room = keeps_room
        self._held: Counter[str] = Counter()
        # In the order in which tenants came to wait; who is served goes to the end.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncGenerator[None]:
        """Waits for a slot and holds it."""
        await self._wait(tenant)
        try:
            yield
        finally:
            self._give_back(tenant)

    def is_wanted(self, tenant: str) -> bool:
        """Whether a tenant that holds fewer slots than this one waits."""
        held = self._held[tenant]
        return any(self._held[other] < held for other in self._waiting)

    async def _wait(self, tenant: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        self._grant()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(tenant, turn)
            else:
                self._give_back(tenant)
            raise

    def _leave(self, tenant: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(tenant)
        # Not in line if its turn came after it was cancelled and before this task heard of that.
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._waiting[tenant]

    def _give_back(self, tenant: str) -> None:
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._grant()

    def _grant(self) -> None:
        while (tenant := self._next()) is not None:
            line = self._waiting.pop(tenant)
            turn = line.popleft()
            if line:
                self._waiting[tenant] = line
            if not turn.cancelled():
                self._free -= 1
                self._held[tenant] += 1
                turn.set_result(None)

    def _next(self) -> str | None:
        allowed = [tenant for tenant in self._waiting if self._may_take(tenant)]
        return min(allowed, key=self._held.__getitem__, default=None)

    def _may_take(self, tenant: str) -> bool:
        return self._free > (self._held[tenant] if self._keeps_room else 0)
