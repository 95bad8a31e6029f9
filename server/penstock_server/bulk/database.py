"""The SQLite database of uploads and jobs: one connection, one writer at a time."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from penstock_server.bulk.durable import disk_failed, no_room, storage_errors
from penstock_server.domain.errors import StorageFailed, StorageFull, WrongState

SCHEMA_VERSION = 5
# Room that the write-ahead log is given at start, so that jobs can still be paused and deleted when the disk
# is full. Derived: SQLite begins the log anew after 1,000 pages of 4 KiB, and no transaction has a hundred.
_LOG_BYTES = 1100 * (4096 + 24)
_PRIMARY_CODE = 0xFF
_DISK_FAILED = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
# Touches no table, but writes a page.
_WRITES_SOMETHING = f"PRAGMA user_version = {SCHEMA_VERSION}"

_FIRST_SCHEMA = """
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    file_name TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    crc32c INTEGER,
    committed_bytes INTEGER NOT NULL,
    committed_crc32c INTEGER NOT NULL,
    complete INTEGER NOT NULL,
    created_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT UNIQUE,
    upload_id TEXT NOT NULL,
    spec BLOB NOT NULL,
    state TEXT NOT NULL,
    validated INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    error_reason TEXT,
    error_message TEXT,
    created_ns INTEGER NOT NULL,
    started_ns INTEGER,
    ended_ns INTEGER,
    CHECK (succeeded >= 0 AND failed >= 0 AND succeeded + failed <= total)
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_upload ON jobs (upload_id);
CREATE TABLE windows (
    job_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    file_name TEXT NOT NULL,
    PRIMARY KEY (job_id, number),
    CHECK (succeeded + failed <= rows)
) STRICT, WITHOUT ROWID;
"""


# What leads from each version of the schema to the next one.
_MIGRATIONS = {
    0: _FIRST_SCHEMA,
    1: """
ALTER TABLE jobs ADD COLUMN expires_ns INTEGER;
CREATE INDEX jobs_by_expiry ON jobs (expires_ns) WHERE expires_ns IS NOT NULL AND ended_ns IS NULL;
""",
    2: """
ALTER TABLE uploads ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
UPDATE jobs SET tenant = coalesce(json_extract(CAST(spec AS TEXT), '$.options.tenant'), '');
CREATE INDEX jobs_by_tenant ON jobs (tenant, sequence);
""",
    3: """
ALTER TABLE uploads ADD COLUMN sha256 BLOB;
ALTER TABLE uploads ADD COLUMN touched_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE uploads ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
UPDATE uploads SET touched_ns = created_ns;
CREATE INDEX uploads_by_sha256 ON uploads (sha256) WHERE complete = 1;
""",
    4: """
CREATE TABLE schedules (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT UNIQUE,
    tenant TEXT NOT NULL,
    spec BLOB NOT NULL,
    created_ns INTEGER NOT NULL,
    due_ns INTEGER,
    run_ns INTEGER,
    run_jobs INTEGER NOT NULL DEFAULT 0,
    run_files_left INTEGER NOT NULL DEFAULT 0,
    error_reason TEXT,
    error_message TEXT
) STRICT;
CREATE INDEX schedules_by_due ON schedules (due_ns) WHERE due_ns IS NOT NULL;
CREATE TABLE schedule_files (
    schedule_id TEXT NOT NULL,
    url TEXT NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (schedule_id, url)
) STRICT, WITHOUT ROWID;
""",
}


_log = structlog.get_logger(__name__)


@contextmanager
def _sqlite_errors() -> Generator[None]:
    """Turns what SQLite says of a full or failing disk into our errors."""
    try:
        yield
    except sqlite3.OperationalError as err:
        code = err.sqlite_errorcode & _PRIMARY_CODE
        if code == sqlite3.SQLITE_FULL:
            raise no_room() from err
        if code in _DISK_FAILED:
            raise disk_failed(f"{err}, {err.sqlite_errorname}") from err
        raise


class Database:
    """A SQLite file in WAL mode. Safe to use from any thread; every commit is on disk when it returns.

    A commit that failed is in doubt: its pages may lie in the log, where a start after a crash would find it.
    The next transaction overwrites them; whoever is to do something to files that relies on the commit not
    being there calls ``settle`` before.

    Args:
        path: The file; made if there is none.

    Raises:
        WrongState: The file was written by a newer release.
        StorageFull, StorageFailed: It cannot be opened or made.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._is_in_doubt = False
        with _sqlite_errors():
            self._open(path)
        self._empty_log()
        self._reserve_log(path.with_name(f"{path.name}-wal"))

    def _open(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        # EXCLUSIVE: the data folder is ours alone, and SQLite needs no file of shared memory then, which it
        # could not make on a full disk.
        # FULL: in WAL mode NORMAL could lose the last commits at power loss, and with them part files.
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "busy_timeout = 5000",
        ):
            self._connection.execute(f"PRAGMA {pragma}")
        self._migrate(path)

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """Runs statements as one transaction; any error rolls all of them back.

        Raises:
            StorageFull: The disk has no room.
            StorageFailed: The disk failed.
        """
        with self._lock, _sqlite_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self._is_in_doubt:
                    # A transaction that writes nothing would overwrite nothing.
                    self._connection.execute(_WRITES_SOMETHING)
                yield self._connection
                self._commit()
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def settle(self) -> None:
        """Makes sure that no commit that failed comes back after a crash.

        Raises:
            StorageFull, StorageFailed: It cannot be told yet.
        """
        with self._lock:
            if self._is_in_doubt:
                with self.transaction():
                    pass

    def _commit(self) -> None:
        was_in_doubt, self._is_in_doubt = self._is_in_doubt, True
        try:
            self._connection.execute("COMMIT")
        except sqlite3.IntegrityError:
            # Refused before anything was written.
            self._is_in_doubt = was_in_doubt
            raise
        self._is_in_doubt = False

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Reads all rows of a query. Raises StorageFailed."""
        with self._lock, _sqlite_errors():
            return self._connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        """Reads the first row of a query, or None."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def close(self) -> None:
        """Closes the file; idempotent."""
        with self._lock:
            self._connection.close()

    def _empty_log(self) -> None:
        """Moves what a crash has left in the log to the file itself.

        The log may hold a commit whose fsync failed, which is only in memory then: what was appended behind
        it would be lost with it. In the file all of it is written and fsynced anew.
        """
        try:
            with self._lock, _sqlite_errors():
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (StorageFull, StorageFailed) as err:
            # SQLite tries again before the log grows long.
            _log.warning("journal_not_tidied", error=err.message)

    def _reserve_log(self, path: Path) -> None:
        """Gives the log its room; SQLite takes zeros at its end for what they are, nothing."""
        try:
            with storage_errors():
                descriptor = os.open(path, os.O_RDWR)
                try:
                    os.posix_fallocate(descriptor, 0, _LOG_BYTES)
                finally:
                    os.close(descriptor)
        except (OSError, StorageFull, StorageFailed) as err:
            _log.warning("journal_without_reserve", error=str(err))

    def _migrate(self, path: Path) -> None:
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            self._connection.close()
            raise WrongState(
                f"{path} was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}). "
                "Start that release, or give this one another data folder."
            )
        for earlier in range(version, SCHEMA_VERSION):
            self._connection.executescript(
                f"BEGIN; {_MIGRATIONS[earlier]} PRAGMA user_version = {earlier + 1}; COMMIT;"
            )
