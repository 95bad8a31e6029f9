"""Bounds and weights of the scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What a tenant gets.

    Attributes:
        weight: Share of the lanes' time against other tenants that want it, above 0.
        tokens_per_s: Tokens that it may submit in the long run, but for rows of jobs; infinite for no limit.
        burst_tokens: Tokens that it may submit at once after a pause.
        queue_tokens_max: Its tokens that may wait, but for rows of jobs; None for as many as the queues hold.
    """

    weight: float = 1.0
    tokens_per_s: float = math.inf
    burst_tokens: float = math.inf
    queue_tokens_max: int | None = None


@dataclass(frozen=True, slots=True)
class SerialLimits:
    """A live lane that is the only one: live and bulk batches run on it one after the other, as on a GPU.

    Attributes:
        block_ns: Most predicted time of a batch of bulk rows alone, but for a single row's: what a live call
            may have to wait for. Chosen: as long as a full live batch of MiniLM on two cores.
        fill_ns_max: Most predicted time up to which live batches are filled with bulk rows, whatever their
            deadlines allow, which is half of the time until then. Chosen: twice ``block_ns``.
        bind_ahead_ns: The next batch is chosen this much before the likely end of the one that runs: what
            packing and handing over take, so that the device does not wait. Live calls that come later wait
            for a batch more.
    """

    block_ns: int = 20_000_000
    fill_ns_max: int = 40_000_000
    bind_ahead_ns: int = 300_000


# A short batch of a bulk lane may have so many times the tokens that others have.
SHORT_BATCH_BUDGETS = 4


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Bounds of the queues and batches.

    Tokens of a batch are counted with padding: rows times the longest. A single row may exceed the budget.

    Attributes:
        live_tokens_max: LIVE_CRITICAL and LIVE tokens that may wait, each.
        flex_tokens_max: FLEX tokens that may wait.
        bulk_tokens_max: BULK tokens that may wait.
        live_batch_tokens_max: Most tokens of a live batch; the cost table says how many of them pay.
        bulk_batch_tokens: Likewise of a bulk batch, but for short ones on a bulk lane.
        bulk_short_ns: Up to this time a batch of a bulk lane is short. What each takes of the event loop
            beside the lane counts there, so it may have `SHORT_BATCH_BUDGETS` times the tokens.
        lookahead_rows: How many works past the head are looked at to fill a bulk batch.
        live_margin_ns: Live rows are due this much before their deadline, for what follows the batch: an
            answer's head, encoding and way through the event loop (about a millisecond at p99), twice.
        live_batch_ns_max: Most time, predicted, of a live batch of several rows; None for no other bound.
        batch_efficiency: A live batch is full once a row in it costs at most what it costs in the best batch,
            over this. More would wait longer to win less than the noise of measurements.
        bulk_share: Part of the live lane's time that FLEX and BULK get though live work waits.
        bulk_beside_flex: Part of the time of FLEX and BULK that BULK gets though FLEX waits. Chosen: FLEX
            hardly feels it, and a job that takes an hour takes ten, not for ever.
        quantum_ns: Device time that a tenant or job may be ahead of its share of the others, over its weight:
            room to compute by deadline and to fill batches. About a full live batch of MiniLM on two cores.
        serial: Makes the live lane run bulk work, too; None where there are bulk lanes beside it.
        tenant: Policy of tenants that have none of their own.
        tenants: Policies by tenant.
    """

    live_tokens_max: int
    flex_tokens_max: int
    bulk_tokens_max: int
    live_batch_tokens_max: int
    bulk_batch_tokens: int
    lookahead_rows: int
    bulk_short_ns: int = 0
    live_margin_ns: int = 2_000_000
    live_batch_ns_max: int | None = None
    batch_efficiency: float = 0.97
    bulk_share: float = 0.02
    bulk_beside_flex: float = 0.1
    quantum_ns: int = 20_000_000
    serial: SerialLimits | None = None
    tenant: TenantPolicy = TenantPolicy()
    tenants: Mapping[str, TenantPolicy] = field(default_factory=dict[str, TenantPolicy])
