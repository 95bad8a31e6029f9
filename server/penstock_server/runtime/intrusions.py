"""How long live work waits because the live lanes run batches of other work."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPlan
from penstock_server.runtime.lanes import Lane


class Intrusions:
    """Live work that arrived while no live lane was without a batch that holds no live rows.

    Bulk gets its minimum share, and late FLEX work its turn, on the live lanes; this is the price. Owned by
    the event loop.

    Args:
        lanes: All lanes; those of other kinds are left out.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._live_lanes = sum(lane.kind is LaneKind.LIVE for lane in lanes)
        self._arrivals: dict[str, list[int]] = {}

    def batch_starts(self, lane: Lane, plan: BatchPlan) -> None:
        """Hears that a lane starts a batch."""
        self._arrivals.pop(lane.name, None)
        if lane.kind is LaneKind.LIVE and all(
            part.work.request_class > RequestClass.LIVE for part in plan.parts
        ):
            self._arrivals[lane.name] = []

    def live_arrived(self, now_ns: int) -> None:
        """Hears that live work was admitted."""
        if self._arrivals and len(self._arrivals) == self._live_lanes:
            for arrivals in self._arrivals.values():
                arrivals.append(now_ns)

    def batch_ended(self, lane: Lane, end_ns: int) -> list[int]:
        """Hears that a lane's batch has ended; returns how long each live work had waited for that."""
        arrivals = self._arrivals.pop(lane.name, None)
        if not arrivals:
            return []
        # Whoever waited for this lane waits for no other one.
        for others in self._arrivals.values():
            others.clear()
        return [max(0, end_ns - arrival_ns) for arrival_ns in arrivals]
