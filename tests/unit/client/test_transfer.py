"""What a transfer does step by step, without a network and without waiting."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.exchange import Exchange, Local, Pause, Send, Step
from penstock.methods import GET_UPLOAD
from penstock.transfer import FAILURES_MAX, PartFile, upload
from penstock.v1 import bulk_pb2

TEXT = b'{"text":"a"}\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(TEXT)
    return path


class RestartingServer:
    """Opens an upload, then is away for so many calls, then goes on with it from its disk."""

    def __init__(self, calls_away: int) -> None:
        self._calls_away = calls_away
        self._upload = bulk_pb2.Upload(id="u1", size_bytes=len(TEXT))
        self._is_open = False
        self.paths: list[str] = []
        self.pauses_s: list[float] = []

    def perform(self, step: Step) -> Any:
        """Answers one step of an exchange, or raises what the client would have been told."""
        if isinstance(step, Pause):
            self.pauses_s.append(step.delay_s)
            return None
        if isinstance(step, Local):
            return step.work()
        self.paths.append(step.method.path)
        if self._is_open and self._calls_away:
            self._calls_away -= 1
            raise penstock.UnavailableError("connection refused")
        if step.method is GET_UPLOAD:
            return bulk_pb2.GetUploadResponse(upload=self._upload)
        assert isinstance(step, Send)
        for message in step.requests:
            assert isinstance(message, bulk_pb2.UploadRequest)
            self._upload.committed_bytes += len(message.chunk.data)
        self._is_open = True
        self._upload.complete = self._upload.committed_bytes == self._upload.size_bytes
        return bulk_pb2.UploadResponse(upload=self._upload)


def drive(exchange: Exchange[str], perform: Callable[[Step], Any]) -> str:
    """Runs an exchange to its end on a server that needs no network."""
    try:
        step = next(exchange)
        while True:
            try:
                answer = perform(step)
            except penstock.PenstockError as error:
                step = exchange.throw(error)
            else:
                step = exchange.send(answer)
    except StopIteration as stop:
        return str(stop.value)


def test_an_upload_survives_a_restart_that_outlasts_the_first_question(source: Path) -> None:
    server = RestartingServer(calls_away=FAILURES_MAX - 1)
    assert drive(upload(source, "", None), server.perform) == "u1"
    assert server.pauses_s == [0.2, 0.4, 0.8, 1.6]
    asked = [path.rpartition("/")[2] for path in server.paths]
    assert asked == ["Upload", "Upload", "GetUpload", "GetUpload", "GetUpload", "GetUpload", "Upload"]


async def test_a_file_is_hashed_beside_the_event_loop(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def hashed(data: bytes = b"") -> Any:
        threads.append(threading.current_thread().name)
        return hashlib.new("sha256", data)

    monkeypatch.setattr(hashlib, "sha256", hashed)
    async with penstock.AsyncClient("127.0.0.1:9") as client:
        with pytest.raises(penstock.UnavailableError):
            await client.bulk.upload(source)
    assert threads
    assert threading.current_thread().name not in threads


def test_a_server_that_stays_away_is_given_up(source: Path) -> None:
    server = RestartingServer(calls_away=100)
    with pytest.raises(penstock.UnavailableError, match="connection refused"):
        drive(upload(source, "", None), server.perform)
    assert len(server.pauses_s) == FAILURES_MAX - 1


def test_two_downloads_to_one_place_do_not_mix(tmp_path: Path) -> None:
    place = tmp_path / "rows.jsonl"
    with PartFile(place, None) as first:
        first.write(b"first, ")
        with PartFile(place, None) as second:
            second.write(b"second")
        assert place.read_bytes() == b"second"
        first.write(b"whole")
    assert place.read_bytes() == b"first, whole"
    assert list(tmp_path.iterdir()) == [place]


def test_a_failed_download_leaves_another_one_alone(tmp_path: Path) -> None:
    place = tmp_path / "rows.jsonl"
    with PartFile(place, None) as kept:
        kept.write(b"kept")
        with pytest.raises(penstock.UnavailableError), PartFile(place, None):
            raise penstock.UnavailableError("cut")
    assert place.read_bytes() == b"kept"
    assert list(tmp_path.iterdir()) == [place]
