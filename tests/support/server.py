"""The real server for integration tests: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from penstock_server.app import PenstockServer
from penstock_server.config import ServerConfig, load_config

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
START_TIMEOUT_S = 60.0

_Value = TypeVar("_Value")


class ServerThread:
    """A server on an event loop of its own, so that blocking clients can be tested beside it."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server")
        self.server: PenstockServer

    @property
    def address(self) -> str:
        return self.server.address

    def start(self) -> None:
        self._thread.start()
        self.call(self._start())

    def stop(self) -> None:
        try:
            self.call(self.server.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def call(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        """Runs a coroutine on the server's loop and waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_S)

    async def _start(self) -> None:
        self.server = PenstockServer(self._config)
        await self.server.start()


def demo_config(data_dir: Path, **overrides: object) -> ServerConfig:
    """The demo models on a free loopback port."""
    values: dict[str, object] = {"port": 0, "models_dir": MODELS, "data_dir": data_dir, "drain_grace_s": 5.0}
    return load_config(None, **{**values, **overrides})


@contextmanager
def running_server(data_dir: Path, **overrides: object) -> Generator[ServerThread]:
    """A server in a thread, ready; drained at the end."""
    thread = ServerThread(demo_config(data_dir, **overrides))
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


class ServerProcess:
    """``penstock serve`` as a process, for tests that kill it or look at its output."""

    def __init__(self, data_dir: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "penstock_server.cli", "serve", "--port", "0"]
        command += ["--models", str(MODELS), "--data", str(data_dir), *arguments]
        self._log = (data_dir.parent / f"{data_dir.name}.log").open("ab")
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            cwd=ROOT,
        )
        self.welcome: list[str] = []
        self.address = self._read_address()

    def _read_address(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.welcome.append(line.rstrip("\n"))
            if line.startswith("  penstock bulk submit"):
                return self.welcome[0].split()[-1]
        raise AssertionError(f"the server ended with {self._finish()}: see {self._log.name}")

    def terminate(self) -> int:
        """Sends SIGTERM and waits for the drain; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self._finish()

    def kill(self) -> int:
        """Kills the process at once; its worker process must end by itself."""
        self.process.kill()
        return self._finish()

    def _finish(self) -> int:
        status = self.process.wait(START_TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        return status


@contextmanager
def server_process(
    data_dir: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Generator[ServerProcess]:
    """A server process, ready; killed at the end if the test has not ended it."""
    server = ServerProcess(data_dir, *arguments, environment=environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()
