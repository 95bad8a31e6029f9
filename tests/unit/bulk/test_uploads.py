"""Uploads: what is committed, what is refused, what a break leaves."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pytest

from penstock_server.bulk import uploads
from penstock_server.bulk.checksum import crc32c
from penstock_server.bulk.database import Database
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.uploads import Upload, UploadSession, UploadStore
from penstock_server.domain.errors import (
    CorruptUpload,
    InvalidRequest,
    PenstockError,
    StorageFailed,
    StorageFull,
    UnknownUpload,
    WrongState,
)

LIMITS = BulkLimits(
    upload_bytes_max=1000, chunk_bytes_max=100, upload_commit_bytes=64, disk_free_bytes_min=0, uploads_max=3
)
DATA = bytes(range(200)) + b"tail"


def store_in(folder: Path, now_s: int = 0) -> UploadStore:
    folder.mkdir(exist_ok=True)
    return UploadStore(folder / "uploads", Database(folder / "db"), LIMITS, lambda: now_s * 1_000_000_000)


def kill(session: UploadSession) -> None:
    """Ends a session as the death of the server does: nothing is committed any more."""
    vars(session)["_file"].close()


def end(store: UploadStore) -> None:
    """Lets go of the database, so that a later store can have it."""
    vars(store)["_database"].close()


def failing(code: int) -> Callable[..., NoReturn]:
    """A call that the disk does not carry out."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return store_in(tmp_path)


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


def test_a_file_sent_in_chunks_is_complete_and_equal(store: UploadStore) -> None:
    session = store.open("a.csv", len(DATA), crc32c(DATA))
    for offset in range(0, len(DATA), 100):
        chunk = DATA[offset : offset + 100]
        session.append(offset, chunk, crc32c(chunk))
    upload = session.finish()
    assert upload.is_complete
    assert upload.committed_bytes == len(DATA)
    assert store.complete_path(upload.id).read_bytes() == DATA


def test_a_broken_upload_goes_on_from_its_committed_bytes_over_a_restart(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    session = store.open("a.csv", len(DATA), crc32c(DATA))
    session.append(0, DATA[:70])
    session.append(70, DATA[70:80])
    # The first chunk was over the commit size, the second was not.
    kill(session)
    end(store)
    later = store_in(tmp_path)
    assert later.get(session.upload_id).committed_bytes == 70
    resumed = later.resume(session.upload_id)
    with pytest.raises(InvalidRequest) as caught:
        resumed.append(80, DATA[80:100])
    assert caught.value.metadata["committed_bytes"] == "70"
    resumed.append(70, DATA[70:150])
    resumed.close()
    assert later.get(session.upload_id).committed_bytes == 150
    last = later.resume(session.upload_id, len(DATA), crc32c(DATA))
    last.append(150, DATA[150:])
    assert last.finish().is_complete
    assert later.complete_path(session.upload_id).read_bytes() == DATA


def test_a_chunk_that_arrives_changed_is_refused_and_can_be_sent_again(store: UploadStore) -> None:
    session = store.open("a.csv", 10)
    with pytest.raises(CorruptUpload):
        session.append(0, b"0123456789", crc32c(b"0123456788"))
    session.append(0, b"0123456789", crc32c(b"0123456789"))
    assert session.finish().is_complete


def test_a_file_with_a_wrong_checksum_is_dropped(store: UploadStore) -> None:
    session = store.open("a.csv", 3, crc32c(b"abd"))
    session.append(0, b"abc")
    with pytest.raises(CorruptUpload, match="send the file again"):
        session.finish()
    with pytest.raises(UnknownUpload):
        store.get(session.upload_id)
    assert not store.path(session.upload_id).exists()


def test_a_new_sender_takes_over_and_the_old_one_is_told(store: UploadStore) -> None:
    old = store.open("a.csv", 10)
    old.append(0, b"01234")
    new = store.resume(old.upload_id)
    with pytest.raises(WrongState, match="Another stream"):
        old.append(5, b"5")
    new.append(5, b"56789")
    assert new.finish().is_complete
    old.close()
    assert store.complete_path(old.upload_id).read_bytes() == b"0123456789"


def test_of_two_who_go_on_at_once_one_takes_over_from_the_other(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.open("a.csv", len(DATA), crc32c(DATA))
    first.append(0, DATA[:70])
    first.close()
    is_opening, has_appended = threading.Event(), threading.Event()

    def open_late(path: Path, mode: str, *, buffering: int) -> BinaryIO:
        if not is_opening.is_set():
            is_opening.set()
            # Nobody may append now, so this runs out; if somebody can, it ends as soon as they have.
            has_appended.wait(0.2)
        return open(path, "r+b", buffering=buffering)

    monkeypatch.setattr(uploads, "open", open_late, raising=False)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(store.resume, first.upload_id)
        assert is_opening.wait(10)
        fast = store.resume(first.upload_id)
        fast.append(70, DATA[70:150])
        has_appended.set()
        overtaken = slow.result()
    fast.append(150, DATA[150:])
    assert fast.finish().is_complete
    assert store.complete_path(first.upload_id).read_bytes() == DATA
    with pytest.raises(WrongState, match="Another stream"):
        overtaken.append(70, DATA[70:150])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b.csv", "a\\b.csv", "a\0b", "x" * 256])
def test_names_with_folders_and_none_are_refused(store: UploadStore, name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"header\.file_name"):
        store.open(name, 1)


def test_sizes_and_chunks_out_of_bounds_are_refused(store: UploadStore) -> None:
    with pytest.raises(InvalidRequest, match=r"header\.size_bytes"):
        store.open("a", 0)
    with pytest.raises(StorageFull, match="up to 1,000"):
        store.open("a", 1001)
    session = store.open("a", 50)
    with pytest.raises(InvalidRequest, match="past the end"):
        session.append(0, b"x" * 51)
    with pytest.raises(InvalidRequest, match="at most 100"):
        session.append(0, b"x" * 101)
    with pytest.raises(InvalidRequest, match="empty"):
        session.append(0, b"")
    assert session.finish().committed_bytes == 0


def test_resuming_what_cannot_be_is_refused(store: UploadStore) -> None:
    with pytest.raises(UnknownUpload):
        store.resume("upload-none")
    session = store.open("a", 2, crc32c(b"ab"))
    with pytest.raises(InvalidRequest, match="size_bytes"):
        store.resume(session.upload_id, 3)
    with pytest.raises(InvalidRequest, match="crc32c"):
        store.resume(session.upload_id, 2, 1)
    with pytest.raises(WrongState, match="0 of 2 bytes"):
        store.complete_path(session.upload_id)
    session.append(0, b"ab")
    session.finish()
    with pytest.raises(WrongState, match="complete"):
        store.resume(session.upload_id)


def test_the_number_of_uploads_is_bounded(store: UploadStore) -> None:
    for _ in range(LIMITS.uploads_max):
        store.open("a", 1).close()
    with pytest.raises(StorageFull, match="keeps 3 uploads"):
        store.open("a", 1)


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, StorageFull), (errno.EIO, StorageFailed), (errno.EROFS, StorageFailed)]
)
def test_a_failed_fsync_ends_the_turn_and_is_not_tried_again(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch, code: int, error: type[PenstockError]
) -> None:
    session = store.open("a", len(DATA), crc32c(DATA))
    session.append(0, DATA[:80])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(code))
        with pytest.raises(error, match="again"):
            session.append(80, DATA[80:160])
    # The kernel would call this fsync a success, whether or not the bytes are on the disk.
    session.close()
    assert store.get(session.upload_id).committed_bytes == 80
    with pytest.raises(WrongState, match="open it again"):
        session.append(160, DATA[160:])
    resumed = store.resume(session.upload_id)
    assert store.path(session.upload_id).stat().st_size == 80
    resumed.append(80, DATA[80:160])
    resumed.append(160, DATA[160:])
    assert resumed.finish().is_complete


def test_a_journal_that_fails_ends_the_turn(store: UploadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    session = store.open("a", len(DATA), crc32c(DATA))
    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            session.append(0, DATA[:80])
    session.close()
    assert store.get(session.upload_id).committed_bytes == 0


def test_a_full_disk_keeps_what_came_before_and_the_turn_goes_on_when_there_is_room(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.open("a", len(DATA), crc32c(DATA))
    session.append(0, DATA[:60])
    pwrite = os.pwrite

    def short_of_room(descriptor: int, data: memoryview, offset: int) -> int:
        if offset > 60:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data[:10], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", short_of_room)
        with pytest.raises(StorageFull, match="disk is full"):
            session.append(60, DATA[60:140])
    session.append(60, DATA[60:140])
    session.append(140, DATA[140:])
    assert session.finish().is_complete
    assert store.complete_path(session.upload_id).read_bytes() == DATA


def test_an_upload_that_could_not_be_opened_leaves_nothing(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(uploads, "fsync_folder", failing(errno.EIO))
        for _ in range(LIMITS.uploads_max + 1):
            with pytest.raises(StorageFailed):
                store.open("a", 1)
    opened = store.open("a", 1)
    opened.close()
    assert list(store.path(opened.upload_id).parent.iterdir()) == [store.path(opened.upload_id)]


def test_nothing_is_cut_off_while_the_journal_cannot_say_what_is_committed(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.open("a", len(DATA))
    session.append(0, DATA[:60])
    kill(session)
    database: Database = vars(store)["_database"]
    with monkeypatch.context() as patch:
        patch.setattr(database, "settle", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            store.resume(session.upload_id)
    assert store.path(session.upload_id).stat().st_size == 60


def sent(store: UploadStore, name: str = "a.csv", data: bytes = DATA, **options: Any) -> Upload:
    session = store.open(name, len(data), **options)
    for offset in range(0, len(data), 100):
        session.append(offset, data[offset : offset + 100])
    return session.finish()


def test_the_hash_of_a_whole_file_is_kept_however_often_it_was_broken(tmp_path: Path) -> None:
    hashed = hashlib.sha256(DATA).digest()
    store = store_in(tmp_path)
    assert sent(store).sha256 == hashed
    session = store.open("b.csv", len(DATA), sha256=hashed)
    session.append(0, DATA[:70])
    kill(session)
    end(store)
    later = store_in(tmp_path)
    resumed = later.resume(session.upload_id)
    resumed.append(70, DATA[70:170])
    resumed.append(170, DATA[170:])
    done = resumed.finish()
    assert (done.is_complete, done.sha256) == (True, hashed)


def test_a_file_with_another_hash_is_dropped(store: UploadStore) -> None:
    session = store.open("a.csv", 3, sha256=hashlib.sha256(b"abd").digest())
    session.append(0, b"abc")
    with pytest.raises(CorruptUpload, match="SHA-256 is ba7816bf"):
        session.finish()
    with pytest.raises(UnknownUpload):
        store.get(session.upload_id)
    # Of one that is gone on with, the hash may be told later, but not another one.
    session = store.open("a.csv", 3)
    store.resume(session.upload_id, sha256=hashlib.sha256(b"abc").digest()).close()
    with pytest.raises(InvalidRequest, match=r"header\.sha256"):
        store.resume(session.upload_id, sha256=bytes(32))


def test_a_complete_upload_is_found_by_its_hash_size_ending_and_tenant(store: UploadStore) -> None:
    hashed = hashlib.sha256(DATA).digest()
    assert store.find("a.csv", len(DATA), hashed) is None
    unfinished = store.open("a.csv", len(DATA), sha256=hashed, tenant="acme")
    assert store.find("a.csv", len(DATA), hashed, "acme") is None
    unfinished.close()
    upload = sent(store, "a.csv.gz", tenant="acme")
    assert store.find("other.CSV.GZ", len(DATA), hashed, "acme") == store.get(upload.id)
    for name, size_bytes, sha256, tenant in (
        ("a.csv", len(DATA), hashed, "acme"),
        ("a.gz", len(DATA), hashed, "acme"),
        ("a.csv.gz", len(DATA) + 1, hashed, "acme"),
        ("a.csv.gz", len(DATA), bytes(32), "acme"),
        ("a.csv.gz", len(DATA), hashed, "other"),
        ("a.csv.gz", len(DATA), hashed, ""),
    ):
        assert store.find(name, size_bytes, sha256, tenant) is None


def test_what_somebody_was_just_told_of_stays_when_its_job_is_deleted(store: UploadStore) -> None:
    upload = sent(store)
    assert upload.sha256 is not None
    assert store.find("b.csv", len(DATA), upload.sha256) is not None
    store.release(upload.id)
    assert store.complete_path(upload.id).exists()
    other = sent(store, "c.csv", b"other")
    store.release(other.id)
    with pytest.raises(UnknownUpload):
        store.get(other.id)


def test_an_upload_that_a_job_was_made_of_meanwhile_is_not_released(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    upload = sent(store)
    database: Database = vars(store)["_database"]
    with database.transaction() as db:
        db.execute(
            "INSERT INTO jobs (id, upload_id, spec, state, created_ns) "
            "VALUES ('job', ?, x'00', 'running', 0)",
            (upload.id,),
        )
    store.release(upload.id)
    assert store.complete_path(upload.id).exists()


def test_uploads_expire_when_nobody_goes_on_with_them(tmp_path: Path) -> None:
    age_s = LIMITS.upload_age_s_max
    store = store_in(tmp_path)
    idle, resumed, found = sent(store), store.open("b", 100), sent(store, "c.csv", b"c")
    assert idle.expire_time_ns == age_s * 1_000_000_000
    resumed.close()
    assert found.sha256 is not None
    end(store)
    middle = store_in(tmp_path, now_s=age_s - 1)
    assert middle.expire() == 0
    going_on = middle.resume(resumed.upload_id)
    going_on.append(0, b"x")
    going_on.close()
    assert middle.find("c.csv", 1, found.sha256) is not None
    end(middle)
    later = store_in(tmp_path, now_s=age_s + 1)
    assert later.expire() == 1
    with pytest.raises(UnknownUpload):
        later.get(idle.id)
    assert not later.path(idle.id).exists()
    # One that is being sent stays, however slow it is.
    end(later)
    last = store_in(tmp_path, now_s=3 * age_s)
    session = UploadSession(last, last.get(resumed.upload_id), last.path(resumed.upload_id), 0)
    vars(last)["_sessions"][resumed.upload_id] = session
    assert last.expire() == 1
    assert last.get(resumed.upload_id).expire_time_ns == (2 * age_s - 1) * 1_000_000_000
    session.close()
    assert last.expire() == 1


def test_a_disk_that_fails_while_an_upload_expires_leaves_a_file_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(tmp_path)
    idle = sent(store)
    end(store)
    later = store_in(tmp_path, now_s=LIMITS.upload_age_s_max + 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing(errno.EIO))
        with pytest.raises(StorageFailed):
            later.expire()
    assert later.path(idle.id).exists()
    with pytest.raises(UnknownUpload):
        later.get(idle.id)
    later.sweep()
    assert not later.path(idle.id).exists()
    end(later)


def test_old_uploads_and_stray_files_go_at_start(tmp_path: Path) -> None:
    store = store_in(tmp_path, now_s=0)
    old = store.open("a", 1)
    old.close()
    (tmp_path / "uploads" / "stray").write_bytes(b"x")
    end(store)
    later = store_in(tmp_path, now_s=LIMITS.upload_age_s_max + 1)
    young = later.open("b", 1)
    young.close()
    later.sweep()
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == [young.upload_id]
    with pytest.raises(UnknownUpload):
        later.get(old.upload_id)
