"""What a simulation is of: arrivals, machine, costs, limits. One TOML file, or options of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from penstock_server.domain.trace import OverloadName

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a scenario file; unknown names are errors."""


class TenantMix(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant: its part of the live calls, and its weight in sharing the lanes."""

    name: str
    share: float = 1.0
    weight: float = 1.0


class LiveTraffic(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Live calls.

    Attributes:
        arrivals: A Poisson process, a Poisson process whose rate switches between two values (MMPP), or a
            recorded trace.
        rate: Calls a second on average.
        overload: Calls a second as a multiple of what the live lane can compute; wins over ``rate``.
        trace: The recorded trace: JSON Lines or Parquet.
        burst_ratio: MMPP: rate of the busy state over that of the calm one.
        calm_s, busy_s: MMPP: mean length of the states.
        rows: Texts a call.
        lengths: ``sentences``, ``reviews``, ``mixed`` (nine sentences for each review), or a file with one
            number of tokens a line.
        deadline_ms: From arrival; 0 for none.
        overload_policy: What may happen to a call that cannot be computed in time.
        critical_share, flex_share: Parts of the calls of these classes; the others are LIVE.
        cancel_share: Part of the calls whose callers go away, at a random time within the deadline.
        tenants: Who calls.
    """

    arrivals: Literal["poisson", "mmpp", "trace"] = "poisson"
    rate: float = 20.0
    overload: float | None = None
    trace: Path | None = None
    burst_ratio: float = 10.0
    calm_s: float = 2.0
    busy_s: float = 0.4
    rows: int = 1
    lengths: str = "mixed"
    deadline_ms: float = 500.0
    overload_policy: OverloadName = "reject"
    critical_share: float = 0.0
    flex_share: float = 0.0
    cancel_share: float = 0.0
    tenants: tuple[TenantMix, ...] = (TenantMix(name=""),)


class BulkJob(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job that never runs out of rows."""

    name: str = "job"
    weight: float = 1.0
    start_s: float = 0.0
    lengths: str = "mixed"


class BulkTraffic(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bulk work.

    Penstock reads a job window by window. Peers have no jobs: a client there keeps
    ``peer_requests_in_flight`` calls of ``peer_rows`` texts under way for each of them.
    """

    jobs: tuple[BulkJob, ...] = ()
    window_rows: int = 4096
    windows_in_memory: int = 2
    peer_rows: int = 32
    peer_requests_in_flight: int = 8


class Machine(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The lanes.

    Attributes:
        kind: ``cpu``: a live lane over all cores that preempts single-thread bulk lanes. ``serial``: one lane
            that runs one batch after the other, as a GPU does.
        cores: Cores of the CPU.
        bulk_lanes: Bulk lanes; 0 for as many as cores.
        bulk_slots: Batches given to a bulk lane at once: one runs, the others wait in it.
        live_threads: Cores that a live batch keeps busy, waiting threads included; 0 for all.
        live_gap_us, bulk_gap_us: What a batch costs beside its computing: packing, threads, the event loop.
        call_us: Processor time of a live call outside its batch, client included; bulk lanes go without.
        answer_us: From the end of a live batch to its answers and the choice of the next one.
        edge_us: What a call costs before its rows are queued and after they are computed, half each: protocol
            and tokeniser. Added to latencies, takes no lane's time.
    """

    kind: Literal["cpu", "serial"] = "cpu"
    cores: int = 2
    bulk_lanes: int = 0
    bulk_slots: int = 2
    live_threads: int = 0
    live_gap_us: float = 400.0
    bulk_gap_us: float = 250.0
    call_us: float = 3000.0
    answer_us: float = 700.0
    edge_us: float = 0.0


class Noise(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How true durations differ from the cost table.

    Attributes:
        sigma: Standard deviation of the logarithm of each duration's factor.
        residuals: A file of measured factors of live batches, one a line, drawn for those instead.
        drift_sigma: Standard deviation of the logarithm of a factor that all durations share for a while.
        drift_s: After how long that factor has forgotten itself by 1/e.
        stalls_per_s: How often a batch stalls, per second of computing.
        stall_ms: For how long.
        live_beside_bulk: Factor of live durations while bulk lanes compute. Measured below 1 as well, where
            busy cores keep their clock up.
    """

    sigma: float = 0.06
    residuals: Path | None = None
    drift_sigma: float = 0.02
    drift_s: float = 5.0
    stalls_per_s: float = 0.01
    stall_ms: float = 20.0
    live_beside_bulk: float = 1.0


class Limits(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The scheduler's limits (`scheduling.limits.SchedulerLimits`); None leaves the server's default."""

    live_tokens_max: int | None = None
    flex_tokens_max: int | None = None
    bulk_tokens_max: int | None = None
    live_batch_tokens_max: int | None = None
    bulk_batch_tokens: int | None = None
    lookahead_rows: int | None = None
    live_margin_ns: int | None = None
    live_batch_ns_max: int | None = None
    batch_efficiency: float | None = None
    bulk_share: float | None = None
    quantum_ns: int | None = None


class PeerLimits(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the peers' policies, at what their documentation recommends or has as a default.

    Attributes:
        batch_rows_max: Triton's and TF Serving's ``max_batch_size``.
        batch_tokens_max: TEI's ``max_batch_tokens``, counted with padding.
        batch_timeout_ms: TF Serving's ``batch_timeout_micros``: how long a batch may wait to be full.
        queue_rows_max: Rows that may wait; more are refused. TEI's ``max_concurrent_requests`` is 512.
    """

    batch_rows_max: int = 32
    batch_tokens_max: int = 16_384
    batch_timeout_ms: float = 1.0
    queue_rows_max: int = 512


class Scenario(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a run depends on beside the policy.

    Attributes:
        name: For people.
        seed: Of everything that is random. All policies meet the same arrivals, lengths and noise.
        duration_s: For how long calls arrive.
        warm_up_s: Calls of the first seconds count for checks, not for latencies and rates.
        cost_table: True durations and what the scheduler starts from; None takes the table of MiniLM on two
            cores that comes with this package; see `cost_files.lane_costs`.
        model: Which model's costs, where ``cost_table`` is a server's folder.
        table_error: Factor of the scheduler's first table against the truth: 0.9 is 10 % optimistic.
    """

    name: str = ""
    seed: int = 1
    duration_s: float = 60.0
    warm_up_s: float = 0.0
    cost_table: Path | None = None
    model: str = ""
    table_error: float = 1.0
    live: LiveTraffic | None = None
    bulk: BulkTraffic = BulkTraffic()
    machine: Machine = Machine()
    noise: Noise = Noise()
    limits: Limits = Limits()
    peers: PeerLimits = PeerLimits()

    @property
    def duration_ns(self) -> int:
        """For how long calls arrive."""
        return round(self.duration_s * NS_PER_S)

    def without_live(self) -> Scenario:
        """The same without live calls."""
        return msgspec.structs.replace(self, live=None)

    def without_bulk(self) -> Scenario:
        """The same without jobs."""
        return msgspec.structs.replace(self, bulk=msgspec.structs.replace(self.bulk, jobs=()))
