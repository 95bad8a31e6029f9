"""What callers have done to jobs, done to the end even if the caller leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from penstock_server.domain.errors import PenstockError

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class JobCommands:
    """The commands under way. Owned by the event loop.

    A command writes to the journal and then does what follows from that: it launches a task, interrupts one,
    removes files. grpc.aio cancels the handler of a caller that leaves, but what a thread has begun to write
    still lands; so commands run in tasks of their own, which only end by themselves.
    """

    def __init__(self) -> None:
        # The event loop keeps weak references only: without these a command could vanish half way.
        self._tasks: set[asyncio.Task[Any]] = set()

    async def carry_out(self, command: Coroutine[Any, Any, _T]) -> _T:
        """Runs a command to its end, whether or not the caller waits for it. Raises what it raises."""
        task = asyncio.create_task(command)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    async def close(self) -> None:
        """Waits for all commands under way. Idempotent."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _log_failure(task: asyncio.Task[Any]) -> None:
    """Tells the log how a command failed, as its caller is not there to be told."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, PenstockError):
        _log.info("job_command_refused", reason=error.reason, error=error.message)
    elif error is not None:
        _log.error("job_command_failed", exc_info=error)
