"""Builds the parts of bulk jobs over a data folder, and takes them down together."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from penstock_server.bulk.database import Database
from penstock_server.bulk.journal import JobStore
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.places import place_of
from penstock_server.bulk.schedules import ScheduleStore
from penstock_server.bulk.uploads import UploadStore
from penstock_server.config import BulkConfig
from penstock_server.domain.errors import InvalidRequest
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.job_course import ModelLookup
from penstock_server.runtime.job_files import FileProcesses
from penstock_server.runtime.job_run import WorkSubmitter
from penstock_server.runtime.jobs import JobRunner
from penstock_server.runtime.result_cache import ResultCache
from penstock_server.runtime.schedules import ScheduleRunner


class BulkJobs:
    """Database, uploads and runner of one data folder.

    Args:
        folder: Where everything is kept; made if there is none.
        limits: Bounds of it all.
        models: Finds models.
        submitter: Takes work.
        clock: The server's monotonic clock.
        cache: Outputs that were computed before; None for none.
    """

    def __init__(
        self,
        folder: Path,
        limits: BulkLimits,
        *,
        models: ModelLookup,
        submitter: WorkSubmitter,
        clock: Clock,
        cache: ResultCache | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.limits = limits
        self._database = Database(folder / "journal.sqlite")
        self.uploads = UploadStore(folder / "uploads", self._database, limits, time.time_ns)
        self.jobs = JobRunner(
            folder / "jobs",
            store=JobStore(self._database, limits, time.time_ns),
            uploads=self.uploads,
            models=models,
            submitter=submitter,
            files=FileProcesses(),
            clock=clock,
            day_ns=time.time_ns,
            limits=limits,
            cache=cache,
        )

        self.schedules = ScheduleRunner(
            ScheduleStore(self._database, limits, time.time_ns),
            self.jobs,
            day_ns=time.time_ns,
            jobs_max=limits.schedule_jobs_max,
            expire_s_max=limits.expire_s_max,
        )

    async def start(self) -> None:
        """Goes on with unfinished jobs."""
        await self.jobs.start()

    def start_schedules(self) -> None:
        """Runs what has come due; jobs may be made from then on."""
        self.schedules.start()

    async def drain(self) -> None:
        """Stops jobs, keeping what is done, and ends Upload and WatchJob; jobs can still be read."""
        await self.schedules.close()
        await self.jobs.close()

    async def close(self) -> None:
        """Stops jobs and closes the database; idempotent."""
        await self.drain()
        await asyncio.to_thread(self._database.close)


def bulk_limits(config: BulkConfig, lanes: int) -> BulkLimits:
    """The limits as configured, where so many lanes compute bulk batches at once.

    Raises:
        InvalidRequest: A root is no URL or absolute path.
    """
    for name in ("input_roots", "output_roots"):
        for root in getattr(config, name):
            try:
                place_of(root)
            except ValueError as err:
                raise InvalidRequest(f"Wrong configuration: bulk.{name} has {root!r}; {err}.") from err
    return BulkLimits(
        upload_bytes_max=config.upload_bytes_max,
        upload_age_s_max=config.upload_days_max * 24 * 3600,
        input_roots=config.input_roots,
        output_roots=config.output_roots,
        lanes=lanes,
        window_rows=config.window_rows,
        windows_in_flight_max=config.windows_in_memory_max,
        jobs_running_max=config.jobs_running_max,
        small_jobs_running_max=config.small_jobs_running_max,
    )
