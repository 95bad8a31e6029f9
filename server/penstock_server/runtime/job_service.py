"""Builds the parts of bulk jobs over a data folder, and takes them down together."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from penstock_server.bulk.database import Database
from penstock_server.bulk.journal import JobStore
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.places import place_of
from penstock_server.bulk.uploads import UploadStore
from penstock_server.config import BulkConfig
from penstock_server.domain.errors import InvalidRequest
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.job_course import ModelLookup
from penstock_server.runtime.job_files import FileProcesses
from penstock_server.runtime.job_run import WorkSubmitter
from penstock_server.runtime.jobs import JobRunner


class BulkJobs:
    """Database, uploads and runner of one data folder.

    Args:
        folder: Where everything is kept; made if there is none.
        limits: Bounds of it all.
        models: Finds models.
        submitter: Takes work.
        clock: The server's monotonic clock.
    """

    def __init__(
        self, folder: Path, limits: BulkLimits, *, models: ModelLookup, submitter: WorkSubmitter, clock: Clock
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
        )

    async def start(self) -> None:
        """Goes on with unfinished jobs."""
        await self.jobs.start()

    async def drain(self) -> None:
        """Stops jobs, keeping what is done, and ends Upload and WatchJob; jobs can still be read."""
        await self.jobs.close()

    async def close(self) -> None:
        """Stops jobs and closes the database; idempotent."""
        await self.jobs.close()
        await asyncio.to_thread(self._database.close)


def bulk_limits(config: BulkConfig) -> BulkLimits:
    """The limits as configured.

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
        window_rows=config.window_rows,
        windows_in_flight_max=config.windows_in_memory_max,
        jobs_running_max=config.jobs_running_max,
        small_jobs_running_max=config.small_jobs_running_max,
    )
