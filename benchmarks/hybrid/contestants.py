"""Who takes part: how each server is started and how it is loaded. docs/benchmarks/README.md says why so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.hybrid.clients.calls import MODEL
from benchmarks.hybrid.clients.loads import Shape
from benchmarks.hybrid.environments import INFINITY, MOSEC, TRITON, Environment
from benchmarks.hybrid.models import MODELS
from benchmarks.hybrid.peers import TritonSettings, infinity_server, mosec_server, triton_server
from benchmarks.hybrid.processes import Running, free_port, server_process
from penstock_server.config import usable_cores

PENSTOCK, BARE = "penstock", "bare loop"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server in the comparison.

    Attributes:
        name: As results call it.
        protocol: What its clients speak.
        environment: Where server and clients are installed; None: ours.
        start: Starts it in an empty folder, with the time a live call has, in seconds.
        bulk: Bulk work as a closed loop; None: as a job.
        setup: Its settings, for the result.
        model: The model that it is asked.
    """

    name: str
    protocol: str
    environment: Environment | None
    start: Callable[[Path, float], AbstractContextManager[Running]]
    bulk: Shape | None
    setup: str
    model: str = MODEL

    @property
    def client_command(self) -> list[str]:
        """Starts a client process in its environment; what server and texts there are is to follow."""
        python = sys.executable if self.environment is None else str(self.environment.python)
        return [python, "-m", "benchmarks.hybrid.clients", self.protocol, self.model]


@contextmanager
def _penstock(folder: Path, deadline_s: float) -> Generator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "penstock_server.cli", "serve", "--port", str(port)]
    command += ["--models", str(MODELS), "--data", str(folder / "data")]
    with server_process(command, folder / "server.log") as process:
        yield Running(f"127.0.0.1:{port}", process.pid)


@contextmanager
def _triton(settings: TritonSettings, folder: Path, deadline_s: float) -> Generator[Running]:
    with triton_server(folder, settings) as running:
        yield running


@contextmanager
def _infinity(folder: Path, deadline_s: float) -> Generator[Running]:
    with infinity_server(folder) as running:
        yield running


_TRITON = TritonSettings(batch_rows=16, instances=1, threads=usable_cores(), delay_us=500)
_TRITON_UNBATCHED = TritonSettings(batch_rows=1, instances=usable_cores(), threads=1, delay_us=0)
CONTESTANTS = (
    Contestant(PENSTOCK, "penstock", None, _penstock, None, "penstock serve, its defaults; bulk as a job"),
    Contestant("triton", "triton", TRITON, partial(_triton, _TRITON), Shape(16, 6, True, True), str(_TRITON)),
    Contestant(
        "triton-unbatched",
        "triton",
        TRITON,
        partial(_triton, _TRITON_UNBATCHED),
        Shape(1, 64, True, True),
        str(_TRITON_UNBATCHED),
    ),
    Contestant("infinity", "infinity", INFINITY, _infinity, Shape(64, 16, True, True), "batches of 32"),
    Contestant("mosec", "mosec", MOSEC, mosec_server, Shape(1, 64, True, True), "a worker for each core"),
)


def penstock_with(model: str) -> Contestant:
    """Penstock with another model of its folder, such as one in int8."""
    setup = f"as {PENSTOCK}, with the model {model}"
    return Contestant(f"{PENSTOCK} {model}", "penstock", None, _penstock, None, setup, model)
