"""The database on a bad disk: what it says, what a crash leaves of it, and room for bad times."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.database import Database
from penstock_server.domain.errors import StorageFailed, StorageFull

_INSERT = (
    "INSERT INTO uploads "
    "(id, file_name, size_bytes, committed_bytes, committed_crc32c, complete, created_ns) "
    "VALUES (?, 'a', 1, 0, 0, 0, 0)"
)


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    database = Database(tmp_path / "db")
    yield database
    database.close()


def insert(database: Database, name: str) -> None:
    with database.transaction() as db:
        db.execute(_INSERT, (name,))


def names(database: Database) -> list[str]:
    return [row["id"] for row in database.rows("SELECT id FROM uploads ORDER BY id")]


def frames(folder: Path) -> bytes:
    """The log without the zeros that are kept free at its end."""
    return (folder / "db-wal").read_bytes().rstrip(b"\0")


class FailingCommits:
    """A connection whose next commit fails once its pages are in the log, as a failed fsync makes it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._has_failed = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and not self._has_failed:
            self._has_failed = True
            self._connection.execute("ROLLBACK")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error
        return self._connection.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def fail_next_commit(database: Database) -> None:
    fields = vars(database)
    fields["_connection"] = FailingCommits(fields["_connection"])


def test_a_file_without_room_is_told_apart_from_one_that_cannot_be_written(database: Database) -> None:
    connection: sqlite3.Connection = vars(database)["_connection"]
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageFailed, match="SQLITE_READONLY"):
        insert(database, "a")
    connection.execute("PRAGMA query_only = OFF")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull, match="disk is full"), database.transaction() as db:
        db.executemany(_INSERT, [(f"{number:01000}",) for number in range(100)])
    assert names(database) == []
    insert(database, "b")
    assert names(database) == ["b"]


def test_a_commit_that_failed_is_overwritten_by_the_next_even_if_that_has_nothing_to_write(
    database: Database, tmp_path: Path
) -> None:
    fail_next_commit(database)
    with pytest.raises(StorageFailed, match="SQLITE_IOERR_FSYNC"):
        insert(database, "a")
    before = frames(tmp_path)
    with database.transaction() as db:
        db.execute("SELECT 1")
    written = frames(tmp_path)
    assert written != before
    with database.transaction() as db:
        db.execute("SELECT 1")
    assert frames(tmp_path) == written
    assert names(database) == []


def test_settling_writes_only_where_a_commit_is_in_doubt(database: Database, tmp_path: Path) -> None:
    before = frames(tmp_path)
    database.settle()
    assert frames(tmp_path) == before
    fail_next_commit(database)
    with pytest.raises(StorageFailed):
        insert(database, "a")
    database.settle()
    assert frames(tmp_path) != before


def test_the_log_has_its_room_from_the_start(database: Database, tmp_path: Path) -> None:
    size_bytes = (tmp_path / "db-wal").stat().st_size
    for number in range(2000):
        insert(database, f"{number:0100}")
    assert (tmp_path / "db-wal").stat().st_size == size_bytes


def test_what_a_crash_leaves_in_the_log_is_moved_to_the_file_at_the_next_start(
    database: Database, tmp_path: Path
) -> None:
    insert(database, "a")
    (tmp_path / "later").mkdir()
    for name in ("db", "db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "later" / name)
    later = Database(tmp_path / "later" / "db")
    assert names(later) == ["a"]
    assert frames(tmp_path / "later") == b""
    later.close()
    assert b"a" in (tmp_path / "later" / "db").read_bytes()
