"""How long live work waits because the live lanes run batches of other work."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPlan
from penstock_server.runtime.lanes import Lane


class Intrusions:
    """Live work that arrived while no live lane was without a batch that holds no live rows.

    Bulk gets its minimum share, and late FLEX work its turn, on the live lanes; this is the price. Batches of
    a lane run in the order in which they are given to it. Owned by the event loop.

    Args:
        lanes: All lanes; those of other kinds are left out.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        live = [lane.name for lane in lanes if lane.kind is LaneKind.LIVE]
        # For each batch in a lane, what arrived while it ran; None if it has live rows.
        self._batches: dict[str, deque[list[int] | None]] = {name: deque() for name in live}

    def batch_starts(self, lane: Lane, plan: BatchPlan) -> None:
        """Hears that a lane starts a batch, or starts it when those before it have ended."""
        batches = self._batches.get(lane.name)
        if batches is not None:
            is_bulk = all(part.work.request_class > RequestClass.LIVE for part in plan.parts)
            batches.append([] if is_bulk else None)

    def live_arrived(self, now_ns: int) -> None:
        """Hears that live work was admitted."""
        running = self._running()
        if len(running) == len(self._batches):
            for arrivals in running:
                arrivals.append(now_ns)

    def batch_ended(self, lane: Lane, end_ns: int) -> list[int]:
        """Hears that a lane's batch has ended or failed; returns how long each live work had waited."""
        batches = self._batches.get(lane.name)
        arrivals = batches.popleft() if batches else None
        if not arrivals:
            return []
        # Whoever waited for this lane waits for no other one.
        for others in self._running():
            others.clear()
        return [max(0, end_ns - arrival_ns) for arrival_ns in arrivals]

    def _running(self) -> list[list[int]]:
        """What arrived during each batch without live rows that runs on a live lane."""
        return [batches[0] for batches in self._batches.values() if batches and batches[0] is not None]
