"""Who goes next: the most urgent of those who are not ahead of their share."""

from __future__ import annotations

import heapq
from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

# What orders work: the least goes first.
Urgency: TypeAlias = tuple[object, ...]

# Entries of members that have moved on stay in the heaps until they are half of all, and this many at least.
_DEAD_MAX = 64


@dataclass(eq=False, slots=True)
class Turn:
    """A member's part in a `FairOrder`, which alone changes it.

    Attributes:
        weight: Its share against other members.
        virtual_ns: Cost of what it has had, over its weight.
        urgency: Of its most urgent work; None while nothing waits.
        stamp: Tells its present entries in the heaps from earlier ones.
    """

    weight: float
    virtual_ns: float = 0.0
    urgency: Urgency | None = None
    stamp: int = 0


class Member(Protocol):
    """Somebody who waits for a turn."""

    @property
    def turn(self) -> Turn:
        """Its part in the order."""
        ...


M = TypeVar("M", bound=Member)


class FairOrder(Generic[M]):
    """Members share by weight, and among those whose turn it is the most urgent goes first.

    A member's virtual time grows with the cost of what it has had over its weight. It is a member's turn
    while it is at most ``quantum_ns`` ahead of the last one. Everything is O(log members), amortised: members
    whose turn it is stand in a heap by urgency, the others in one by virtual time, from which they move as
    the last one gets on; the last one's time never falls.
    """

    def __init__(self, quantum_ns: int) -> None:
        self._quantum_ns = quantum_ns
        self._by_time: list[tuple[float, int, int, M]] = []
        self._later: list[tuple[float, int, int, M]] = []
        self._ready: list[tuple[Urgency, int, int, M]] = []
        self._pushed = 0
        self._members = 0
        self.floor_ns = 0.0

    def charge(self, member: M, cost_ns: float) -> None:
        """Charges a member; `settle` must follow."""
        member.turn.virtual_ns += cost_ns / member.turn.weight

    def settle(self, member: M, urgency: Urgency | None) -> None:
        """Hears of a member's most urgent work, or that nothing of it waits, after either has changed."""
        turn = member.turn
        if turn.urgency is None:
            # Whoever has had nothing to do has no claim to the time that it did not want.
            turn.virtual_ns = max(turn.virtual_ns, self.floor_ns)
        self._members += (urgency is not None) - (turn.urgency is not None)
        turn.urgency = urgency
        turn.stamp += 1
        if urgency is None:
            return
        self._pushed += 1
        heapq.heappush(self._by_time, (turn.virtual_ns, self._pushed, turn.stamp, member))
        if turn.virtual_ns <= self.floor_ns + self._quantum_ns:
            heapq.heappush(self._ready, (urgency, self._pushed, turn.stamp, member))
        else:
            heapq.heappush(self._later, (turn.virtual_ns, self._pushed, turn.stamp, member))
        entries = len(self._by_time) + len(self._later) + len(self._ready)
        if entries > 4 * self._members + _DEAD_MAX:
            self._tidy()

    def choose(self) -> M | None:
        """The member whose work goes next; None if nothing waits."""
        self._advance()
        return self._ready[0][3] if self._ready else None

    def in_turn(self, count: int) -> Generator[M]:
        """Up to ``count`` members whose turn it is, most urgent first. Close it before anything changes."""
        lent: list[tuple[Urgency, int, int, M]] = []
        try:
            while len(lent) < count and self.choose() is not None:
                lent.append(heapq.heappop(self._ready))
                yield lent[-1][3]
        finally:
            for entry in lent:
                heapq.heappush(self._ready, entry)

    def _advance(self) -> None:
        """Brings the floor up to the last member, and the heaps with it."""
        by_time, later, ready = self._by_time, self._later, self._ready
        while by_time and by_time[0][2] != by_time[0][3].turn.stamp:
            heapq.heappop(by_time)
        if by_time and by_time[0][0] > self.floor_ns:
            self.floor_ns = by_time[0][0]
        limit_ns = self.floor_ns + self._quantum_ns
        while later and (later[0][0] <= limit_ns or later[0][2] != later[0][3].turn.stamp):
            _, number, stamp, member = heapq.heappop(later)
            urgency = member.turn.urgency
            if stamp == member.turn.stamp and urgency is not None:
                heapq.heappush(ready, (urgency, number, stamp, member))
        while ready and ready[0][2] != ready[0][3].turn.stamp:
            heapq.heappop(ready)

    def _tidy(self) -> None:
        self._by_time = [entry for entry in self._by_time if entry[2] == entry[3].turn.stamp]
        self._later = [entry for entry in self._later if entry[2] == entry[3].turn.stamp]
        self._ready = [entry for entry in self._ready if entry[2] == entry[3].turn.stamp]
        heapq.heapify(self._by_time)
        heapq.heapify(self._later)
        heapq.heapify(self._ready)
