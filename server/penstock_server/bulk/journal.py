"""The journal of jobs: what was asked, how far it is, which windows are safe on disk.

A window is committed in one transaction after its part file is durable (written, fsynced, renamed, folder
fsynced). Whatever file the journal does not name does not exist as far as results go.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import msgspec

from penstock_server.bulk.database import Database
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.decoding import decode_json
from penstock_server.domain.errors import InvalidRequest, StorageFull, UnknownJob, WrongState
from penstock_server.domain.job import Job, JobError, JobProgress, JobSpec, JobState

# Largest sequence number that SQLite can hold; no job gets this one.
_SEQUENCE_MAX = (1 << 63) - 1
_TOKEN = re.compile("[0-9]{1,19}")
# A job that is finalizing or cancelling ends by itself.
_EXPIRING = (JobState.VALIDATING.value, JobState.RUNNING.value, JobState.PAUSED.value)
_UNFINISHED = tuple(state.value for state in JobState if not state.has_ended)


@dataclass(frozen=True, slots=True)
class WindowRecord:
    """A window that is safe on disk, whole or in part (``succeeded + failed < rows``).

    Attributes:
        number: The window's place in the job, from 0.
        rows: Rows of the window.
        succeeded: Rows with an answer.
        failed: Rows with a reason why there is none.
        tokens: Tokens computed for it.
        file_name: Its part file in the job's folder.
    """

    number: int
    rows: int
    succeeded: int
    failed: int
    tokens: int
    file_name: str

    @property
    def is_whole(self) -> bool:
        """Whether no row is pending."""
        return self.succeeded + self.failed == self.rows


@dataclass(frozen=True, slots=True)
class Expiry:
    """A job, and when its time runs out, in nanoseconds since 1970."""

    job_id: str
    time_ns: int


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest first, and the token of the next page (empty: there is none)."""

    jobs: tuple[Job, ...]
    next_page_token: str


class JobStore:
    """Jobs and windows in the database. Safe to use from any thread."""

    def __init__(self, database: Database, limits: BulkLimits, now_ns: Callable[[], int]) -> None:
        self._database = database
        self._limits = limits
        self._now_ns = now_ns

    def create(self, spec: JobSpec, request_id: str = "") -> tuple[Job, bool]:
        """Makes a job in VALIDATING, or finds the one made by an earlier request of the same id.

        Returns:
            The job, and whether it was made now.

        Raises:
            StorageFull: Too many jobs are kept.
        """
        job_id = f"job-{secrets.token_hex(12)}"
        with self._database.transaction() as db:
            earlier = db.execute("SELECT id FROM jobs WHERE request_id = ?", (request_id or None,)).fetchone()
            if earlier is not None:
                return self.get(earlier["id"]), False
            if db.execute("SELECT count(*) FROM jobs").fetchone()[0] >= self._limits.jobs_max:
                raise StorageFull(
                    f"The server keeps {self._limits.jobs_max:,} jobs; delete some that have ended."
                )
            db.execute(
                "INSERT INTO jobs (id, request_id, upload_id, spec, state, created_ns, expires_ns, tenant) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job_id,
                    request_id or None,
                    spec.upload_id,
                    msgspec.json.encode(spec),
                    JobState.VALIDATING.value,
                    self._now_ns(),
                    spec.expire_time_ns,
                    spec.options.tenant,
                ),
            )
            # From here on the job keeps its upload from being deleted.
            db.execute("UPDATE uploads SET promised = 0 WHERE id = ?", (spec.upload_id,))
        return self.get(job_id), True

    def find_request(self, request_id: str) -> Job | None:
        """The job made by an earlier request of this id, or None."""
        row = self._database.row("SELECT * FROM jobs WHERE request_id = ?", (request_id or None,))
        return _job_of(row) if row is not None else None

    def get(self, job_id: str) -> Job:
        """Reads a job.

        Raises:
            UnknownJob: There is none of this id.
        """
        row = self._database.row("SELECT * FROM jobs WHERE id = ?", (job_id,))
        if row is None:
            raise no_job(job_id)
        return _job_of(row)

    def page(
        self,
        page_size: int,
        page_token: str = "",
        states: Collection[JobState] = (),
        tenant: str | None = None,
    ) -> JobPage:
        """Reads a page of jobs, newest first: all, or a tenant's.

        Raises:
            InvalidRequest: The page token is not one of ours.
        """
        before = page_start(page_token)
        wanted = [state.value for state in (states or JobState)]
        marks = ", ".join("?" * len(wanted))
        rows = self._database.rows(
            f"SELECT * FROM jobs WHERE sequence < ? AND state IN ({marks}) AND (? IS NULL OR tenant = ?) "
            "ORDER BY sequence DESC LIMIT ?",
            (before, *wanted, tenant, tenant, page_size + 1),
        )
        more = len(rows) > page_size
        token = str(rows[page_size - 1]["sequence"]) if more else ""
        return JobPage(tuple(_job_of(row) for row in rows[:page_size]), token)

    def unfinished(self) -> list[Job]:
        """All jobs that have not ended, oldest first."""
        marks = ", ".join("?" * len(_UNFINISHED))
        rows = self._database.rows(
            f"SELECT * FROM jobs WHERE state IN ({marks}) ORDER BY sequence", _UNFINISHED
        )
        return [_job_of(row) for row in rows]

    def next_expiry(self) -> Expiry | None:
        """Which job's time runs out next while rows of it are pending; None if no job is to end by itself."""
        marks = ", ".join("?" * len(_EXPIRING))
        row = self._database.row(
            "SELECT id, expires_ns FROM jobs WHERE expires_ns IS NOT NULL AND ended_ns IS NULL "
            f"AND state IN ({marks}) AND (NOT validated OR succeeded + failed < total) "
            "ORDER BY expires_ns LIMIT 1",
            _EXPIRING,
        )
        return None if row is None else Expiry(row["id"], row["expires_ns"])

    def job_ids(self) -> set[str]:
        """Ids of all jobs."""
        return {row["id"] for row in self._database.rows("SELECT id FROM jobs")}

    def validated(self, job_id: str, total: int) -> Job:
        """Records that a job's rows are counted; VALIDATING becomes RUNNING, PAUSED stays."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE jobs SET validated = 1, total = ?, "
                "state = CASE state WHEN ? THEN ? ELSE state END WHERE id = ?",
                (total, JobState.VALIDATING.value, JobState.RUNNING.value, job_id),
            )
        return self.get(job_id)

    def started(self, job_id: str) -> None:
        """Records when a job's first row was computed; no effect the second time."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE jobs SET started_ns = ? WHERE id = ? AND started_ns IS NULL", (self._now_ns(), job_id)
            )

    def move(
        self, job_id: str, state: JobState, *, sources: Iterable[JobState], error: JobError | None = None
    ) -> Job:
        """Moves a job from one of some states to another; notes the time if that ends it.

        Raises:
            UnknownJob: There is none of this id.
            WrongState: It is in none of these states.
        """
        with self._database.transaction() as db:
            job = self.get(job_id)
            if job.state not in frozenset(sources):
                raise WrongState(
                    f"Job {job_id} is {job.state.name}; it cannot become {state.name}.",
                    job_id=job_id,
                    state=job.state.name,
                )
            db.execute(
                "UPDATE jobs SET state = ?, error_reason = ?, error_message = ?, ended_ns = ? WHERE id = ?",
                (
                    state.value,
                    error.reason if error else None,
                    error.message if error else None,
                    self._now_ns() if state.has_ended else None,
                    job_id,
                ),
            )
        return self.get(job_id)

    def commit_window(self, job_id: str, window: WindowRecord) -> WindowRecord | None:
        """Records a window whose part file is durable, in place of an earlier record of it.

        Returns:
            The earlier record, whose file is of no more use, or None.
        """
        with self._database.transaction() as db:
            row = db.execute(
                "SELECT * FROM windows WHERE job_id = ? AND number = ?", (job_id, window.number)
            ).fetchone()
            earlier = _window_of(row) if row is not None else WindowRecord(window.number, 0, 0, 0, 0, "")
            db.execute(
                "INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    job_id,
                    window.number,
                    window.rows,
                    window.succeeded,
                    window.failed,
                    window.tokens,
                    window.file_name,
                ),
            )
            db.execute(
                "UPDATE jobs SET succeeded = succeeded + ?, failed = failed + ?, tokens = tokens + ? "
                "WHERE id = ?",
                (
                    window.succeeded - earlier.succeeded,
                    window.failed - earlier.failed,
                    window.tokens - earlier.tokens,
                    job_id,
                ),
            )
        return earlier if earlier.file_name else None

    def forget_window(self, job_id: str, window: WindowRecord) -> None:
        """Removes a window whose part file is not there, so that it is computed again."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM windows WHERE job_id = ? AND number = ?", (job_id, window.number))
            db.execute(
                "UPDATE jobs SET succeeded = succeeded - ?, failed = failed - ?, tokens = tokens - ? "
                "WHERE id = ?",
                (window.succeeded, window.failed, window.tokens, job_id),
            )

    def windows(self, job_id: str) -> list[WindowRecord]:
        """The windows of a job that are safe on disk, in order."""
        rows = self._database.rows("SELECT * FROM windows WHERE job_id = ? ORDER BY number", (job_id,))
        return [_window_of(row) for row in rows]

    def delete(self, job_id: str) -> str | None:
        """Removes a job that has ended and its windows.

        Returns:
            Id of its upload if no other job uses it, else None.

        Raises:
            UnknownJob: There is none of this id.
            WrongState: It has not ended.
        """
        with self._database.transaction() as db:
            job = self.get(job_id)
            if not job.state.has_ended:
                raise WrongState(
                    f"Job {job_id} is {job.state.name}; cancel it before deleting it.",
                    job_id=job_id,
                    state=job.state.name,
                )
            db.execute("DELETE FROM windows WHERE job_id = ?", (job_id,))
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            upload_id = job.spec.upload_id
            used = db.execute("SELECT 1 FROM jobs WHERE upload_id = ? LIMIT 1", (upload_id,)).fetchone()
        return upload_id if upload_id and not used else None


def page_start(page_token: str) -> int:
    """The sequence number before which a page begins.

    Raises:
        InvalidRequest: The page token is not one of ours.
    """
    before = int(page_token) if _TOKEN.fullmatch(page_token) else _SEQUENCE_MAX
    if page_token and before >= _SEQUENCE_MAX:
        raise InvalidRequest.of_field("page_token", "is not a next_page_token of this server")
    return before


def no_job(job_id: str) -> UnknownJob:
    """The error for an id that no job has, or none that the caller may know of."""
    return UnknownJob(f"There is no job {job_id!r}; ListJobs tells those there are.", job_id=job_id)


def _window_of(row: sqlite3.Row) -> WindowRecord:
    return WindowRecord(
        number=row["number"],
        rows=row["rows"],
        succeeded=row["succeeded"],
        failed=row["failed"],
        tokens=row["tokens"],
        file_name=row["file_name"],
    )


def _job_of(row: sqlite3.Row) -> Job:
    error = JobError(row["error_reason"], row["error_message"]) if row["error_reason"] else None
    return Job(
        id=row["id"],
        spec=decode_json(row["spec"], JobSpec),
        state=JobState(row["state"]),
        progress=JobProgress(row["total"], row["succeeded"], row["failed"], row["tokens"]),
        is_validated=bool(row["validated"]),
        error=error,
        create_time_ns=row["created_ns"],
        start_time_ns=row["started_ns"],
        end_time_ns=row["ended_ns"],
    )
