"""Somebody who wants a job done whatever happens to the server, and what is to come of it."""

from __future__ import annotations

import csv
import io
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

import penstock
from penstock import JobState, NotFoundError
from penstock.v1 import bulk_pb2, bulk_pb2_grpc
from penstock_server.bulk.checksum import crc32c
from tests.support.reviews import reviews
from tests.support.server import ServerProcess

MODEL = "minilm"
CHUNKS = 16
CHUNK_PAUSE_S = 0.01
# Small windows are written often: a job then gets on although the server dies every other second.
_CONFIG = "[bulk]\nwindow_rows = 64\n"
# Texts are long, so that reading them takes a while, but few tokens of each are computed.
_TOKENS_MAX = 16
_POLL_S = 0.005
# Batch mates differ from run to run, and with them the last bits.
_CLOSE = 1e-4
_JOB_S_MAX = 600.0

_SEEN = {
    JobState.VALIDATING: "validating",
    JobState.RUNNING: "running",
    JobState.FINALIZING: "finalizing",
    JobState.PAUSED: "paused",
}
_STORAGE_REASONS = frozenset({"STORAGE_FULL", "STORAGE_FAILED"})


class CrashFailed(Exception):
    """Something was lost, there twice, or wrong."""


@dataclass(frozen=True)
class Rows:
    """Results of a job: keys, and vectors ``[rows, width]``."""

    keys: list[str | int | None]
    vectors: NDArray[np.float32]


class RunningServer:
    """The server over a folder's data, with a client."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        config = folder / "penstock.toml"
        config.write_text(_CONFIG, encoding="utf-8")
        self.data_folder = folder / "data"
        self.process = ServerProcess(self.data_folder, "--config", str(config), environment=environment)
        self.client = penstock.Client(self.process.address)
        self._channel = grpc.insecure_channel(self.process.address)
        self.is_killed = False
        self.stub = bulk_pb2_grpc.BulkServiceStub(self._channel)

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._channel.close()
        # Whoever kills it may be a thread of gRPC's, which has not waited for its end yet.
        if self.is_killed:
            self.process.process.wait()
        else:
            self.process.kill()

    def kill(self) -> None:
        """Kills the server at once."""
        self.is_killed = True
        self.process.kill()

    def check_live(self) -> None:
        """Makes sure that it computes live calls, whatever its disk does."""
        if len(self.client.embed(["Does it still answer?"], model=MODEL)) != 1:
            raise CrashFailed("a live call has no answer")


class Owner:
    """A job that its owner wants done, whatever happens: uploaded, made and watched, again and again."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._request_id = uuid.uuid4().hex
        self._upload_id = ""
        self._deadline_s = time.monotonic() + _JOB_S_MAX

    def carry_on(self, server: RunningServer, at: Callable[[str], object]) -> penstock.Job:
        """Takes the job to its end.

        ``at`` is told where it stands, and may do something to the server; a job that the server has paused
        because of its disk is resumed when ``at`` returns.
        """
        self.upload(server, at)
        job = self.create(server)
        while not job.has_ended:
            at(_SEEN[job.state])
            if job.state is JobState.PAUSED:
                _check_pause(job)
                job = server.client.bulk.resume(job.id)
                continue
            time.sleep(_POLL_S)
            job = server.client.bulk.get(job.id)
            if job.total and job.succeeded + job.failed + job.pending != job.total:
                raise CrashFailed(f"{job} does not add up")
            if time.monotonic() > self._deadline_s:
                raise CrashFailed(f"{job} has not ended after {_JOB_S_MAX:g} s")
        if job.state is not JobState.SUCCEEDED or job.failed:
            raise CrashFailed(f"{job} should have succeeded")
        return job

    def create(self, server: RunningServer) -> penstock.Job:
        """Makes the job, or finds the one that it has made."""
        return server.client.bulk.create(
            self._upload_id,
            model=MODEL,
            task="embed",
            text_column="review",
            key_column="key",
            tokens_max=_TOKENS_MAX,
            request_id=self._request_id,
        )

    def upload(self, server: RunningServer, at: Callable[[str], object]) -> None:
        """Sends what the server does not have yet."""
        committed = 0
        if self._upload_id:
            try:
                found = self.committed(server)
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

    def committed(self, server: RunningServer) -> bulk_pb2.Upload:
        """Asks how much is committed, and makes sure that all of it is in the file."""
        found: bulk_pb2.Upload = server.stub.GetUpload(
            bulk_pb2.GetUploadRequest(upload_id=self._upload_id)
        ).upload
        path = server.data_folder / "bulk" / "uploads" / self._upload_id
        with path.open("rb") as file:
            if file.read(found.committed_bytes) != self._data[: found.committed_bytes]:
                raise CrashFailed(f"{found.committed_bytes} bytes are called committed, and others are there")
        return found

    def _chunks(self, committed: int, at: Callable[[str], object]) -> Iterator[bulk_pb2.UploadRequest]:
        yield bulk_pb2.UploadRequest(header=bulk_pb2.UploadHeader(upload_id=self._upload_id))
        step = -(-len(self._data) // CHUNKS)
        for offset in range(committed, len(self._data), step):
            at("uploading")
            time.sleep(CHUNK_PAUSE_S)
            chunk = bulk_pb2.UploadChunk(offset=offset, data=self._data[offset : offset + step])
            yield bulk_pb2.UploadRequest(chunk=chunk)


def input_of(rows: int) -> bytes:
    """A CSV file of reviews."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow(["key", "review"])
    writer.writerows((f"review-{row}", text) for row, text in enumerate(reviews(rows)))
    return sink.getvalue().encode()


def results(client: penstock.Client, job: penstock.Job) -> Rows:
    """Reads all rows of a job, which must be there once each and in order."""
    rows = list(client.bulk.results(job.id))
    if [row.row for row in rows] != list(range(job.total)):
        raise CrashFailed(f"{job.id} has {len(rows)} rows, or not each once and in order")
    vectors = [row.embedding for row in rows]
    return Rows([row.key for row in rows], np.array([np.asarray(vector) for vector in vectors], np.float32))


def compare(rows: Rows, reference: Rows) -> None:
    """Makes sure that rows are those of an undisturbed run."""
    if rows.keys != reference.keys:
        raise CrashFailed("rows have other keys than in an undisturbed run")
    worst = float(np.abs(rows.vectors - reference.vectors).max())
    if not worst < _CLOSE:
        raise CrashFailed(f"vectors differ by {worst:g} from those of an undisturbed run")


def delete(server: RunningServer, job: penstock.Job) -> None:
    """Deletes a job, and looks whether anything of it is left."""
    try:
        server.client.bulk.delete(job.id)
    except NotFoundError as err:
        raise CrashFailed(f"{job.id} is gone before it was deleted") from err
    bulk = server.data_folder / "bulk"
    left = [path for path in bulk.rglob("*") if path.is_file() and job.id in str(path)]
    if left:
        raise CrashFailed(f"files of a deleted job are left: {left}")


def _check_pause(job: penstock.Job) -> None:
    if job.error is None or job.error.reason not in _STORAGE_REASONS:
        raise CrashFailed(f"{job} was paused for no reason")
