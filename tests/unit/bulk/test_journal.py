"""The journal: which states follow each other, how windows replace each other, files of newer releases."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock_server.bulk.database import SCHEMA_VERSION, Database
from penstock_server.bulk.journal import Expiry, JobStore, WindowRecord
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.uploads import UploadStore
from penstock_server.domain.errors import StorageFull, UnknownJob, WrongState
from penstock_server.domain.job import FileFormat, InputColumns, JobError, JobSpec, JobState
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import (
    ClassifyOptions,
    EmbedOptions,
    RequestClass,
    RequestOptions,
    ScoreFunction,
    Task,
    TaskOptions,
    Truncation,
)

SPEC = JobSpec(
    model=ModelKey("minilm", "2"),
    task=TaskOptions(Task.EMBED, EmbedOptions(False, 64), ClassifyOptions(3, ScoreFunction.SIGMOID)),
    upload_id="upload-1",
    input_format=FileFormat.CSV,
    columns=InputColumns("review", "other", "id"),
    options=RequestOptions(RequestClass.BULK, truncation=Truncation.LEFT, tokens_max=9, tenant="t"),
    vectors_as_numbers=True,
    display_name="caf\u00e9",
    weight=250,
    expire_time_ns=1_800_000_000_123_456_789,
)
OLD_JOURNAL = Path(__file__).resolve().parents[2] / "data" / "bulk" / "journal-1.sql"


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    database = Database(tmp_path / "db")
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database, BulkLimits(jobs_max=2), lambda: 42)


def record(number: int, succeeded: int, failed: int, file_name: str) -> WindowRecord:
    return WindowRecord(number, 4, succeeded, failed, 10 * succeeded, file_name)


def test_a_spec_comes_back_as_it_was_given_over_a_restart(
    database: Database, store: JobStore, tmp_path: Path
) -> None:
    job, is_new = store.create(SPEC, "request")
    assert is_new
    database.close()
    later = Database(tmp_path / "db")
    read = JobStore(later, BulkLimits(), lambda: 0).get(job.id)
    assert read == job
    assert read.spec == SPEC
    assert (read.state, read.create_time_ns, read.start_time_ns) == (JobState.VALIDATING, 42, None)
    later.close()


def test_the_number_of_jobs_is_bounded(store: JobStore) -> None:
    first, _ = store.create(SPEC, "first")
    store.create(SPEC)
    with pytest.raises(StorageFull, match="keeps 2 jobs"):
        store.create(SPEC)
    assert store.create(SPEC, "first") == (first, False)


def test_a_window_written_again_replaces_its_counts(store: JobStore) -> None:
    job, _ = store.create(SPEC)
    store.validated(job.id, 8)
    assert store.commit_window(job.id, record(0, 1, 1, "a")) is None
    assert store.commit_window(job.id, record(1, 4, 0, "b")) is None
    replaced = store.commit_window(job.id, record(0, 3, 1, "c"))
    assert replaced == record(0, 1, 1, "a")
    progress = store.get(job.id).progress
    assert (progress.succeeded, progress.failed, progress.pending, progress.tokens) == (7, 1, 0, 70)
    assert [window.file_name for window in store.windows(job.id)] == ["c", "b"]


def test_counts_above_the_total_are_never_committed(store: JobStore) -> None:
    job, _ = store.create(SPEC)
    store.validated(job.id, 3)
    with pytest.raises(sqlite3.IntegrityError):
        store.commit_window(job.id, record(0, 4, 0, "a"))
    assert store.windows(job.id) == []
    assert store.get(job.id).progress.done == 0


def test_a_job_moves_only_from_the_states_that_are_allowed(store: JobStore) -> None:
    job, _ = store.create(SPEC)
    with pytest.raises(WrongState, match="is VALIDATING; it cannot become SUCCEEDED"):
        store.move(job.id, JobState.SUCCEEDED, sources=[JobState.FINALIZING])
    paused = store.move(job.id, JobState.PAUSED, sources=[JobState.VALIDATING])
    assert paused.end_time_ns is None
    assert store.validated(job.id, 5).state is JobState.PAUSED
    failed = store.move(job.id, JobState.FAILED, sources=list(JobState), error=JobError("X", "y"))
    assert (failed.error, failed.end_time_ns) == (JobError("X", "y"), 42)
    assert store.unfinished() == []
    with pytest.raises(UnknownJob):
        store.move("job-none", JobState.FAILED, sources=list(JobState))


def test_the_start_is_recorded_once(database: Database) -> None:
    times = iter(range(100))
    store = JobStore(database, BulkLimits(), lambda: next(times))
    job, _ = store.create(SPEC)
    store.started(job.id)
    first = store.get(job.id).start_time_ns
    store.started(job.id)
    assert store.get(job.id).start_time_ns == first


def test_a_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(WrongState, match="newer release"):
        Database(tmp_path / "db")


def test_a_journal_of_the_first_schema_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.executescript(OLD_JOURNAL.read_text())
    connection.close()
    for _ in range(2):
        database = Database(tmp_path / "db")
        store = JobStore(database, BulkLimits(), lambda: 7)
        job = store.get("job-old")
        assert (job.spec.display_name, job.spec.weight, job.spec.expire_time_ns) == ("night", 100, None)
        assert (job.progress.succeeded, job.progress.failed, job.progress.pending) == (3, 1, 4)
        assert [window.rows for window in store.windows("job-old")] == [4]
        assert store.next_expiry() is None
        database.close()


def test_uploads_of_the_third_schema_expire_as_before(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.executescript(OLD_JOURNAL.read_text())
        connection.execute("INSERT INTO uploads VALUES ('upload-1', 'a.csv', 9, NULL, 9, 7, 1, 5)")
        connection.execute("INSERT INTO uploads VALUES ('upload-2', 'b.csv', 9, 3, 4, 7, 0, 6)")
    connection.close()
    database = Database(tmp_path / "db")
    (tmp_path / "uploads").mkdir()
    uploads = UploadStore(tmp_path / "uploads", database, BulkLimits(upload_age_s_max=1), lambda: 0)
    first, second = uploads.get("upload-1"), uploads.get("upload-2")
    assert (first.is_complete, first.sha256, first.expire_time_ns) == (True, None, 1_000_000_005)
    assert (second.committed_bytes, second.crc32c, second.expire_time_ns) == (4, 3, 1_000_000_006)
    later = UploadStore(tmp_path / "uploads", database, BulkLimits(upload_age_s_max=1), lambda: 2_000_000_000)
    # The old journal's job uses the first.
    assert later.expire() == 1
    assert later.get("upload-1") == first
    database.close()


def test_the_next_job_to_expire_is_the_earliest_that_has_rows_to_do(database: Database) -> None:
    store = JobStore(database, BulkLimits(), lambda: 42)
    late, _ = store.create(replace(SPEC, expire_time_ns=900))
    early, _ = store.create(replace(SPEC, expire_time_ns=500))
    store.create(replace(SPEC, expire_time_ns=None))
    assert store.next_expiry() == Expiry(early.id, 500)
    store.validated(early.id, 4)
    assert store.next_expiry() == Expiry(early.id, 500)
    store.move(early.id, JobState.PAUSED, sources=[JobState.RUNNING])
    assert store.next_expiry() == Expiry(early.id, 500)
    # Whose rows are all done waits for nothing but room for its files.
    store.commit_window(early.id, record(0, 3, 1, "a"))
    assert store.next_expiry() == Expiry(late.id, 900)
    store.move(late.id, JobState.FINALIZING, sources=[JobState.VALIDATING])
    assert store.next_expiry() is None


def test_an_error_rolls_the_whole_transaction_back(database: Database) -> None:
    with pytest.raises(KeyError):
        _insert_and_fail(database)
    assert database.rows("SELECT * FROM windows") == []


def _insert_and_fail(database: Database) -> None:
    with database.transaction() as db:
        db.execute("INSERT INTO windows VALUES ('job', 0, 1, 1, 0, 1, 'a')")
        raise KeyError
