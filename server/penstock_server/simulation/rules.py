"""What checkers know of a run beside its record: the limits that were promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock_server.domain.lane import LaneKind


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken promise: when, and what."""

    at_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits that hold in a run.

    Attributes:
        batch_tokens_max: Padded tokens of a batch of several rows, by the lane that asked for it.
        bulk_share: Part of the live lane's time that waiting bulk work gets at least; 0 for none.
        bulk_unit_ns: What the largest bulk batch would cost the live lane.
        late_share_max: Part of the admitted live calls that may be late.
        edge_ns: What passes between the last row's output and the answer.
        gap_ns: What a live batch costs beside its computing.
        margin_ns: Live rows are due this much before their deadline.
        block_ns: What a bulk batch of several rows may take on a serial lane; None where there is none.
        bind_ahead_ns: How long before the likely end of a batch the next one is chosen there.
        quantum_ns: Device time that a tenant may be ahead of its share, over its weight.
    """

    batch_tokens_max: Mapping[LaneKind, int]
    bulk_share: float
    bulk_unit_ns: float
    late_share_max: float
    edge_ns: int
    gap_ns: int
    quantum_ns: int
    margin_ns: int = 0
    block_ns: int | None = None
    bind_ahead_ns: int = 0
