"""Client processes that send live calls at given times, whether or not earlier calls are answered."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import grpc

from benchmarks.texts import TextKind, live_texts
from penstock.v1 import common_pb2, inference_pb2

# More unanswered calls than this in one process are not sent but counted as NOT_SENT: the server is then
# so far behind that the generator's own memory would be measured.
IN_FLIGHT_MAX = 4_096
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class LiveLoad:
    """What each live call asks for."""

    address: str
    model: str
    task: str
    texts: TextKind
    rows: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Burst:
    """One stretch of arrivals of one process; ``start_s`` is on the machine's monotonic clock."""

    start_s: float
    duration_s: float
    rate: float
    seed: str


@dataclass(slots=True)
class Samples:
    """What became of the calls; times in milliseconds, one entry a call (server times: answered calls only).

    Attributes:
        latency_ms: From the scheduled arrival to the answer, of answered calls.
        lag_ms: From the scheduled arrival until the call was sent: how late the generator itself was.
        queue_ms, compute_ms: As the server tells them.
        tokens: Tokens of the answered calls.
        statuses: How often each status came back.
    """

    latency_ms: list[float] = field(default_factory=list[float])
    lag_ms: list[float] = field(default_factory=list[float])
    queue_ms: list[float] = field(default_factory=list[float])
    compute_ms: list[float] = field(default_factory=list[float])
    tokens: int = 0
    statuses: dict[str, int] = field(default_factory=dict[str, int])

    def count(self, status: str) -> None:
        """Counts a call."""
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def add(self, other: Samples) -> None:
        """Takes over another process's or round's samples."""
        self.latency_ms += other.latency_ms
        self.lag_ms += other.lag_ms
        self.queue_ms += other.queue_ms
        self.compute_ms += other.compute_ms
        self.tokens += other.tokens
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count


def arrivals(rng: random.Random, rate: float, duration_s: float) -> Iterator[float]:
    """Yields the times of a Poisson process: seconds from its start."""
    if rate <= 0:
        return
    time_s = rng.expovariate(rate)
    while time_s < duration_s:
        yield time_s
        time_s += rng.expovariate(rate)


class Generators:
    """Client processes, started once; each sends its share of the arrivals. Use ``with``."""

    def __init__(self, load: LiveLoad, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(load, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Generators:
        for pipe in self._pipes:
            if not pipe.poll(_START_TIMEOUT_S):
                raise TimeoutError("A client process did not start; its error is above.")
            pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10.0)
            if process.is_alive():
                process.kill()

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [process.pid for process in self._processes]

    def begin(self, start_s: float, duration_s: float, rate: float, seed: str) -> None:
        """Has arrivals begin at a time of the monotonic clock; ``collect`` waits for them."""
        share = rate / len(self._pipes)
        for index, pipe in enumerate(self._pipes):
            pipe.send(Burst(start_s, duration_s, share, f"{seed}/{index}"))

    def collect(self, timeout_s: float) -> Samples:
        """Waits for the calls to be answered or given up, and joins what the processes saw."""
        samples = Samples()
        for pipe in self._pipes:
            if not pipe.poll(timeout_s):
                raise TimeoutError("A client process did not finish in time.")
            samples.add(pipe.recv())
        return samples


def _serve(load: LiveLoad, pipe: Connection) -> None:
    """A client process: tells that it is ready, then runs the bursts it is sent until the pipe closes."""
    asyncio.run(_serve_bursts(load, pipe))


async def _serve_bursts(load: LiveLoad, pipe: Connection) -> None:
    texts = live_texts(load.texts)
    async with grpc.aio.insecure_channel(load.address) as channel:
        await asyncio.wait_for(channel.channel_ready(), load.timeout_s)
        pipe.send("ready")
        while (burst := await asyncio.to_thread(_receive, pipe)) is not None:
            pipe.send(await _Sender(load, channel, texts).run(burst))


def _receive(pipe: Connection) -> Burst | None:
    try:
        burst: Burst = pipe.recv()
    except EOFError:
        return None
    return burst


class _Sender:
    """Sends the calls of one burst."""

    def __init__(self, load: LiveLoad, channel: grpc.aio.Channel, texts: Sequence[str]) -> None:
        self._load = load
        self._texts = texts
        self._samples = Samples()
        name, parse = _METHODS[load.task]
        # Requests are made into bytes before their time has come; gRPC's retries would hide errors.
        self._call: Any = channel.unary_unary(
            f"/penstock.v1.InferenceService/{name}",
            request_serializer=bytes,
            response_deserializer=parse,
        )

    async def run(self, burst: Burst) -> Samples:
        rng = random.Random(burst.seed)
        in_flight: set[asyncio.Task[None]] = set()
        for after_s in arrivals(rng, burst.rate, burst.duration_s):
            request = self._request(rng)
            scheduled_s = burst.start_s + after_s
            await asyncio.sleep(max(0.0, scheduled_s - time.monotonic()))
            if len(in_flight) >= IN_FLIGHT_MAX:
                self._samples.count("NOT_SENT")
                continue
            task = asyncio.create_task(self._send(request, scheduled_s))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
        await asyncio.gather(*in_flight)
        return self._samples

    def _request(self, rng: random.Random) -> bytes:
        texts = [self._texts[rng.randrange(len(self._texts))] for _ in range(self._load.rows)]
        model = common_pb2.ModelRef(name=self._load.model)
        inputs = [common_pb2.TextInput(text=text) for text in texts]
        if self._load.task == "embed":
            return inference_pb2.EmbedRequest(model=model, inputs=inputs).SerializeToString()
        return inference_pb2.ClassifyRequest(model=model, inputs=inputs).SerializeToString()

    async def _send(self, request: bytes, scheduled_s: float) -> None:
        samples = self._samples
        samples.lag_ms.append((time.monotonic() - scheduled_s) * 1e3)
        try:
            answer = await self._call(request, timeout=self._load.timeout_s)
        except grpc.aio.AioRpcError as err:
            samples.count(err.code().name)
            return
        samples.latency_ms.append((time.monotonic() - scheduled_s) * 1e3)
        samples.count("OK")
        samples.tokens += answer.info.tokens
        samples.queue_ms.append(answer.info.timings.queue.ToMicroseconds() / 1e3)
        samples.compute_ms.append(answer.info.timings.compute.ToMicroseconds() / 1e3)


_METHODS: dict[str, tuple[str, Any]] = {
    "embed": ("Embed", inference_pb2.EmbedResponse.FromString),
    "classify": ("Classify", inference_pb2.ClassifyResponse.FromString),
}
