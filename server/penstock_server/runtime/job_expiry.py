"""Ends jobs whose time has run out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from penstock_server.bulk.journal import JobStore
from penstock_server.domain.errors import UnknownJob, WrongState

# How long is slept at most: the clock of the day may be set, or stand still with the machine.
_SLEEP_S_MAX = 30.0

_log = structlog.get_logger(__name__)


class JobExpiry:
    """Watches the time of jobs. Owned by the event loop.

    What is due next is asked of the journal, so that there is nothing to keep in step with it.

    Args:
        store: Knows which job is due next.
        day_ns: The clock of the day, in nanoseconds since 1970.
        sleep: Lets time pass.
        expire: Ends a job; raises UnknownJob or WrongState if somebody else has.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        day_ns: Callable[[], int],
        sleep: Callable[[float], Coroutine[Any, Any, None]],
        expire: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._day_ns = day_ns
        self._sleep = sleep
        self._expire = expire
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to watch."""
        self._task = asyncio.create_task(self._watch(), name="job-expiry")

    def changed(self) -> None:
        """Hears of a new job that is to end at some time."""
        self._changed.set()

    async def close(self) -> None:
        """Ends no more jobs. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - without this task no job would ever expire
                _log.exception("job_expiry_failed")
                await self._sleep(_SLEEP_S_MAX)

    async def _look(self) -> None:
        """Ends the job that is due, or waits until one may be."""
        self._changed.clear()
        due = await asyncio.to_thread(self._store.next_expiry)
        if due is None:
            await self._wait(None)
            return
        left_s = (due.time_ns - self._day_ns()) / 1e9
        if left_s > 0:
            await self._wait(left_s)
            return
        _log.info("job_expires", job=due.job_id)
        try:
            await self._expire(due.job_id)
        except (UnknownJob, WrongState) as err:
            _log.info("job_ended_before", job=due.job_id, message=err.message)

    async def _wait(self, left_s: float | None) -> None:
        """Waits for some time, or for the first job that is to end, or for another one."""
        changed = asyncio.create_task(self._changed.wait())
        if left_s is None:
            await changed
            return
        timer = asyncio.create_task(self._sleep(min(left_s, _SLEEP_S_MAX)))
        try:
            await asyncio.wait((changed, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            timer.cancel()
