"""Drives a lane that is the only one: its next batch is chosen as late as can be, whatever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from penstock_server.domain.work import BatchPlan
from penstock_server.runtime.clock import TimerClock


class SerialDriver:
    """Keeps one batch running and, near its end, another one behind it.

    Chosen earlier, a batch of bulk rows would make live calls wait that come meanwhile; chosen later, the
    device would wait for it. Owned by the event loop.

    Args:
        slots: Batches that may be in the lane at once.
        choice_ns: Tells when the next batch must be chosen (`Scheduler.choice_ns`).
        plan: Chooses a batch; None if nothing waits.
        run: Runs a batch to its end, and the rows of one that fails again; does not raise.
        clock: Time, and its timers.
        wake: Set by others when work arrives.
    """

    def __init__(
        self,
        *,
        slots: int,
        choice_ns: Callable[[int], int],
        plan: Callable[[], BatchPlan | None],
        run: Callable[[BatchPlan], Awaitable[None]],
        clock: TimerClock,
        wake: asyncio.Event,
    ) -> None:
        self._slots = slots
        self._choice_ns = choice_ns
        self._plan = plan
        self._run = run
        self._clock = clock
        self._wake = wake
        self._in_lane = 0

    async def drive(self) -> None:
        """Runs one batch after another until it is cancelled; its batches are cancelled with it."""
        async with asyncio.TaskGroup() as batches:
            while True:
                self._wake.clear()
                if self._in_lane == self._slots:
                    await self._wake.wait()
                elif (choice_ns := self._choice_ns(now_ns := self._clock.now_ns())) > now_ns:
                    await self._wait_until(choice_ns)
                elif (batch := self._plan()) is None:
                    await self._wake.wait()
                else:
                    self._in_lane += 1
                    batches.create_task(self._compute(batch))

    async def _wait_until(self, when_ns: int) -> None:
        """Waits for a time or until it is woken: what ends or arrives may bring the choice forward."""
        timer = self._clock.call_at(when_ns, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _compute(self, batch: BatchPlan) -> None:
        try:
            await self._run(batch)
        finally:
            self._in_lane -= 1
            self._wake.set()
