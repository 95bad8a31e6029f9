"""What a policy is to the simulator: the interface of the production scheduler."""

from __future__ import annotations

from typing import Protocol

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import OverloadPolicy
from penstock_server.domain.work import BatchPlan, BatchTimes, Work
from penstock_server.scheduling.scheduler import Decision


class Policy(Protocol):
    """Decides which rows make the next batch."""

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy) -> None:
        """Queues work or raises a PenstockError; may lower its class."""
        ...

    def plan(self, lane: LaneKind, now_ns: int) -> Decision:
        """The next batch of a lane, and rows that are given up."""
        ...

    def complete(self, lane: LaneKind, plan: BatchPlan, times: BatchTimes) -> None:
        """Hears of a batch that has run."""
        ...

    def cancel(self, work: Work) -> None:
        """Drops rows that are in no batch yet."""
        ...

    def choice_ns(self, now_ns: int) -> int | None:
        """When a serial lane that runs a batch should ask for the next one; None for once it is idle."""
        ...

    def wake_ns(self, now_ns: int) -> int | None:
        """When a lane without a batch should ask again though nothing arrives; None for never."""
        ...
