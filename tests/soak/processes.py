"""The server and the client processes: all of them end with who started them, whatever happens."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.soak.plan import DRAIN_GRACE_S, EXIT_MARGIN_S, FLOOD_TENANT

ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 120.0
_POLL_S = 0.1
_PR_SET_PDEATHSIG = 1
_CONFIG = f"""
drain_grace_s = {DRAIN_GRACE_S}
[metrics]
port = 0
# About a quarter of what two cores can do, so that a flood is refused and not only served late.
[tenants.named.{FLOOD_TENANT}]
tokens_per_s = 2000
queue_tokens_max = 4000
"""
_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """Has the kernel kill this process when its parent ends, even by SIGKILL. Linux only."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts a process in a group of its own that ends with this one."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process with its group, if it still runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True, slots=True)
class Server:
    """A running ``penstock serve``."""

    process: subprocess.Popen[bytes]
    address: str
    metrics_address: str
    log: Path

    def drain(self) -> tuple[int | None, float]:
        """Asks it to end; returns its exit status, None if it had to be killed, and the seconds it took."""
        begin_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            status: int | None = self.process.wait(DRAIN_GRACE_S + EXIT_MARGIN_S)
        except subprocess.TimeoutExpired:
            status = None
        return status, time.monotonic() - begin_s


@contextmanager
def running_server(folder: Path) -> Generator[Server]:
    """Starts the server with the demo models on a free loopback port; kills it if it outlives its use."""
    config, log = folder / "penstock.toml", folder / "server.log"
    config.write_text(_CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "penstock_server.cli", "serve", "--port", "0", "--json-logs"]
    command += ["--config", str(config), "--models", str(ROOT / "models"), "--data", str(folder / "data")]
    with log.open("wb") as file:
        process = start(command, file)
    try:
        yield Server(process, *_addresses(process, log), log)
    finally:
        end(process)


def _addresses(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    """Waits until the log says that it serves, and where."""
    give_up_s = time.monotonic() + _START_TIMEOUT_S
    text = ""
    while time.monotonic() < give_up_s and process.poll() is None:
        text = log.read_text(encoding="utf-8", errors="replace")
        served = [line.split()[-1] for line in text.splitlines() if line.startswith("Penstock ")]
        if served and "penstock bulk submit" in text:
            return served[0], _metrics_address(text)
        time.sleep(_POLL_S)
    raise AssertionError(f"the server did not start:\n{text[-2000:]}")


def _metrics_address(text: str) -> str:
    for line in text.splitlines():
        if '"metrics"' in line:
            address: str = json.loads(line)["address"]
            return address
    raise AssertionError("the server does not say where its metrics are")
