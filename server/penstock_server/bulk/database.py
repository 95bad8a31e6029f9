"""The SQLite database of uploads and jobs: one connection, one writer at a time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock_server.domain.errors import StorageFull, WrongState

SCHEMA_VERSION = 4

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
}


class Database:
    """A SQLite file in WAL mode. Safe to use from any thread; every commit is on disk when it returns.

    Args:
        path: The file; made if there is none.

    Raises:
        WrongState: The file was written by a newer release.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        # FULL: in WAL mode NORMAL could lose the last commits at power loss, and with them part files.
        for pragma in (
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
        """
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as err:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(err, sqlite3.OperationalError) and err.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise StorageFull(
                        "The server's disk is full; delete finished jobs and try again."
                    ) from err
                raise

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Reads all rows of a query."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        """Reads the first row of a query, or None."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def close(self) -> None:
        """Closes the file; idempotent."""
        with self._lock:
            self._connection.close()

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
