"""Files being sent in: resumable, checksummed, durable.

Bytes count as committed once they are fsynced and the database says so. A crash or a broken connection loses
at most ``upload_commit_bytes``; the sender goes on from the committed size.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from penstock_server.bulk.checksum import crc32c as checksum
from penstock_server.bulk.checksum import sha256_of_file
from penstock_server.bulk.database import Database
from penstock_server.bulk.durable import fsync_folder, storage_errors
from penstock_server.bulk.formats import ending_of
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import (
    CorruptUpload,
    InvalidRequest,
    StorageFull,
    UnknownUpload,
    WrongState,
)

# An upload that was written to within this time does not expire soon, and hardly has a job that has ended.
_FRESH_NS = 60 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Upload:
    """A file being sent, or sent.

    Attributes:
        id: Names the upload.
        file_name: The sender's name of the file, without folders.
        size_bytes: Size of the whole file.
        crc32c: Checksum of the whole file as the sender told it; None if it did not.
        sha256: SHA-256 of the whole file, once it is complete or as the sender told it; None before.
        committed_bytes: Bytes that are safe on disk.
        is_complete: Whether the file is whole and its checksum right.
        create_time_ns: When it was opened, in nanoseconds since 1970.
        expire_time_ns: When it is deleted unless a job uses it or somebody goes on with it, likewise.
        tenant: Who sent it; empty if that is not known.
    """

    id: str
    file_name: str
    size_bytes: int
    crc32c: int | None
    sha256: bytes | None
    committed_bytes: int
    is_complete: bool
    create_time_ns: int
    expire_time_ns: int
    tenant: str


class UploadSession:
    """One sender's turn at an upload. Used by one thread at a time; ``close`` keeps what was sent."""

    def __init__(self, store: UploadStore, upload: Upload, path: Path, crc32c: int) -> None:
        self._store = store
        self._upload = upload
        self._position = upload.committed_bytes
        self._committed = upload.committed_bytes
        self._crc32c = crc32c
        # Of an upload that is gone on with the whole file is read at the end: this state cannot be stored.
        self._sha256 = None if self._position else hashlib.sha256()
        self._lock = threading.Lock()
        self._is_taken_over = False
        with storage_errors():
            self._file = open(path, "r+b", buffering=0)  # noqa: SIM115 - closed by close()
            # Bytes past the committed size came from a turn that did not commit them, maybe because their
            # fsync failed; they are written anew.
            self._file.truncate(self._position)

    @property
    def upload_id(self) -> str:
        """Id of the upload."""
        return self._upload.id

    def append(self, offset: int, data: bytes, crc32c: int | None = None) -> None:
        """Adds the next bytes.

        Args:
            offset: Where they begin in the file; must be where the last chunk ended.
            data: The bytes; 1 up to ``chunk_bytes_max``.
            crc32c: Their checksum; None: not checked.

        Raises:
            InvalidRequest: Wrong offset or size. The metadata tells the committed size.
            CorruptUpload: The checksum differs; the bytes were not written.
            StorageFull: The disk has no room.
            StorageFailed: The disk failed; the session has ended, and what it has not committed is to be sent
                again.
            WrongState: Another sender has taken over, or the session was closed.
        """
        with self._lock:
            self._check(offset, data, crc32c)
            with storage_errors():
                _write(self._file.fileno(), data, offset)
            self._crc32c = checksum(data, self._crc32c)
            if self._sha256 is not None:
                self._sha256.update(data)
            self._position += len(data)
            if self._position - self._committed >= self._store.limits.upload_commit_bytes:
                self._commit()

    def finish(self) -> Upload:
        """Commits what was sent; checks the whole file if it is all there. Closes the session.

        Raises:
            CorruptUpload: The whole file's checksum differs; the upload is dropped and must be sent anew.
        """
        with self._lock:
            self._check_open()
            self._commit()
            self._file.close()
            # Within the lock: a sender that takes over could else have sent the rest meanwhile, which this
            # session's checksums know nothing of.
            upload = self._store.get(self._upload.id)
        if upload.committed_bytes == upload.size_bytes:
            # Nobody can add anything any more, and reading it all must not hold up who takes over.
            upload = self._store.finish(upload.id, self._crc32c, self._whole_sha256())
        self._store.forget(self)
        return upload

    def close(self) -> None:
        """Commits what was sent and ends the session; idempotent."""
        with self._lock:
            try:
                if not self._file.closed:
                    self._commit()
            finally:
                self._file.close()
                self._store.forget(self)

    def take_over(self) -> None:
        """Ends the session because another sender goes on with the upload."""
        self._is_taken_over = True
        self.close()

    def _whole_sha256(self) -> bytes:
        if self._sha256 is not None:
            return self._sha256.digest()
        try:
            with storage_errors():
                return sha256_of_file(self._store.path(self._upload.id))
        except FileNotFoundError as err:
            # Dropped by another sender, who finished it, too.
            raise no_upload(self._upload.id) from err

    def _check(self, offset: int, data: bytes, crc32c: int | None) -> None:
        self._check_open()
        if offset != self._position:
            raise InvalidRequest(
                f"chunk.offset is {offset}, but {self._position} bytes have arrived; "
                "ask GetUpload for the committed size and go on from there.",
                upload_id=self._upload.id,
                committed_bytes=str(self._committed),
            )
        if not data:
            raise InvalidRequest.of_field("chunk.data", "is empty; send at least one byte a chunk")
        if len(data) > self._store.limits.chunk_bytes_max:
            raise InvalidRequest.of_field(
                "chunk.data",
                f"has {len(data):,} bytes; send at most {self._store.limits.chunk_bytes_max:,} a chunk",
            )
        if self._position + len(data) > self._upload.size_bytes:
            raise InvalidRequest.of_field(
                "chunk.data",
                f"goes past the end of the file ({self._upload.size_bytes:,} bytes by its header)",
            )
        if crc32c is not None and checksum(data) != crc32c:
            raise CorruptUpload(
                f"The chunk at offset {offset} arrived changed; send it again from the committed size.",
                upload_id=self._upload.id,
                committed_bytes=str(self._committed),
            )

    def _check_open(self) -> None:
        if self._is_taken_over:
            raise WrongState("Another stream goes on with this upload; only one may send at a time.")
        if self._file.closed:
            raise WrongState("This turn of the upload has ended; open it again to go on.")

    def _commit(self) -> None:
        if self._position == self._committed:
            return
        try:
            with storage_errors():
                os.fsync(self._file.fileno())
            self._store.commit(self._upload.id, self._position, self._crc32c)
        except BaseException:
            # Nobody may try again: after a failed fsync the next one succeeds without the bytes.
            self._file.close()
            raise
        self._committed = self._position


class UploadStore:
    """All uploads: bytes in files of a folder, states in the database. Safe to use from any thread."""

    def __init__(
        self, folder: Path, database: Database, limits: BulkLimits, now_ns: Callable[[], int]
    ) -> None:
        self.limits = limits
        self._folder = folder
        self._database = database
        self._now_ns = now_ns
        self._age_ns_max = limits.upload_age_s_max * 1_000_000_000
        # Taken in this order: _opening, a session's own lock, _lock.
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._sessions: dict[str, UploadSession] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def open(
        self,
        file_name: str,
        size_bytes: int,
        crc32c: int | None = None,
        tenant: str = "",
        sha256: bytes | None = None,
    ) -> UploadSession:
        """Begins a new upload.

        Raises:
            InvalidRequest: The name has folders or is too long, or the size is not positive.
            StorageFull: The file is over the limit, or the disk has no room for it.
            StorageFailed: The disk failed.
        """
        _check_name(file_name, self.limits.file_name_bytes_max)
        self._check_size(size_bytes)
        upload_id = f"upload-{secrets.token_hex(12)}"
        path = self.path(upload_id)
        try:
            with storage_errors():
                path.touch(exist_ok=False)
                fsync_folder(self._folder)
            self._insert(upload_id, file_name, size_bytes, crc32c, tenant, sha256)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return self._session(upload_id)

    def resume(
        self, upload_id: str, size_bytes: int = 0, crc32c: int | None = None, sha256: bytes | None = None
    ) -> UploadSession:
        """Goes on with an upload; a sender still at it is stopped, after what it sent is committed.

        Args:
            upload_id: The upload.
            size_bytes: 0, or the size told at first.
            crc32c: None, or the checksum told at first, or a checksum where none was told.
            sha256: Likewise.

        Raises:
            UnknownUpload: There is none of this id.
            WrongState: It is complete.
            InvalidRequest: Size or checksum are not those told at first.
        """
        upload = self.get(upload_id)
        if upload.is_complete:
            raise WrongState(f"Upload {upload_id} is complete; create a job over it.", upload_id=upload_id)
        if size_bytes not in (0, upload.size_bytes):
            raise InvalidRequest.of_field(
                "header.size_bytes", f"was {upload.size_bytes:,} when the upload began"
            )
        for name, told, known in (
            ("crc32c", crc32c, upload.crc32c),
            ("sha256", sha256, upload.sha256),
        ):
            if told is not None and known is not None and told != known:
                raise InvalidRequest.of_field(
                    f"header.{name}", "differs from the one given when the upload began"
                )
        with self._database.transaction() as db:
            db.execute(
                "UPDATE uploads SET crc32c = coalesce(?, crc32c), sha256 = coalesce(?, sha256), "
                "touched_ns = ? WHERE id = ?",
                (crc32c, sha256, self._now_ns(), upload_id),
            )
        return self._session(upload_id)

    def get(self, upload_id: str) -> Upload:
        """Reads the state of an upload.

        Raises:
            UnknownUpload: There is none of this id.
        """
        return self._upload_of(self._row(upload_id))

    def find(self, file_name: str, size_bytes: int, sha256: bytes, tenant: str = "") -> Upload | None:
        """Finds a complete upload of the same bytes, and keeps it until somebody makes a job of it.

        Args:
            file_name: The sender's name; its ending must be that of the upload found, as it tells the format.
            size_bytes: Size of the file.
            sha256: Its hash.
            tenant: Whose uploads are looked at.
        """
        with self._database.transaction() as db:
            rows = db.execute(
                "SELECT * FROM uploads WHERE complete = 1 AND sha256 = ? AND size_bytes = ? AND tenant = ? "
                "ORDER BY created_ns DESC",
                (sha256, size_bytes, tenant),
            ).fetchall()
            ending = ending_of(file_name)
            row = next((row for row in rows if ending_of(row["file_name"]) == ending), None)
            if row is None:
                return None
            self._promise(db, row["id"])
        return self.get(row["id"])

    def claim(self, upload_id: str) -> None:
        """Keeps a complete upload until a job that is being made uses it. Raises as `complete_path`."""
        self.complete_path(upload_id)
        # One that was just sent is in no danger, and a transaction takes an fsync.
        if self._now_ns() - self._row(upload_id)["touched_ns"] >= _FRESH_NS:
            with self._database.transaction() as db:
                self._promise(db, upload_id)

    def _promise(self, db: sqlite3.Connection, upload_id: str) -> None:
        now_ns = self._now_ns()
        db.execute("UPDATE uploads SET promised = 1, touched_ns = ? WHERE id = ?", (now_ns, upload_id))

    def complete_path(self, upload_id: str) -> Path:
        """Path of a complete upload's file.

        Raises:
            UnknownUpload: There is none of this id.
            WrongState: It is not complete.
        """
        upload = self.get(upload_id)
        if not upload.is_complete:
            raise WrongState(
                f"Upload {upload_id} has {upload.committed_bytes:,} of {upload.size_bytes:,} bytes; "
                "send the rest before creating a job.",
                upload_id=upload_id,
                committed_bytes=str(upload.committed_bytes),
            )
        return self.path(upload_id)

    def path(self, upload_id: str) -> Path:
        """Where an upload's bytes are; the id must be one of this store."""
        return self._folder / upload_id

    def delete(self, upload_id: str) -> None:
        """Removes an upload; no effect if there is none. The file goes last: a stray file is harmless."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
        with storage_errors():
            self.path(upload_id).unlink(missing_ok=True)

    def release(self, upload_id: str) -> None:
        """Removes an upload that no job uses any more, unless somebody has been told that it is there."""
        # In one step: a job may be made of it meanwhile.
        with self._database.transaction() as db:
            deleted = db.execute(
                "DELETE FROM uploads WHERE id = ? AND promised = 0 "
                "AND NOT EXISTS (SELECT 1 FROM jobs WHERE upload_id = uploads.id)",
                (upload_id,),
            )
        if deleted.rowcount:
            with storage_errors():
                self.path(upload_id).unlink(missing_ok=True)

    def expire(self) -> int:
        """Deletes uploads that no job uses and nobody has gone on with for long; returns how many."""
        with self._lock:
            sending = set(self._sessions)
        oldest_ns = self._now_ns() - self._age_ns_max
        expired = [
            row["id"]
            for row in self._database.rows("SELECT id FROM uploads WHERE touched_ns < ?", (oldest_ns,))
            if row["id"] not in sending
        ]
        return sum(self._expire(upload_id, oldest_ns) for upload_id in expired)

    def _expire(self, upload_id: str, oldest_ns: int) -> bool:
        # Asked again with the deletion: a job may have been made of it meanwhile.
        with self._database.transaction() as db:
            deleted = db.execute(
                "DELETE FROM uploads WHERE id = ? AND touched_ns < ? "
                "AND NOT EXISTS (SELECT 1 FROM jobs WHERE upload_id = uploads.id)",
                (upload_id, oldest_ns),
            )
        if deleted.rowcount:
            with storage_errors():
                self.path(upload_id).unlink(missing_ok=True)
        return bool(deleted.rowcount)

    def sweep(self) -> None:
        """Deletes old uploads that no job uses, and files of no upload. To be called at start."""
        self.expire()
        known = {row["id"] for row in self._database.rows("SELECT id FROM uploads")}
        for path in self._folder.iterdir():
            if path.name not in known:
                path.unlink()

    def commit(self, upload_id: str, size_bytes: int, crc32c: int) -> None:
        """Records that the first bytes of an upload are safe on disk. For sessions."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE uploads SET committed_bytes = ?, committed_crc32c = ?, touched_ns = ? WHERE id = ?",
                (size_bytes, crc32c, self._now_ns(), upload_id),
            )

    def finish(self, upload_id: str, crc32c: int, sha256: bytes) -> Upload:
        """Marks an upload as complete, all bytes of which are there, if they are right. For sessions."""
        upload = self.get(upload_id)
        if upload.crc32c is not None and upload.crc32c != crc32c:
            self._drop(upload_id, f"CRC32C is {crc32c:#010x}, but the header said {upload.crc32c:#010x}")
        if upload.sha256 is not None and upload.sha256 != sha256:
            self._drop(upload_id, f"SHA-256 is {sha256.hex()}, but the header said {upload.sha256.hex()}")
        with self._database.transaction() as db:
            db.execute("UPDATE uploads SET complete = 1, sha256 = ? WHERE id = ?", (sha256, upload_id))
        return self.get(upload_id)

    def _drop(self, upload_id: str, why: str) -> NoReturn:
        self.delete(upload_id)
        raise CorruptUpload(
            f"The file's {why}. The upload was dropped; send the file again as a new one.",
            upload_id=upload_id,
        )

    def forget(self, session: UploadSession) -> None:
        """Takes note that a session has ended. For sessions."""
        with self._lock:
            if self._sessions.get(session.upload_id) is session:
                del self._sessions[session.upload_id]

    def _insert(
        self,
        upload_id: str,
        file_name: str,
        size_bytes: int,
        crc32c: int | None,
        tenant: str,
        sha256: bytes | None,
    ) -> None:
        now_ns = self._now_ns()
        with self._database.transaction() as db:
            if db.execute("SELECT count(*) FROM uploads").fetchone()[0] >= self.limits.uploads_max:
                raise StorageFull(
                    f"The server keeps {self.limits.uploads_max:,} uploads; delete jobs that have ended."
                )
            db.execute(
                "INSERT INTO uploads (id, file_name, size_bytes, crc32c, committed_bytes, committed_crc32c, "
                "complete, created_ns, touched_ns, tenant, sha256) VALUES (?, ?, ?, ?, 0, 0, 0, ?, ?, ?, ?)",
                (upload_id, file_name, size_bytes, crc32c, now_ns, now_ns, tenant, sha256),
            )

    def _session(self, upload_id: str) -> UploadSession:
        # One at a time from the take-over to the entry: a second session opened meanwhile would not be taken
        # over, and the first one's opening would cut off what it has sent.
        with self._opening:
            with self._lock:
                earlier = self._sessions.get(upload_id)
            if earlier is not None:
                earlier.take_over()
            # Else a commit that failed could come back after a crash, and tell of bytes that are cut off now.
            self._database.settle()
            row = self._row(upload_id)
            session = UploadSession(self, self._upload_of(row), self.path(upload_id), row["committed_crc32c"])
            with self._lock:
                self._sessions[upload_id] = session
            return session

    def _row(self, upload_id: str) -> sqlite3.Row:
        row = self._database.row("SELECT * FROM uploads WHERE id = ?", (upload_id,))
        if row is None:
            raise no_upload(upload_id)
        return row

    def _upload_of(self, row: sqlite3.Row) -> Upload:
        return Upload(
            id=row["id"],
            file_name=row["file_name"],
            size_bytes=row["size_bytes"],
            crc32c=row["crc32c"],
            sha256=row["sha256"],
            committed_bytes=row["committed_bytes"],
            is_complete=bool(row["complete"]),
            create_time_ns=row["created_ns"],
            expire_time_ns=row["touched_ns"] + self._age_ns_max,
            tenant=row["tenant"],
        )

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes <= 0:
            raise InvalidRequest.of_field("header.size_bytes", "is required and must be above 0")
        if size_bytes > self.limits.upload_bytes_max:
            raise StorageFull(
                f"The file has {size_bytes:,} bytes; this server takes files up to "
                f"{self.limits.upload_bytes_max:,}. Split it."
            )
        free = shutil.disk_usage(self._folder).free - self.limits.disk_free_bytes_min
        if size_bytes > free:
            raise StorageFull(
                f"The server's disk has room for {max(free, 0):,} bytes; the file has {size_bytes:,}. "
                "Delete jobs that have ended."
            )


def _write(descriptor: int, data: bytes, offset: int) -> None:
    """Writes all of some bytes at a place, whatever an earlier write that failed has left there."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def no_upload(upload_id: str) -> UnknownUpload:
    """The error for an id that no upload has, or none that the caller may know of."""
    return UnknownUpload(f"There is no upload {upload_id!r}; begin a new one.", upload_id=upload_id)


def _check_name(file_name: str, bytes_max: int) -> None:
    if not file_name or file_name in (".", ".."):
        raise InvalidRequest.of_field("header.file_name", "is required")
    if any(char in file_name for char in "/\\\0"):
        raise InvalidRequest.of_field("header.file_name", "must not hold folders")
    if len(file_name.encode()) > bytes_max:
        raise InvalidRequest.of_field("header.file_name", f"is longer than {bytes_max} bytes")
