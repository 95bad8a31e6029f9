"""The journal of schedules: when each is due, and which files it has made jobs of."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from penstock_server.bulk.database import Database
from penstock_server.bulk.journal import page_start
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import StorageFull, UnknownSchedule
from penstock_server.domain.job import JobError
from penstock_server.domain.schedule import Schedule, ScheduleRun, ScheduleSpec


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file as it is.

    Attributes:
        url: Where it is.
        version: Differs once it has been changed.
        name: Its name, which tells its format.
    """

    url: str
    version: str
    name: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SchedulePage:
    """Some schedules, newest first, and the token of the next page (empty: there is none)."""

    schedules: tuple[Schedule, ...]
    next_page_token: str


class ScheduleStore:
    """Schedules in the database. Safe to use from any thread."""

    def __init__(self, database: Database, limits: BulkLimits, now_ns: Callable[[], int]) -> None:
        self._database = database
        self._limits = limits
        self._now_ns = now_ns

    def create(self, spec: ScheduleSpec, due_ns: int, request_id: str = "") -> Schedule:
        """Makes a schedule, or finds the one made by an earlier request of the same id.

        Raises:
            StorageFull: Too many schedules are kept.
        """
        schedule_id = f"schedule-{secrets.token_hex(12)}"
        with self._database.transaction() as db:
            earlier = db.execute(
                "SELECT id FROM schedules WHERE request_id = ?", (request_id or None,)
            ).fetchone()
            if earlier is not None:
                return self.get(earlier["id"])
            if db.execute("SELECT count(*) FROM schedules").fetchone()[0] >= self._limits.schedules_max:
                raise StorageFull(
                    f"The server keeps {self._limits.schedules_max:,} schedules; delete some first."
                )
            db.execute(
                "INSERT INTO schedules (id, request_id, tenant, spec, created_ns, due_ns) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    schedule_id,
                    request_id or None,
                    spec.job.options.tenant,
                    msgspec.json.encode(spec),
                    self._now_ns(),
                    due_ns,
                ),
            )
        return self.get(schedule_id)

    def get(self, schedule_id: str) -> Schedule:
        """Reads a schedule.

        Raises:
            UnknownSchedule: There is none of this id.
        """
        row = self._database.row("SELECT * FROM schedules WHERE id = ?", (schedule_id,))
        if row is None:
            raise no_schedule(schedule_id)
        return _schedule_of(row)

    def page(self, page_size: int, page_token: str, tenant: str | None) -> SchedulePage:
        """Reads a page of all schedules or a tenant's. Raises InvalidRequest for a token that is none."""
        rows = self._database.rows(
            "SELECT * FROM schedules WHERE sequence < ? AND (? IS NULL OR tenant = ?) "
            "ORDER BY sequence DESC LIMIT ?",
            (page_start(page_token), tenant, tenant, page_size + 1),
        )
        token = str(rows[page_size - 1]["sequence"]) if len(rows) > page_size else ""
        return SchedulePage(tuple(_schedule_of(row) for row in rows[:page_size]), token)

    def next_due(self) -> Schedule | None:
        """The schedule that is due next; None if none is."""
        row = self._database.row(
            "SELECT * FROM schedules WHERE due_ns IS NOT NULL ORDER BY due_ns, sequence LIMIT 1"
        )
        return None if row is None else _schedule_of(row)

    def set_due(self, schedule_id: str, due_ns: int | None) -> Schedule:
        """Says when a schedule runs next; None pauses it. Raises UnknownSchedule."""
        with self._database.transaction() as db:
            db.execute("UPDATE schedules SET due_ns = ? WHERE id = ?", (due_ns, schedule_id))
        return self.get(schedule_id)

    def ran(self, schedule_id: str, run: ScheduleRun, due_ns: int) -> Schedule:
        """Records a run, and when the next one is unless it was paused meanwhile. Raises UnknownSchedule."""
        error = run.error
        with self._database.transaction() as db:
            db.execute(
                "UPDATE schedules SET due_ns = CASE WHEN due_ns IS NULL THEN NULL ELSE ? END, "
                "run_ns = ?, run_jobs = ?, run_files_left = ?, "
                "error_reason = ?, error_message = ? WHERE id = ?",
                (
                    due_ns,
                    run.time_ns,
                    run.jobs,
                    run.files_left,
                    error.reason if error else None,
                    error.message if error else None,
                    schedule_id,
                ),
            )
        return self.get(schedule_id)

    def new_files(self, schedule_id: str, files: Sequence[FileVersion]) -> list[FileVersion]:
        """Finds out of which files, as they are, the schedule has made no job.

        Args:
            schedule_id: The schedule.
            files: All files that there are; others are forgotten, unless there are none at all, as in a
                folder that is away for a while.

        Returns:
            The new ones, in the same order.
        """
        present = {file.url for file in files}
        with self._database.transaction() as db:
            rows = db.execute("SELECT url, version FROM schedule_files WHERE schedule_id = ?", (schedule_id,))
            known = {FileVersion(row["url"], row["version"]) for row in rows}
            gone = [(schedule_id, file.url) for file in known if present and file.url not in present]
            db.executemany("DELETE FROM schedule_files WHERE schedule_id = ? AND url = ?", gone)
        return [file for file in files if file not in known]

    def took(self, schedule_id: str, file: FileVersion) -> None:
        """Records that a job was made of a file as it is; what it was before is forgotten."""
        with self._database.transaction() as db:
            # No row if the schedule was deleted meanwhile.
            db.execute(
                "INSERT OR REPLACE INTO schedule_files SELECT id, ?, ? FROM schedules WHERE id = ?",
                (file.url, file.version, schedule_id),
            )

    def delete(self, schedule_id: str) -> None:
        """Removes a schedule. Raises UnknownSchedule."""
        with self._database.transaction() as db:
            self.get(schedule_id)
            db.execute("DELETE FROM schedule_files WHERE schedule_id = ?", (schedule_id,))
            db.execute("DELETE FROM schedules WHERE id = ?", (schedule_id,))


def no_schedule(schedule_id: str) -> UnknownSchedule:
    """The error for an id that no schedule has, or none that the caller may know of."""
    return UnknownSchedule(
        f"There is no schedule {schedule_id!r}; ListSchedules tells those there are.", schedule_id=schedule_id
    )


def _schedule_of(row: sqlite3.Row) -> Schedule:
    error = JobError(row["error_reason"], row["error_message"]) if row["error_reason"] else None
    run = None
    if row["run_ns"] is not None:
        run = ScheduleRun(row["run_ns"], row["run_jobs"], row["run_files_left"], error)
    return Schedule(
        id=row["id"],
        spec=msgspec.json.decode(row["spec"], type=ScheduleSpec),
        is_paused=row["due_ns"] is None,
        create_time_ns=row["created_ns"],
        due_ns=row["due_ns"],
        last_run=run,
    )
