"""Runs a scenario under policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.lane import LaneKind
from penstock_server.scheduling.limits import SHORT_BATCH_BUDGETS
from penstock_server.scheduling.scheduler import Scheduler
from penstock_server.simulation.adapter import (
    LearntTables,
    cost_models,
    learnt_tables,
    production_policy,
    scheduler_limits,
)
from penstock_server.simulation.arrivals import Call, live_calls
from penstock_server.simulation.baselines import (
    Choice,
    FifoChoice,
    PeerPolicy,
    TfServingChoice,
    TritonChoice,
)
from penstock_server.simulation.cost_files import lane_costs
from penstock_server.simulation.costs import LaneCosts, TrueDurations
from penstock_server.simulation.events import EventLoop
from penstock_server.simulation.lengths import known_lengths
from penstock_server.simulation.policy import Policy
from penstock_server.simulation.record import Record, WorkRecord
from penstock_server.simulation.rules import Rules
from penstock_server.simulation.scenario import NS_PER_S, LiveTraffic, PeerLimits, Scenario
from penstock_server.simulation.simulator import Simulator
from penstock_server.simulation.sources import CallSource, JobSource, endless_windows, start_ns
from penstock_server.simulation.traces import Trace, read_trace

OURS, LIVE_ONLY, BULK_ONLY = "ours", "live-only", "bulk-only"
_CHOICES: dict[str, Callable[[PeerLimits], Choice]] = {
    "fifo": FifoChoice,
    "triton": TritonChoice,
    "tf-serving": TfServingChoice,
}
POLICIES = (OURS, LIVE_ONLY, BULK_ONLY, *_CHOICES)
_PROGRESS_STEP_NS = NS_PER_S
# Of the calls admitted, this part may be late: the target of docs/simulation.md.
LATE_SHARE_MAX = 0.001

Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all policies of a comparison share.

    Attributes:
        scenario: As given.
        costs: True median durations.
        calls: The live calls.
        trace: The trace they are of, or None.
        learnt: What the scheduler knows of costs at first.
        capacity: Calls a second that the live lane can compute at best; 0 without live calls.
        duration_ns: For how long work arrives.
    """

    scenario: Scenario
    costs: LaneCosts
    calls: tuple[Call, ...]
    trace: Trace | None
    learnt: LearntTables
    capacity: float
    duration_ns: int


@dataclass(frozen=True, slots=True)
class Run:
    """One policy's run."""

    policy: str
    scenario: Scenario
    setting: Setting
    record: Record


def prepare(scenario: Scenario) -> Setting:
    """Draws the arrivals and reads what the scenario names.

    Raises:
        InvalidRequest: A file cannot be read or holds something else.
    """
    costs = _costs_of(scenario)
    learnt = learnt_tables(TrueDurations(costs, scenario.noise, scenario.seed), scenario.table_error)
    live = scenario.live
    if live is None:
        return Setting(scenario, costs, (), None, learnt, 0.0, scenario.duration_ns)
    capacity = _capacity(live, costs, scenario)
    if live.arrivals == "trace":
        assert live.trace is not None
        trace = read_trace(live.trace, live.tenants)
        duration_ns = min(scenario.duration_ns, trace.duration_ns)
        calls = tuple(call for call in trace.calls if call.arrival_ns < duration_ns)
        return Setting(scenario, costs, calls, trace, learnt, capacity, duration_ns)
    rate = live.rate if live.overload is None else live.overload * capacity
    calls = tuple(live_calls(live, rate, scenario.duration_ns, scenario.seed))
    return Setting(scenario, costs, calls, None, learnt, capacity, scenario.duration_ns)


def _costs_of(scenario: Scenario) -> LaneCosts:
    """True durations; a serial lane computes live and bulk batches alike."""
    costs = lane_costs(scenario.cost_table, scenario.model)
    return LaneCosts(costs.live, costs.live) if scenario.machine.kind == "serial" else costs


def run_policy(
    name: str, setting: Setting, tick: Tick | None = None, scheduler: type[Scheduler] = Scheduler
) -> Run:
    """Runs a scenario under one policy.

    Args:
        name: One of `POLICIES`.
        setting: The scenario and its arrivals.
        tick: Hears which part of the time has passed.
        scheduler: What "ours" is; tests put broken ones here.

    Raises:
        InvalidRequest: No such policy.
    """
    scenario = _scenario_of(name, setting.scenario)
    loop = EventLoop()
    durations = TrueDurations(setting.costs, scenario.noise, scenario.seed)
    policy = _policy_of(name, scenario, setting.learnt, scheduler)
    beside_bulk = scenario.noise.live_beside_bulk
    simulator = Simulator(policy, scenario.machine, durations, loop, beside_bulk=beside_bulk)
    if scenario.live is not None:
        CallSource(simulator, setting.calls).start()
    for job, at_ns in _job_sources(name, simulator, scenario, setting):
        job.start(at_ns)
    _run_loop(loop, setting.duration_ns, tick)
    # Jobs without end are cancelled; what else is under way is computed to its end.
    simulator.cancel_all(_is_of_job)
    loop.run()
    simulator.record.end_ns = loop.now_ns
    return Run(name, scenario, setting, simulator.record)


def _run_loop(loop: EventLoop, duration_ns: int, tick: Tick | None) -> None:
    for until_ns in range(_PROGRESS_STEP_NS, duration_ns, _PROGRESS_STEP_NS):
        loop.run(until_ns)
        if tick is not None:
            tick(until_ns / duration_ns)
    loop.run(duration_ns)
    if tick is not None:
        tick(1.0)


def _is_of_job(work: WorkRecord) -> bool:
    return bool(work.call.flow)


def _scenario_of(name: str, scenario: Scenario) -> Scenario:
    """What a policy meets: references lack live calls or jobs, peers run on one lane over all cores."""
    if name == LIVE_ONLY:
        return scenario.without_bulk()
    if name == BULK_ONLY:
        return scenario.without_live()
    if name in _CHOICES:
        machine = msgspec.structs.replace(scenario.machine, kind="serial")
        return msgspec.structs.replace(scenario, machine=machine)
    return scenario


def _policy_of(name: str, scenario: Scenario, learnt: LearntTables, scheduler: type[Scheduler]) -> Policy:
    if name in _CHOICES:
        return PeerPolicy(_CHOICES[name](scenario.peers), scenario.peers)
    if name not in POLICIES:
        raise InvalidRequest(f"No policy {name!r}; there are {', '.join(POLICIES)}.")
    return production_policy(scheduler, scenario, cost_models(learnt))


def _job_sources(
    name: str, simulator: Simulator, scenario: Scenario, setting: Setting
) -> Iterable[tuple[JobSource, int]]:
    bulk = scenario.bulk
    rows = bulk.peer_rows if is_peer(name) else bulk.window_rows
    in_flight = bulk.peer_requests_in_flight if is_peer(name) else bulk.windows_in_memory
    until_ns = setting.duration_ns
    for job in bulk.jobs:
        windows = endless_windows(job, rows, scenario.seed)
        yield JobSource(simulator, job.name, job.weight, windows, in_flight, until_ns), start_ns(job)
    if setting.trace is not None and name != LIVE_ONLY:
        for flow, recorded in setting.trace.windows.items():
            lengths = iter([window.lengths for window in recorded])
            source = JobSource(simulator, flow, 1.0, lengths, bulk.windows_in_memory, until_ns)
            yield source, recorded[0].arrival_ns


def _capacity(live: LiveTraffic, costs: LaneCosts, scenario: Scenario) -> float:
    """Calls a second of a live lane that is never idle and whose batches are full of rows of one length."""
    budget = live_batch_tokens_max(scenario)
    known = known_lengths(live.lengths)
    cheapest = {length: costs.live.cheapest_row_ns(length, budget) for length in set(known.tolist())}
    mean_ns = sum(cheapest[length] for length in known.tolist()) / len(known)
    return NS_PER_S / (mean_ns * live.rows)


def rules_of(run: Run) -> Rules:
    """The limits that hold in a run, for its checkers."""
    scenario = run.scenario
    limits = scheduler_limits(scenario)
    most = max(limits.live_batch_tokens_max, limits.bulk_batch_tokens)
    return Rules(
        batch_tokens_max={
            LaneKind.LIVE: most,
            # On a serial lane calls of FLEX that came near their deadlines may have been filled up.
            LaneKind.BULK: SHORT_BATCH_BUDGETS * limits.bulk_batch_tokens if limits.serial is None else most,
        },
        bulk_share=limits.bulk_share,
        bulk_unit_ns=_bulk_unit_ns(run, limits.bulk_batch_tokens),
        late_share_max=LATE_SHARE_MAX,
        edge_ns=round(scenario.machine.edge_us * 1000 / 2),
        gap_ns=round((scenario.machine.live_gap_us + scenario.machine.answer_us) * 1000),
        quantum_ns=limits.quantum_ns,
        margin_ns=limits.live_margin_ns,
        block_ns=None if limits.serial is None else limits.serial.block_ns,
        bind_ahead_ns=0 if limits.serial is None else limits.serial.bind_ahead_ns,
    )


def _bulk_unit_ns(run: Run, budget: int) -> float:
    """The dearest batch that can be made of the FLEX and BULK rows there were."""
    lengths = {
        length for work in run.record.works if not work.is_live for length in work.call.lengths.tolist()
    }
    live = run.setting.costs.live
    return max((live.duration_ns(max(1, budget // length), length) for length in lengths), default=0.0)


def is_peer(policy: str) -> bool:
    """Whether a policy is another server's."""
    return policy in _CHOICES


def live_batch_tokens_max(scenario: Scenario) -> int:
    """Padded tokens of the largest live batch."""
    return scheduler_limits(scenario).live_batch_tokens_max
