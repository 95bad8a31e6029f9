"""A server under load, stretch by stretch: live calls alone and beside a job, in two kinds of arrivals."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.agreement.caller import MODEL, Answered, calls_of
from benchmarks.agreement.figures import Figures, of_server
from benchmarks.bulk import BulkLoad
from benchmarks.hybrid.processes import Client, Running, client_process
from benchmarks.machine import read_cpu_time
from benchmarks.texts import TextKind, live_texts
from penstock_server.simulation.arrivals import mmpp_times, poisson_times, stream
from penstock_server.simulation.scenario import LiveTraffic
from tests.support.server import ServerProcess, server_process

Arrivals = Literal["poisson", "mmpp"]
_NS_PER_S = 1e9
_LEAD_S = 1.0
# Rows of a job: more than two cores compute in a stretch of a minute.
_BULK_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Condition:
    """What is asked of the server."""

    arrivals: Arrivals
    has_bulk: bool

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.arrivals}, {'beside bulk' if self.has_bulk else 'alone'}"


CONDITIONS = tuple(
    Condition(arrivals, has_bulk) for arrivals in ("poisson", "mmpp") for has_bulk in (False, True)
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was measured.

    Attributes:
        condition: Of what.
        tenant, flow: The names that the trace gives to its calls and its job; no flow without a job.
        start_s: When the measured time began, on the monotonic clock.
        seconds: Its length.
        calls: All calls, in the order sent.
        bulk_tokens_per_s: Of the job; NaN without one.
        others: Cores that something else on the machine used.
        client: Cores that the live calls' client used, which no lane can have either.
    """

    condition: Condition
    tenant: str
    flow: str
    start_s: float
    seconds: float
    calls: tuple[Answered, ...]
    bulk_tokens_per_s: float
    others: float
    client: float

    @property
    def figures(self) -> Figures:
        """What the server says."""
        return of_server(self.calls, self.seconds, self.bulk_tokens_per_s)


class Bench:
    """A running server with its client and its bulk rows."""

    def __init__(self, server: ServerProcess, client: Client, bulk: BulkLoad, texts: int, seed: int) -> None:
        self._server = server
        self._client = client
        self._bulk = bulk
        self._texts = texts
        self._seed = seed
        self._stretches = 0
        self._jobs = 0

    def measure(self, condition: Condition, rate: float, seconds: float, round_: int) -> Stretch:
        """Measures one stretch; a job is under way before it begins, and cancelled after it."""
        run = self._bulk.begin() if condition.has_bulk else None
        self._jobs += condition.has_bulk
        self._stretches += 1
        # The trace numbers tenants and jobs in the order in which they appear.
        tenant = f"t{self._stretches}"
        start_s = time.monotonic() + _LEAD_S
        self._order(condition, rate, seconds, start_s, round_, tenant)
        time.sleep(max(0.0, start_s - time.monotonic()))
        before = read_cpu_time(time.monotonic(), self._server.process.pid, [self._client.pid])
        if run is not None:
            run.mark()
        time.sleep(max(0.0, start_s + seconds - time.monotonic()))
        bulk = run.end() if run is not None else {"tokens_per_s": math.nan}
        cores = read_cpu_time(time.monotonic(), self._server.process.pid, [self._client.pid]).cores_since(
            before
        )
        return Stretch(
            condition,
            tenant,
            f"j{self._jobs}" if condition.has_bulk else "",
            start_s,
            seconds,
            tuple(calls_of(self._client.answer())),
            float(str(bulk["tokens_per_s"])),
            cores["others"],
            cores["clients"],
        )

    def _order(
        self, condition: Condition, rate: float, seconds: float, start_s: float, round_: int, tenant: str
    ) -> None:
        """Both conditions of a kind of arrivals have the same calls in a round."""
        draw = stream(self._seed, condition.arrivals, str(round_))
        duration_ns = round(seconds * _NS_PER_S)
        if condition.arrivals == "mmpp":
            times = mmpp_times(LiveTraffic(), rate, duration_ns, draw)
        else:
            times = poisson_times(rate, duration_ns, draw)
        chance = random.Random(f"{self._seed}/{condition.arrivals}/{round_}")
        # No text twice: identical rows in flight are computed once, which the simulator does not model.
        numbers = chance.sample(range(self._texts), len(times))
        due_s = [start_s + at_ns / _NS_PER_S for at_ns in times.tolist()]
        self._client.tell("calls", due_s=due_s, numbers=numbers, tenant=tenant)


@contextmanager
def running_bench(folder: Path, kind: TextKind, seed: int) -> Generator[Bench]:
    """Starts server and client; drained at the end, so that costs and trace are on disk afterwards."""
    texts = list(dict.fromkeys(live_texts(kind)))
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    config = folder / "penstock.toml"
    config.write_text(f'[trace]\npath = "{trace_of(folder)}"\n', encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.agreement.caller"]
    with server_process(folder / "data", "--config", str(config)) as server:
        running = Running(server.address, server.process.pid)
        bulk = BulkLoad(server.address, MODEL, "embed", kind, _BULK_ROWS)
        with client_process(command, running, folder / "texts.json", folder / "client.log") as client:
            yield Bench(server, client, bulk, len(texts), seed)
        bulk.close()
        server.terminate()


def trace_of(folder: Path) -> Path:
    """Where the server records what arrives."""
    return folder / "trace.jsonl"


def costs_of(folder: Path) -> Path:
    """Where the server stores what it learns of costs."""
    return folder / "data" / "costs"
