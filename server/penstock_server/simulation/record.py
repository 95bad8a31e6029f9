"""What happened in a run, event by event: all that metrics and checkers know of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import RequestClass
from penstock_server.simulation.arrivals import Call


@dataclass(slots=True, eq=False)
class WorkRecord:
    """What became of one call or window.

    Attributes:
        number: Its place in the order of submission.
        order: Its place among all events; two at the same time are told apart by it.
        call: What was asked for.
        submitted_ns: When it reached the scheduler.
        served_class: The class it was admitted in; None if it was refused.
        refusal: The reason of the refusal, or empty.
        cancelled_ns, cancelled_order: When its caller went away, also as a place among all events.
        answered: How often each row was delivered; int32 ``[rows]``.
        failed: How often each row was failed; int32 ``[rows]``.
        done_ns: When its last row was answered or failed.
    """

    number: int
    order: int
    call: Call
    submitted_ns: int
    served_class: RequestClass | None = None
    refusal: str = ""
    cancelled_ns: int | None = None
    cancelled_order: int | None = None
    answered: NDArray[np.int32] = field(init=False)
    failed: NDArray[np.int32] = field(init=False)
    done_ns: int | None = None

    def __post_init__(self) -> None:
        self.answered = np.zeros(len(self.call.lengths), np.int32)
        self.failed = np.zeros(len(self.call.lengths), np.int32)

    @property
    def rows(self) -> int:
        """Rows asked for."""
        return len(self.call.lengths)

    @property
    def is_admitted(self) -> bool:
        """Whether the scheduler took it."""
        return self.served_class is not None

    @property
    def is_answered(self) -> bool:
        """Whether every row was delivered."""
        return bool((self.answered > 0).all())

    @property
    def is_demoted(self) -> bool:
        """Whether it was admitted in a lower class than it asked for."""
        return self.served_class is not None and self.served_class > self.call.request_class

    @property
    def is_live(self) -> bool:
        """Whether it was admitted as LIVE_CRITICAL or LIVE."""
        return self.served_class is not None and self.served_class <= RequestClass.LIVE


@dataclass(frozen=True, slots=True, eq=False)
class PartRecord:
    """Rows of one work in a batch."""

    work: WorkRecord
    rows: NDArray[np.int32]

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.work.call.lengths[self.rows].sum())


@dataclass(slots=True, eq=False)
class BatchRecord:
    """One batch.

    Attributes:
        lane: Name of the lane that ran it.
        kind: What the lane asked for when it was planned.
        planned_ns: When it was planned.
        order: Its planning's place among all events.
        parts: Whose rows.
        rows, padded_length, tokens: Its shape.
        predicted_ns: What the scheduler thought it would take at most; None if it told nothing.
        live_cost_ns: What it costs on the live lane, by the true table without noise.
        start_ns, end_ns: When it ran; -1 if it never did.
        heard_ns: When the policy heard of its end and its rows were answered; -1 if they never were.
        busy_ns: What it computed for; less than ``end_ns - start_ns`` where it was preempted.
        cores: Cores it kept busy.
    """

    lane: str
    kind: LaneKind
    planned_ns: int
    order: int
    parts: tuple[PartRecord, ...]
    rows: int
    padded_length: int
    tokens: int
    predicted_ns: int | None
    live_cost_ns: float
    start_ns: int = -1
    end_ns: int = -1
    heard_ns: int = -1
    busy_ns: int = 0
    cores: float = 1.0

    @property
    def is_done(self) -> bool:
        """Whether it ran to its end."""
        return self.end_ns >= 0

    @property
    def live_part(self) -> float:
        """Part of its tokens that are of live work."""
        return sum(part.tokens for part in self.parts if part.work.is_live) / self.tokens

    @property
    def is_bulk(self) -> bool:
        """Whether no row of it is of live work."""
        return not any(part.work.is_live for part in self.parts)


@dataclass(frozen=True, slots=True, eq=False)
class FailureRecord:
    """Rows that were given up; ``order`` is their place among all events."""

    at_ns: int
    order: int
    part: PartRecord


@dataclass(frozen=True, slots=True)
class LaneRecord:
    """A lane of the simulated machine and what it may be asked for."""

    name: str
    kinds: tuple[LaneKind, ...]
    slots: int


@dataclass(slots=True)
class Record:
    """A whole run.

    Attributes:
        lanes: The machine.
        works: All that was submitted, in order.
        batches: All that was planned, in order.
        failures: Rows that were given up, in order.
        end_ns: When the last thing happened.
        orders: How many events there were.
    """

    lanes: tuple[LaneRecord, ...] = ()
    works: list[WorkRecord] = field(default_factory=list[WorkRecord])
    batches: list[BatchRecord] = field(default_factory=list[BatchRecord])
    failures: list[FailureRecord] = field(default_factory=list[FailureRecord])
    end_ns: int = 0
    orders: int = 0

    def next_order(self) -> int:
        """A place among all events for the next one."""
        self.orders += 1
        return self.orders
