"""Replays recorded stretches in the simulator, with what the server has learnt of costs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.agreement.caller import ANSWERED, MODEL, Answered
from benchmarks.agreement.figures import Figures, of_simulator, percentile
from penstock_server.domain.trace import TraceRecord
from penstock_server.simulation.cost_files import lane_costs
from penstock_server.simulation.runner import OURS, prepare, run_policy
from penstock_server.simulation.scenario import LiveTraffic, Machine, Noise, Scenario

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Replay:
    """A stretch cut out of a trace.

    Attributes:
        path: The cut, from its first window or call on.
        begin_ns: When the measured time begins in it.
    """

    path: Path
    begin_ns: int


def read_records(path: Path) -> list[TraceRecord]:
    """Reads a whole trace."""
    return [msgspec.json.decode(line, type=TraceRecord) for line in path.read_bytes().splitlines()]


def cut(
    records: Sequence[TraceRecord],
    tenant: str,
    flow: str,
    calls: Sequence[Answered],
    start_s: float,
    path: Path,
) -> Replay:
    """Cuts the calls of a tenant and the windows of a job out of a trace.

    Args:
        records: The trace.
        tenant: Whose calls, as the trace calls it; each stretch has its own.
        flow: The job, as the trace calls it; empty for none.
        calls: What the client knows of them, to tell its clock from the trace's.
        start_s: When the measured time began, on the client's clock.
        path: Where the cut is written.
    """
    live = [record for record in records if record.tenant == tenant]
    if len(live) != len(calls):
        raise ValueError(f"the trace has {len(live)} calls of {tenant}, but {len(calls)} were sent")
    arrivals = sorted(record.arrival_ns for record in live)
    sent = sorted(call.sent_s for call in calls)
    # Both clocks are the machine's monotonic one; the trace's counts from its first line.
    ahead_ns = statistics.median(at_s * _NS_PER_S - at_ns for at_s, at_ns in zip(sent, arrivals, strict=True))
    measured_ns = round(start_s * _NS_PER_S - ahead_ns)
    windows = [record for record in records if flow and record.flow == flow]
    origin_ns = min(measured_ns, *(record.arrival_ns for record in [*windows, *live]))
    with path.open("wb") as file:
        for record in sorted([*windows, *live], key=lambda record: record.arrival_ns):
            file.write(msgspec.json.encode(_rebased(record, origin_ns)) + b"\n")
    return Replay(path, measured_ns - origin_ns)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a machine was, beside what its cost tables say.

    Attributes:
        gap_ms: From a call's submission to the start of its batch, where the lane is idle.
        rest_ms: From the end of a batch to the answer.
        noise: How its batches differed from the tables.
    """

    gap_ms: float
    rest_ms: float
    noise: Noise

    @classmethod
    def supposed(cls) -> Speed:
        """What the simulator supposes by default."""
        return cls(Machine().live_gap_us / 1e3, Machine().answer_us / 1e3, Noise())

    @classmethod
    def measured(cls, calls: Sequence[Answered], costs: Path, residuals: Path) -> Speed:
        """What a server's calls show; a quarter of them, at least, find an idle lane.

        Args:
            calls: They, of one stretch.
            costs: The folder of cost tables in the server's data.
            residuals: New file, for what batches took over the tables.
        """
        answered = [call for call in calls if call.status == ANSWERED]
        lines = [f"{ratio:.4f}" for ratio in over_table(calls, costs)]
        residuals.write_text("\n".join(lines), encoding="utf-8")
        return cls(
            percentile([call.queue for call in answered], 25),
            statistics.fmean(call.rest for call in answered),
            Noise(residuals=residuals, drift_sigma=0.0, stalls_per_s=0.0),
        )


def simulate(replay: Replay, costs: Path, seconds: float, speed: Speed, seed: int) -> Figures:
    """Runs the production scheduler over a cut.

    Args:
        replay: The cut.
        costs: The folder of cost tables in the server's data.
        seconds: Length of the measured time.
        speed: Of the simulated machine.
        seed: Of noise.
    """
    scenario = Scenario(
        seed=seed,
        duration_s=replay.begin_ns / _NS_PER_S + seconds,
        cost_table=costs,
        model=MODEL,
        live=LiveTraffic(arrivals="trace", trace=replay.path),
        machine=Machine(live_gap_us=speed.gap_ms * 1e3, answer_us=speed.rest_ms * 1e3),
        noise=speed.noise,
    )
    run = run_policy(OURS, prepare(scenario))
    return of_simulator(run.record, replay.begin_ns, seconds)


def over_table(calls: Sequence[Answered], costs: Path) -> list[float]:
    """What the batch of each answered call took, over the median that was learnt: 1 if that is right."""
    live = lane_costs(costs, MODEL).live
    return [
        call.compute * _NS_PER_MS / live.duration_ns(call.batch_rows, call.batch_padded)
        for call in calls
        if call.status == ANSWERED
    ]


def _rebased(record: TraceRecord, origin_ns: int) -> TraceRecord:
    deadline_ns = record.deadline_ns
    return msgspec.structs.replace(
        record,
        arrival_ns=record.arrival_ns - origin_ns,
        deadline_ns=None if deadline_ns is None else deadline_ns - origin_ns,
        tenant="",
    )
