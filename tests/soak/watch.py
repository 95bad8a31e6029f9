"""Looks at the server while it is under load: memory, files, threads, health, queues. Linux only."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from penstock import Client, PenstockError
from tests.soak.processes import Server
from tests.support.proc import command_of, memory_bytes, status_of

_PERIOD_S = 1.0
_HEALTH_TIMEOUT_S = 20.0
SERVER, WORKER = "server", "worker"
WAITING = ("penstock_queue_rows", "penstock_queue_tokens", "penstock_rpcs_in_flight")


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one time; ``at_s`` counts from the start of the load."""

    at_s: float
    process: str
    pid: int
    memory_bytes: int
    files: int
    threads: int


@dataclass(slots=True)
class Course:
    """Everything that was seen.

    Attributes:
        samples: Of the server and its worker.
        unhealthy: Answers of the health service other than SERVING, and none at all.
        health_checks: How often it was asked.
        answered, failed: Requests by the server's own count at last.
        waiting: The gauges of what waits, as last read.
    """

    samples: list[Sample] = field(default_factory=list[Sample])
    unhealthy: list[str] = field(default_factory=list[str])
    health_checks: int = 0
    waiting: dict[str, float] = field(default_factory=dict[str, float])
    requests: float = 0.0
    restarts: float = 0.0


class Watch:
    """A thread that looks every second. Use ``with``."""

    def __init__(self, server: Server, tell: Callable[[float, Course], None]) -> None:
        self.course = Course()
        self._server = server
        self._tell = tell
        self._is_over = threading.Event()
        self._begin_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        with Client(self._server.address, timeout_s=_HEALTH_TIMEOUT_S) as client:
            while not self._is_over.wait(_PERIOD_S):
                at_s = time.monotonic() - self._begin_s
                self.course.samples += sample_tree(self._server.process.pid, at_s)
                self._ask_health(client, at_s)
                read_metrics(self._server, self.course)
                self._tell(at_s, self.course)

    def _ask_health(self, client: Client, at_s: float) -> None:
        self.course.health_checks += 1
        try:
            status = client.health().name
        except PenstockError as err:
            status = str(err)
        if status != "SERVING":
            self.course.unhealthy.append(f"at {at_s:.0f} s: {status}")


def read_metrics(server: Server, course: Course) -> None:
    """Reads what waits and what was counted."""
    # A server that ends while it is asked has nothing more to say; that it ended is seen elsewhere.
    with suppress(OSError):
        with urllib.request.urlopen(
            f"http://{server.metrics_address}/metrics", timeout=_HEALTH_TIMEOUT_S
        ) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        course.waiting = {
            f"{sample.name} {' '.join(sample.labels.values())}".strip(): sample.value
            for sample in samples
            if sample.name in WAITING
        }
        course.requests = sum(each.value for each in samples if each.name == "penstock_requests_total")
        course.restarts = sum(each.value for each in samples if each.name == "penstock_worker_restarts_total")


def sample_tree(pid: int, at_s: float) -> list[Sample]:
    """Samples a server and its worker processes."""
    pids = [(SERVER, pid), *((WORKER, child) for child in children_of(pid))]
    samples: list[Sample] = []
    for process, each in pids:
        # A process may end while it is looked at.
        with suppress(OSError):
            samples.append(_sample(process, each, at_s))
    return samples


def children_of(pid: int) -> list[int]:
    """The long-lived child processes."""
    children: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += map(int, (thread / "children").read_text(encoding="ascii").split())
    return [child for child in children if "worker_main" in command_of(child)]


def _sample(process: str, pid: int, at_s: float) -> Sample:
    status = status_of(pid)
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Sample(round(at_s, 1), process, pid, memory_bytes(status), files, int(status["Threads"]))
