"""Kills a server at chosen moments, starts it again, checks that every job ends as if nothing had been."""

from __future__ import annotations

import csv
import io
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

import penstock
from penstock import JobState, NotFoundError, PenstockError
from penstock.v1 import bulk_pb2, bulk_pb2_grpc
from penstock_server.bulk.checksum import crc32c
from tests.support.reviews import reviews
from tests.support.server import ServerProcess

# Small windows are written often: a job then gets on although the server dies every other second.
_CONFIG = "[bulk]\nwindow_rows = 64\n"
_MODEL = "minilm"
# Texts are long, so that reading them takes a while, but few tokens of each are computed.
_TOKENS_MAX = 16
_CHUNKS = 16
_CHUNK_PAUSE_S = 0.01
_POLL_S = 0.005
# How long after a state is first seen the server may be killed: about as long as it lasts.
_SPREAD_S = {"validating": 0.6, "running": 2.5, "finalizing": 0.08}
# One kill in so many also costs the last bytes that the journal wrote, as a disk that lies about fsync does.
_JOURNAL_CUT_EACH = 5
# Batch mates differ from run to run, and with them the last bits.
_CLOSE = 1e-4
_JOB_S_MAX = 600.0

_SEEN = {
    JobState.VALIDATING: "validating",
    JobState.RUNNING: "running",
    JobState.FINALIZING: "finalizing",
}


class CrashFailed(Exception):
    """Something was lost, there twice, or wrong."""


@dataclass
class Tally:
    """What was done: kills by moment, how many cost the journal's tail as well, and jobs compared."""

    kills: Counter[str] = field(default_factory=Counter[str])
    journals_cut: int = 0
    jobs: int = 0


@dataclass(frozen=True)
class _Rows:
    """Results of a job: keys, and vectors ``[rows, width]``."""

    keys: list[str | int | None]
    vectors: NDArray[np.float32]


def crash(folder: Path, kills: int, rows: int, seed: int, tell: Callable[[str], object]) -> Tally:
    """Kills a server ``kills`` times; every job that ends is compared with an undisturbed one.

    Args:
        folder: Empty; for the server's data.
        kills: How often.
        rows: Rows of each job.
        seed: Of the moments.
        tell: Hears how far it is.

    Raises:
        CrashFailed: A row was lost, there twice, or wrong; or the server kept files that nothing needs.
    """
    (folder / "penstock.toml").write_text(_CONFIG, encoding="utf-8")
    data = _input(rows)
    tell("an undisturbed run")
    with _Server(folder) as server:
        reference = _results(server.client, _Attempt(data).carry_on(server, lambda _: None))
    killer = _Killer(folder, random.Random(seed), kills, tell)
    while killer.kills_left:
        killer.run_job(_Attempt(data), reference)
    return killer.tally


def _input(rows: int) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow(["key", "review"])
    writer.writerows((f"review-{row}", text) for row, text in enumerate(reviews(rows)))
    return sink.getvalue().encode()


class _Server:
    """The server over the folder's data, with a client."""

    def __init__(self, folder: Path) -> None:
        self.process = ServerProcess(folder / "data", "--config", str(folder / "penstock.toml"))
        self.client = penstock.Client(self.process.address)
        self._channel = grpc.insecure_channel(self.process.address)
        self.is_killed = False
        self.stub = bulk_pb2_grpc.BulkServiceStub(self._channel)

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._channel.close()
        # Whoever kills it may be a thread of gRPC's, which has not waited for its end yet.
        if self.is_killed:
            self.process.process.wait()
        else:
            self.process.kill()


class _Killed(Exception):
    """The server has been killed."""


class _Attempt:
    """A job that its owner wants done, whatever happens: uploaded, made and watched, again and again."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._request_id = uuid.uuid4().hex
        self._upload_id = ""
        self._deadline_s = time.monotonic() + _JOB_S_MAX

    def carry_on(self, server: _Server, at: Callable[[str], object]) -> penstock.Job:
        """Takes the job to its end; ``at`` is told where it stands, and may kill the server."""
        self._upload(server, at)
        job = server.client.bulk.create(
            self._upload_id,
            model=_MODEL,
            task="embed",
            text_column="review",
            key_column="key",
            tokens_max=_TOKENS_MAX,
            request_id=self._request_id,
        )
        while not job.has_ended:
            at(_SEEN[job.state])
            time.sleep(_POLL_S)
            job = server.client.bulk.get(job.id)
            if job.total and job.succeeded + job.failed + job.pending != job.total:
                raise CrashFailed(f"{job} does not add up")
            if time.monotonic() > self._deadline_s:
                raise CrashFailed(f"{job} has not ended after {_JOB_S_MAX:g} s")
        if job.state is not JobState.SUCCEEDED or job.failed:
            raise CrashFailed(f"{job} should have succeeded")
        return job

    def _upload(self, server: _Server, at: Callable[[str], object]) -> None:
        committed = 0
        if self._upload_id:
            try:
                found = server.stub.GetUpload(bulk_pb2.GetUploadRequest(upload_id=self._upload_id)).upload
            except grpc.RpcError as err:
                if err.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                # The journal's tail is gone, and with it the upload.
                self._upload_id = ""
            else:
                if found.complete:
                    return
                committed = found.committed_bytes
        if not self._upload_id:
            header = bulk_pb2.UploadHeader(
                file_name="in.csv", size_bytes=len(self._data), crc32c=crc32c(self._data)
            )
            opened = server.stub.Upload(iter([bulk_pb2.UploadRequest(header=header)]))
            self._upload_id = opened.upload.id
        server.stub.Upload(self._chunks(committed, at))

    def _chunks(self, committed: int, at: Callable[[str], object]) -> Iterator[bulk_pb2.UploadRequest]:
        yield bulk_pb2.UploadRequest(header=bulk_pb2.UploadHeader(upload_id=self._upload_id))
        step = -(-len(self._data) // _CHUNKS)
        for offset in range(committed, len(self._data), step):
            at("uploading")
            time.sleep(_CHUNK_PAUSE_S)
            chunk = bulk_pb2.UploadChunk(offset=offset, data=self._data[offset : offset + step])
            yield bulk_pb2.UploadRequest(chunk=chunk)


class _Killer:
    """Kills the server at moments of its choice, and counts."""

    def __init__(
        self, folder: Path, chance: random.Random, kills: int, tell: Callable[[str], object]
    ) -> None:
        self._folder = folder
        self._chance = chance
        self._tell = tell
        self.kills_left = kills
        self.tally = Tally()
        self._target = ""
        self._due_s: float | None = None

    def run_job(self, attempt: _Attempt, reference: _Rows) -> None:
        """Takes one job to its end, over as many deaths of the server as it takes."""
        while True:
            self._aim()
            with _Server(self._folder) as server:
                try:
                    job = attempt.carry_on(server, lambda moment: self._at(moment, server))
                except (grpc.RpcError, PenstockError, _Killed) as err:
                    if not server.is_killed:
                        raise CrashFailed(f"the server lives, and answers {err}") from err
                else:
                    _compare(_results(server.client, job), reference)
                    _delete(server.client, job, self._folder)
                    self.tally.jobs += 1
                    return
            self._hurt_journal()

    def _aim(self) -> None:
        self._target = self._chance.choice(["uploading", *_SPREAD_S]) if self.kills_left else ""
        self._due_s = None

    def _at(self, moment: str, server: _Server) -> None:
        """Hears where the job stands; kills the server when the time has come."""
        if moment == self._target and self._due_s is None:
            spread_s = _SPREAD_S.get(moment, _CHUNKS * _CHUNK_PAUSE_S)
            self._due_s = time.monotonic() + self._chance.uniform(0, spread_s)
        if self._due_s is None or time.monotonic() < self._due_s:
            return
        server.is_killed = True
        server.process.kill()
        self.kills_left -= 1
        self.tally.kills[moment] += 1
        done = sum(self.tally.kills.values())
        if done % 10 == 0:
            self._tell(f"killed {done} times, {self.tally.jobs} jobs compared")
        raise _Killed

    def _hurt_journal(self) -> None:
        if self._chance.randrange(_JOURNAL_CUT_EACH):
            return
        for path in (self._folder / "data").rglob("*-wal"):
            size_bytes = path.stat().st_size
            if size_bytes:
                with path.open("r+b") as file:
                    file.truncate(self._chance.randrange(max(0, size_bytes - 16_384), size_bytes))
                self.tally.journals_cut += 1


def _results(client: penstock.Client, job: penstock.Job) -> _Rows:
    rows = list(client.bulk.results(job.id))
    if [row.row for row in rows] != list(range(job.total)):
        raise CrashFailed(f"{job.id} has {len(rows)} rows, or not each once and in order")
    vectors = [row.embedding for row in rows]
    return _Rows([row.key for row in rows], np.array([np.asarray(vector) for vector in vectors], np.float32))


def _compare(rows: _Rows, reference: _Rows) -> None:
    if rows.keys != reference.keys:
        raise CrashFailed("rows have other keys than in an undisturbed run")
    worst = float(np.abs(rows.vectors - reference.vectors).max())
    if not worst < _CLOSE:
        raise CrashFailed(f"vectors differ by {worst:g} from those of an undisturbed run")


def _delete(client: penstock.Client, job: penstock.Job, folder: Path) -> None:
    """Deletes a job, and looks whether anything of it is left."""
    try:
        client.bulk.delete(job.id)
    except NotFoundError as err:
        raise CrashFailed(f"{job.id} is gone before it was deleted") from err
    bulk = folder / "data" / "bulk"
    left = [path for path in bulk.rglob("*") if path.is_file() and job.id in str(path)]
    if left:
        raise CrashFailed(f"files of a deleted job are left: {left}")
