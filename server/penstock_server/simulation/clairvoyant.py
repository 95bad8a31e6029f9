"""How many calls could be answered in time by somebody who knows all that will come."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from penstock_server.simulation.arrivals import Call
from penstock_server.simulation.costs import LaneCosts

Times = NDArray[np.float64]


def on_time_at_most(calls: Iterable[Call], costs: LaneCosts, batch_tokens_max: int) -> int:
    """Bounds the calls that any policy can answer in time on the live lane, from above.

    Each row costs what it costs in the batch where it is cheapest, calls may be interrupted, and a call has
    at least the deadline of every call that came before it. There deadlines come in the order of
    arrivals, and the algorithm of Kise, Ibaraki and Mine (Operations Research 26, 1978) is exact: take
    calls in order, and whenever one would be late leave out the one whose absence helps most.

    Args:
        calls: With deadlines, in order of arrival.
        costs: True median durations.
        batch_tokens_max: Largest batch, in padded tokens.
    """
    found = [call for call in calls if call.deadline_ns is not None]
    if not found:
        return 0
    cheapest: dict[int, float] = {}
    for length in {int(length) for call in found for length in call.lengths}:
        cheapest[length] = costs.live.cheapest_row_ns(length, batch_tokens_max)
    release = np.array([call.arrival_ns for call in found], np.float64)
    deadline = np.maximum.accumulate(np.array([call.deadline_ns for call in found], np.float64))
    work = np.array([sum(cheapest[int(length)] for length in call.lengths) for call in found])
    return _on_time(release, deadline, work)


def _on_time(release: Times, deadline: Times, work: Times) -> int:
    """Most jobs in time, of jobs whose releases and deadlines are in the same order; O(n^2) at worst."""
    kept = 0
    period = _BusyPeriod(0.0)
    for begin_ns, due_ns, work_ns in zip(release.tolist(), deadline.tolist(), work.tolist(), strict=True):
        if begin_ns >= period.free_ns:
            period = _BusyPeriod(begin_ns)
        period.add(begin_ns, work_ns)
        kept += 1
        if period.free_ns > due_ns:
            period.leave_one_out()
            kept -= 1
    return kept


class _BusyPeriod:
    """Jobs that run one after the other: when each ends, and how much earlier it could have begun."""

    def __init__(self, begin_ns: float) -> None:
        self._begin_ns = begin_ns
        self._ends = np.empty(0)
        self._slack = np.empty(0)

    @property
    def free_ns(self) -> float:
        """When the last job ends."""
        return float(self._ends[-1]) if len(self._ends) else self._begin_ns

    def add(self, release_ns: float, work_ns: float) -> None:
        """Adds a job behind the others."""
        start_ns = max(release_ns, self.free_ns)
        self._ends = np.append(self._ends, start_ns + work_ns)
        self._slack = np.append(self._slack, start_ns - release_ns)

    def leave_one_out(self) -> None:
        """Leaves out the job whose absence lets the last one end earliest."""
        room = np.diff(self._ends, prepend=self._begin_ns)
        later = np.append(np.minimum.accumulate(self._slack[:0:-1])[::-1], np.inf)
        out = int(np.argmax(np.minimum(room, later)))
        shifts = np.minimum.accumulate(np.append(room[out], self._slack[out + 1 :]))[1:]
        self._ends[out + 1 :] -= shifts
        self._slack[out + 1 :] -= shifts
        self._ends = np.delete(self._ends, out)
        self._slack = np.delete(self._slack, out)
