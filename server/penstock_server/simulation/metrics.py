"""Figures of a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.lane import LaneKind
from penstock_server.simulation.record import Record, WorkRecord
from penstock_server.simulation.runner import Run, live_batch_tokens_max
from penstock_server.simulation.scenario import NS_PER_MS, NS_PER_S

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """What became of the calls that asked to be live and came after the warm-up.

    Attributes:
        calls: How many there were.
        answered: Answered in a live class.
        on_time: Of those, within their deadline, or without one.
        refused: Refusals by reason.
        demoted: Admitted in a lower class.
        expired: Admitted live, given up in the queue.
        late: Admitted live, and answered after the deadline or given up.
        cancelled: Their callers went away.
        late_share: Late ones of those admitted live that were not cancelled.
        false_refusals: Refused though the live lane then stood idle for as long as the call takes alone, in
            one piece, before its deadline. A lower bound.
        latency_ms: Percentiles and maximum of those answered live; None where too few are beyond.
        goodput: Answers in time, a second.
        goodput_of_capacity: What they cost in the batches where they are cheapest, over the time there was: 1
            if the live lane never idled and never ran a batch that was not full, late or of mixed lengths.
        tenant_p99_ms: The 99th percentile of each tenant.
        tenant_service: Seconds of lane time of each tenant, over its weight.
        fairness: Jain's index of those; 1 is equal.
    """

    calls: int
    answered: int
    on_time: int
    refused: dict[str, int]
    demoted: int
    expired: int
    late: int
    cancelled: int
    late_share: float
    false_refusals: int
    latency_ms: dict[str, float | None]
    goodput: float
    goodput_of_capacity: float
    tenant_p99_ms: dict[str, float | None]
    tenant_service: dict[str, float]
    fairness: float


@dataclass(frozen=True, slots=True)
class BulkFigures:
    """What became of FLEX and BULK rows.

    Attributes:
        rows_per_s, tokens_per_s: Computed after the warm-up and before the end of arrivals.
        longest_gap_ms: Longest time without the end of a batch, from the first submission on.
        longest_gap_units: The same in median batches.
        job_tokens: Tokens of each job.
    """

    rows_per_s: float
    tokens_per_s: float
    longest_gap_ms: float
    longest_gap_units: float
    job_tokens: dict[str, int]


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """How well batches were filled and predicted.

    Attributes:
        batches: How many.
        rows, tokens: Of a batch, on average.
        padding_waste: Part of the computed tokens that is padding.
        prediction_error: Median of |true / predicted upper - 1|; None where nothing was predicted.
        under_predicted: Part of the batches that took longer than predicted.
    """

    batches: int
    rows: float
    tokens: float
    padding_waste: float
    prediction_error: float | None
    under_predicted: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of a run. ``live_share`` is the part of all cores that live calls kept busy."""

    policy: str
    live: LiveFigures | None
    bulk: BulkFigures | None
    lanes: dict[str, LaneFigures]
    live_share: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class _Window:
    """The time that rates are of, and the fixed cost of the edge."""

    begin_ns: int
    end_ns: int
    edge_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / NS_PER_S

    def holds(self, at_ns: int) -> bool:
        return self.begin_ns <= at_ns < self.end_ns


@dataclass(slots=True)
class _Tokens:
    """Rows and tokens computed in a window."""

    rows: int = 0
    tokens: int = 0
    by_flow: Counter[str] = field(default_factory=Counter[str])


def figures_of(run: Run) -> Figures:
    """Computes the figures of a run."""
    record, scenario = run.record, run.scenario
    begin_ns = round(scenario.warm_up_s * NS_PER_S)
    window = _Window(begin_ns, run.setting.duration_ns, round(scenario.machine.edge_us * 1000 / 2))
    live, bulk = _computed(record, window)
    busy = sum(
        batch.busy_ns * batch.cores * batch.live_part
        for batch in record.batches
        if window.holds(batch.end_ns)
    )
    calls = sum(
        work.is_live and work.is_admitted and window.holds(work.submitted_ns) for work in record.works
    )
    busy += calls * scenario.machine.call_us * 1000
    return Figures(
        policy=run.policy,
        live=_live_figures(run, window) if run.setting.calls and scenario.live is not None else None,
        bulk=_bulk_figures(record, bulk, window) if _has_bulk(record) else None,
        lanes={kind.value: found for kind in LaneKind if (found := _lane_figures(record, kind)) is not None},
        live_share=busy / (scenario.machine.cores * window.seconds * NS_PER_S),
        tokens_per_s=(live.tokens + bulk.tokens) / window.seconds,
    )


def latency_ns(work: WorkRecord, edge_ns: int) -> int:
    """From the arrival of a call to its answer."""
    assert work.done_ns is not None
    return work.done_ns + edge_ns - work.call.arrival_ns


def percentiles(values_ms: Sequence[float]) -> dict[str, float | None]:
    """Nearest-rank percentiles and the maximum; None where fewer than one value lies beyond."""
    ordered = sorted(values_ms)
    count = len(ordered)
    found: dict[str, float | None] = {}
    for percent in PERCENTILES:
        rank = max(1, math.ceil(count * percent / 100))
        found[f"p{percent:g}"] = ordered[rank - 1] if count * (1 - percent / 100) >= 1 else None
    found["max"] = ordered[-1] if ordered else None
    return found


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all are equal, 1/n if one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def is_late(work: WorkRecord, edge_ns: int) -> bool:
    """Whether an admitted call with a deadline had no answer by then."""
    deadline_ns = work.call.deadline_ns
    if deadline_ns is None:
        return False
    return not work.is_answered or latency_ns(work, edge_ns) > deadline_ns - work.call.arrival_ns


def _live_figures(run: Run, window: _Window) -> LiveFigures:
    asked = [work for work in run.record.works if work.call.is_live and window.holds(work.call.arrival_ns)]
    kept = [work for work in asked if work.is_live and work.cancelled_ns is None]
    answered = [work for work in kept if work.is_answered]
    late = [work for work in kept if is_late(work, window.edge_ns)]
    on_time = [work for work in answered if not is_late(work, window.edge_ns)]
    latency_ms = [latency_ns(work, window.edge_ns) / NS_PER_MS for work in answered]
    service = _service(run.record, run)
    return LiveFigures(
        calls=len(asked),
        answered=len(answered),
        on_time=len(on_time),
        refused=dict(Counter(work.refusal for work in asked if work.refusal)),
        demoted=sum(work.is_demoted for work in asked),
        expired=sum(bool(work.failed.any()) for work in kept),
        late=len(late),
        cancelled=sum(work.cancelled_ns is not None for work in asked),
        late_share=len(late) / len(kept) if kept else 0.0,
        false_refusals=_false_refusals(run, asked),
        latency_ms=percentiles(latency_ms),
        goodput=len(on_time) / window.seconds,
        goodput_of_capacity=_cheapest_s(run, on_time) / window.seconds,
        tenant_p99_ms=_tenant_p99(answered, window),
        tenant_service=service,
        fairness=jain(list(service.values())),
    )


def _cheapest_s(run: Run, works: Sequence[WorkRecord]) -> float:
    """Seconds of the live lane that works take in the batches where they are cheapest."""
    rows = np.concatenate([work.call.lengths for work in works] or [np.empty(0, np.int32)])
    lengths, counts = np.unique(rows, return_counts=True)
    budget = live_batch_tokens_max(run.scenario)
    costs = run.setting.costs.live
    cheapest_ns = [costs.cheapest_row_ns(length, budget) for length in lengths.tolist()]
    return float(np.dot(cheapest_ns, counts)) / NS_PER_S


def _tenant_p99(answered: Sequence[WorkRecord], window: _Window) -> dict[str, float | None]:
    by_tenant: dict[str, list[float]] = {}
    for work in answered:
        by_tenant.setdefault(work.call.tenant, []).append(latency_ns(work, window.edge_ns) / NS_PER_MS)
    return {tenant: percentiles(values)["p99"] for tenant, values in sorted(by_tenant.items())}


def _service(record: Record, run: Run) -> dict[str, float]:
    """Seconds of lane time of live rows by tenant, over its weight; a batch's time is split by tokens."""
    service: dict[str, float] = {}
    for batch in record.batches:
        for part in batch.parts:
            if part.work.is_live:
                call = part.work.call
                part_s = batch.busy_ns * part.tokens / batch.tokens / NS_PER_S
                service[call.tenant] = service.get(call.tenant, 0.0) + part_s / call.weight
    return dict(sorted(service.items()))


def _false_refusals(run: Run, asked: Sequence[WorkRecord]) -> int:
    begins, ends = _idle_times(run.record)
    machine = run.scenario.machine
    gap_ns = (machine.live_gap_us + machine.answer_us) * 1000
    count = 0
    for work in asked:
        call = work.call
        if work.refusal and call.deadline_ns is not None:
            alone_ns = run.setting.costs.live.duration_ns(work.rows, int(call.lengths.max())) + gap_ns
            starts = np.maximum(begins, work.submitted_ns)
            stops = np.minimum(ends, call.deadline_ns)
            count += bool((stops - starts >= alone_ns).any())
    return count


def _idle_times(record: Record) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When the lane that runs live batches had none, from planning to end."""
    lanes = {lane.name for lane in record.lanes if LaneKind.LIVE in lane.kinds}
    batches = [batch for batch in record.batches if batch.lane in lanes and batch.is_done]
    begins = np.array([0, *(batch.end_ns for batch in batches)], np.int64)
    ends = np.array([*(batch.planned_ns for batch in batches), record.end_ns], np.int64)
    return begins, ends


def _computed(record: Record, window: _Window) -> tuple[_Tokens, _Tokens]:
    live, bulk = _Tokens(), _Tokens()
    for batch in record.batches:
        if not window.holds(batch.end_ns):
            continue
        for part in batch.parts:
            found = live if part.work.is_live else bulk
            found.rows += len(part.rows)
            found.tokens += part.tokens
            found.by_flow[part.work.call.flow] += part.tokens
    return live, bulk


def _has_bulk(record: Record) -> bool:
    return any(work.served_class is not None and not work.is_live for work in record.works)


def _bulk_figures(record: Record, computed: _Tokens, window: _Window) -> BulkFigures:
    first_ns = min(work.submitted_ns for work in record.works if work.is_admitted and not work.is_live)
    batches = [batch for batch in record.batches if batch.live_part < 1 and batch.end_ns >= 0]
    ends = [first_ns, *(batch.end_ns for batch in batches if batch.end_ns < window.end_ns), window.end_ns]
    gap_ns = float(np.diff(np.sort(np.array(ends))).max())
    unit_ns = float(np.median([batch.busy_ns for batch in batches])) if batches else math.inf
    return BulkFigures(
        rows_per_s=computed.rows / window.seconds,
        tokens_per_s=computed.tokens / window.seconds,
        longest_gap_ms=gap_ns / NS_PER_MS,
        longest_gap_units=gap_ns / unit_ns,
        job_tokens={flow: tokens for flow, tokens in sorted(computed.by_flow.items()) if flow},
    )


def _lane_figures(record: Record, kind: LaneKind) -> LaneFigures | None:
    batches = [batch for batch in record.batches if batch.kind is kind and batch.is_done]
    if not batches:
        return None
    padded = sum(batch.rows * batch.padded_length for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    ratios = np.array([batch.busy_ns / batch.predicted_ns for batch in batches if batch.predicted_ns])
    return LaneFigures(
        batches=len(batches),
        rows=sum(batch.rows for batch in batches) / len(batches),
        tokens=tokens / len(batches),
        padding_waste=1 - tokens / padded,
        prediction_error=float(np.median(np.abs(ratios - 1))) if len(ratios) else None,
        under_predicted=float((ratios > 1).mean()) if len(ratios) else None,
    )
