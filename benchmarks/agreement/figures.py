"""The same figures of a stretch of time, of the server and of the simulator."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from benchmarks.agreement.caller import ANSWERED, Answered
from penstock_server.domain.lane import LaneKind
from penstock_server.simulation.record import BatchRecord, Record

_NS_PER_MS = 1e6
_NS_PER_S = 1e9
# How far simulator and server may be apart: issue 4.
AGREEMENT = 0.10
# What is compared; the others tell where a difference comes from.
COMPARED = ("p50_ms", "p99_ms", "live_rows_per_s", "bulk_tokens_per_s")


@dataclass(frozen=True, slots=True)
class Figures:
    """A stretch, or the medians of some; NaN for what it has none of.

    Attributes:
        p50_ms, p99_ms: From the dispatcher to the answer of a live call.
        live_rows_per_s: Live rows answered.
        bulk_tokens_per_s: Tokens of jobs computed.
        queue_p50_ms, queue_p99_ms: Of that, waiting for a batch.
        compute_p50_ms, compute_p99_ms: Of that, the batch.
        rest_p50_ms, rest_p99_ms: Of that, neither.
        batch_rows: Rows of the batch of a live call, on average.
    """

    p50_ms: float
    p99_ms: float
    live_rows_per_s: float
    bulk_tokens_per_s: float
    queue_p50_ms: float
    queue_p99_ms: float
    compute_p50_ms: float
    compute_p99_ms: float
    rest_p50_ms: float
    rest_p99_ms: float
    batch_rows: float

    @property
    def compared(self) -> dict[str, float]:
        """Those that must agree."""
        return {name: value for name, value in asdict(self).items() if name in COMPARED}


@dataclass(frozen=True, slots=True)
class _Call:
    """A live call that was answered, in milliseconds."""

    total: float
    queue: float
    compute: float
    batch_rows: int


def of_server(calls: Sequence[Answered], seconds: float, bulk_tokens_per_s: float) -> Figures:
    """What the server's own clock says of its calls."""
    answered = [
        _Call(call.dispatched, call.queue, call.compute, call.batch_rows)
        for call in calls
        if call.status == ANSWERED
    ]
    return _figures(answered, seconds, bulk_tokens_per_s)


def of_simulator(record: Record, begin_ns: int, seconds: float) -> Figures:
    """What the record of a run says of the live calls that arrive from ``begin_ns`` on.

    Args:
        record: The run.
        begin_ns: When the measured time begins.
        seconds: How long it is.
    """
    last: dict[int, BatchRecord] = {}
    for batch in record.batches:
        for part in batch.parts:
            if batch.is_done:
                last[part.work.number] = batch
    calls = [
        _Call(
            (work.done_ns - work.submitted_ns) / _NS_PER_MS,
            (last[work.number].start_ns - work.submitted_ns) / _NS_PER_MS,
            (last[work.number].end_ns - last[work.number].start_ns) / _NS_PER_MS,
            last[work.number].rows,
        )
        for work in record.works
        if work.is_live and work.is_answered and work.done_ns is not None and work.call.arrival_ns >= begin_ns
    ]
    end_ns = begin_ns + seconds * _NS_PER_S
    tokens = sum(
        part.tokens
        for batch in record.batches
        if begin_ns <= batch.end_ns < end_ns
        for part in batch.parts
        if not part.work.is_live
    )
    return _figures(calls, seconds, tokens / seconds if _has_bulk(record) else math.nan)


def _has_bulk(record: Record) -> bool:
    return any(batch.kind is LaneKind.BULK for batch in record.batches)


def _figures(calls: Sequence[_Call], seconds: float, bulk_tokens_per_s: float) -> Figures:
    totals = [call.total for call in calls]
    queues, computes = [call.queue for call in calls], [call.compute for call in calls]
    rests = [call.total - call.queue - call.compute for call in calls]
    return Figures(
        p50_ms=percentile(totals, 50),
        p99_ms=percentile(totals, 99),
        live_rows_per_s=len(calls) / seconds if calls else math.nan,
        bulk_tokens_per_s=bulk_tokens_per_s,
        queue_p50_ms=percentile(queues, 50),
        queue_p99_ms=percentile(queues, 99),
        compute_p50_ms=percentile(computes, 50),
        compute_p99_ms=percentile(computes, 99),
        rest_p50_ms=percentile(rests, 50),
        rest_p99_ms=percentile(rests, 99),
        batch_rows=statistics.fmean(call.batch_rows for call in calls) if calls else math.nan,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def medians(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median over rounds."""
    names = [field.name for field in fields(Figures)]
    return Figures(*(statistics.median(getattr(each, name) for each in rounds) for name in names))


def quotients(simulated: Figures, served: Figures) -> dict[str, float]:
    """Simulator over server, of every figure; NaN where there is none."""
    served_by_name = asdict(served)
    return {
        name: value / served_by_name[name] if served_by_name[name] else math.nan
        for name, value in asdict(simulated).items()
    }


def agrees(quotient: float) -> bool:
    """Whether a quotient is near enough to 1, counted from either side; what is not there agrees."""
    return math.isnan(quotient) or 1 / (1 + AGREEMENT) <= quotient <= 1 + AGREEMENT
