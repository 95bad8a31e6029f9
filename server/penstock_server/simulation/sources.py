"""Where work comes from while a simulation runs: calls at their times, jobs as their windows are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock_server.domain.tasks import RequestClass
from penstock_server.simulation.arrivals import Call, stream
from penstock_server.simulation.lengths import Lengths, draw, known_lengths
from penstock_server.simulation.record import WorkRecord
from penstock_server.simulation.scenario import NS_PER_MS, NS_PER_S, BulkJob
from penstock_server.simulation.simulator import Simulator

# What a client waits after a refusal. Chosen: about what servers ask for.
_RETRY_NS = 100 * NS_PER_MS


class CallSource:
    """Submits calls as they arrive, whatever becomes of them: an open loop."""

    def __init__(self, simulator: Simulator, calls: Sequence[Call]) -> None:
        self._simulator = simulator
        self._calls = iter(calls)

    def start(self) -> None:
        """Waits for the next call."""
        call = next(self._calls, None)
        if call is not None:
            self._simulator.loop.at(call.arrival_ns, lambda: self._arrive(call))

    def _arrive(self, call: Call) -> None:
        self._simulator.submit_at(call)
        self.start()


class JobSource:
    """Keeps some windows of a job submitted, and submits the next one when one is done: a closed loop.

    Args:
        simulator: Takes the windows.
        name: The job's.
        weight: The job's.
        windows: Tokens of the rows of each window.
        in_flight: Windows under way at once.
        until_ns: No window is submitted after this.
    """

    def __init__(
        self,
        simulator: Simulator,
        name: str,
        weight: float,
        windows: Iterator[Lengths],
        in_flight: int,
        until_ns: int,
    ) -> None:
        self._simulator = simulator
        self._name = name
        self._weight = weight
        self._windows = windows
        self._in_flight = in_flight
        self._until_ns = until_ns

    def start(self, at_ns: int) -> None:
        """Submits the first windows at a time."""
        for _ in range(self._in_flight):
            self._simulator.loop.at(at_ns, self._next)

    def _next(self) -> None:
        lengths = next(self._windows, None) if self._simulator.loop.now_ns < self._until_ns else None
        if lengths is not None:
            self._submit(lengths)

    def _submit(self, lengths: Lengths) -> None:
        loop = self._simulator.loop
        call = Call(
            arrival_ns=loop.now_ns,
            request_class=RequestClass.BULK,
            lengths=lengths,
            weight=self._weight,
            flow=self._name,
        )
        record: WorkRecord | None = None

        def settled() -> None:
            if record is not None:
                loop.at(loop.now_ns, self._next)

        record = self._simulator.submit(call, settled)
        if not record.is_admitted and loop.now_ns < self._until_ns:
            loop.at(loop.now_ns + _RETRY_NS, lambda: self._submit(lengths))


def endless_windows(job: BulkJob, rows: int, seed: int) -> Iterator[Lengths]:
    """Windows of a job without end."""
    known = known_lengths(job.lengths)
    random = stream(seed, "job", job.name)
    while True:
        yield draw(known, rows, random)


def start_ns(job: BulkJob) -> int:
    """When a job begins."""
    return round(job.start_s * NS_PER_S)
