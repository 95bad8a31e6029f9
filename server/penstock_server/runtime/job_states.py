"""The states of jobs: moved in the journal, and told to those who watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import structlog

from penstock_server.bulk.journal import JobStore
from penstock_server.domain.errors import StorageFailed, StorageFull, WrongState
from penstock_server.domain.job import Job, JobError, JobState
from penstock_server.runtime.job_progress import News

# How long the journal is left alone after the disk was full or failed. Chosen: people mend it in minutes.
_STORAGE_WAIT_S = 5.0

_log = structlog.get_logger(__name__)


class JobStates:
    """Moves jobs from state to state. Owned by the event loop.

    Attributes:
        news: Whatever happens to any job.
        endings: Jobs that end.
        draining: Set once the server shuts down; what waits for callers is to end then.
    """

    def __init__(self, store: JobStore, sleep: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        self._store = store
        self._sleep = sleep
        self.news = News()
        self.endings = News()
        self.draining = asyncio.Event()

    async def move(
        self, job_id: str, state: JobState, *, sources: Collection[JobState], error: JobError | None = None
    ) -> Job:
        """Moves a job from one of some states to another.

        Raises:
            UnknownJob: There is none of this id.
            WrongState: It is in none of these states.
            StorageFull: The disk has no room for the journal.
            StorageFailed: The disk failed; the job is in the state that it was in.
        """
        job = await asyncio.to_thread(self._store.move, job_id, state, sources=sources, error=error)
        _log.info("job_state", job=job_id, state=state.name)
        self.news.publish()
        if state.has_ended:
            self.endings.publish()
        return job

    async def move_when_possible(
        self, job_id: str, state: JobState, *, sources: Collection[JobState], error: JobError | None = None
    ) -> None:
        """Moves a job on behalf of the server, which can tell nobody of a bad disk, but try again.

        Gives up when the server shuts down: after the next start the job goes on from the state it is in.
        Raises UnknownJob and WrongState as ``move``.
        """
        while True:
            try:
                await self.move(job_id, state, sources=sources, error=error)
            except (StorageFull, StorageFailed) as err:
                _log.warning("job_state_waits", job=job_id, state=state.name, reason=err.reason)
                if self.draining.is_set():
                    _log.warning("job_state_not_saved", job=job_id, state=state.name)
                    return
                await self._sleep(_STORAGE_WAIT_S)
            else:
                return

    async def stop_for(self, job_id: str, state: JobState, error: JobError) -> None:
        """Moves a job to PAUSED or FAILED because of an error, unless it has ended or is being cancelled."""
        sources = {each for each in JobState if not each.has_ended}
        if state is JobState.PAUSED:
            sources.remove(JobState.CANCELLING)
        try:
            await self.move_when_possible(job_id, state, sources=sources, error=error)
        except WrongState as err:
            _log.info("job_went_on", job=job_id, message=err.message)

    def shut_down(self) -> None:
        """Ends whatever waits for news. Idempotent."""
        self.draining.set()
        self.news.publish()
        self.endings.publish()
