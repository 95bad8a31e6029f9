"""The tasks of jobs: never two at once for one job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class JobTasks:
    """At most one task a job. Owned by the event loop.

    Args:
        run: Takes a job from the state that the journal tells as far as it goes; must not raise.
    """

    def __init__(self, run: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self._run = run
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._is_closed = False

    def launch(self, job_id: str) -> None:
        """Has a job's task look at the journal: now, or once it has ended what it does.

        No effect after ``close``: whatever the journal says is done after the next start.
        """
        if self._is_closed:
            return
        if job_id in self._tasks:
            self._again.add(job_id)
            return
        task = asyncio.create_task(self._run(job_id), name=job_id)
        self._tasks[job_id] = task
        task.add_done_callback(lambda _: self._ended(job_id))

    def cancel(self, job_id: str) -> None:
        """Ends a job's present task at once; no effect if there is none."""
        task = self._tasks.get(job_id)
        if task is not None:
            task.cancel()

    async def close(self, interrupt: Callable[[str], None]) -> None:
        """Starts no more tasks, has every present one interrupted, and waits for them. Idempotent."""
        self._is_closed = True
        tasks = dict(self._tasks)
        for job_id in tasks:
            interrupt(job_id)
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _ended(self, job_id: str) -> None:
        del self._tasks[job_id]
        if job_id in self._again:
            self._again.remove(job_id)
            self.launch(job_id)
