"""Identical rows in flight are computed once.

Between the dispatcher and the scheduler: a row that is the same as one that waits, or is being computed, is
not queued but follows it, and gets its outputs. If the row that it follows is dropped, the first follower
takes its place, with its own deadline; nothing is lost and nothing is answered twice.

What a row follows must be no worse for it than waiting itself: a row of its own tenant, of no lower class and
with no later deadline, or one that the live lane computes already. A row on a bulk lane may take any time,
and a row of a tenant that floods the server waits behind that tenant's others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from penstock_server.domain.errors import PenstockError
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchPart, Work
from penstock_server.scheduling.admission import already_late

# Works of more rows are not looked at: rows of a list seldom repeat, and each costs about a microsecond.
ROWS_MAX = 64

# The bytes themselves, not a hash of them: Python's own is keyed and takes 0.2 us for 128 tokens, blake2b 0.8
# (measured 2026-11-24); and equal keys are equal rows. All of sharing takes 3 us for a request of one row.
RowKey: TypeAlias = tuple[ModelKey, bytes, bytes]


class Admission(Protocol):
    """What is asked of the scheduler."""

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy = OverloadPolicy.REJECT) -> None:
        """Queues work or raises a PenstockError."""

    def cancel(self, work: Work) -> None:
        """Drops the rows of a work that wait."""


@dataclass(frozen=True, slots=True)
class Follower:
    """A row that gets another row's outputs; ``place`` is where that one stands in its part of the batch."""

    work: Work
    row: int
    place: int = 0


class _Group:
    """A row that is queued or computed, and the rows that follow it. Made for each row, so no dataclass."""

    __slots__ = ("followers", "is_in_batch", "is_on_live_lane", "key", "leader", "row")

    def __init__(self, key: RowKey, leader: Work, row: int) -> None:
        self.key = key
        self.leader = leader
        self.row = row
        self.is_in_batch = False
        self.is_on_live_lane = False
        self.followers: list[tuple[Work, int]] = []


class _Member:
    """What a work's rows are to others.

    Attributes:
        led: Rows that are queued or computed.
        followed: Rows that follow another.
        substitutes: Works of a row each that were queued in the place of a row that was followed.
        parent: The work that this one is a substitute of.
    """

    __slots__ = ("followed", "led", "parent", "substitutes")

    def __init__(self, parent: Work | None = None) -> None:
        self.led: dict[int, _Group] = {}
        self.followed: dict[int, _Group] = {}
        self.substitutes: list[Work] = []
        self.parent = parent


class RowSharing:
    """Who follows whom. Owned by the event loop.

    Args:
        admission: The scheduler.
        is_on: Whether rows are shared at all.
        on_queued: Called when a follower was queued in the place of a row that was dropped.
    """

    def __init__(
        self, admission: Admission, *, is_on: bool = True, on_queued: Callable[[], None] = lambda: None
    ) -> None:
        self._admission = admission
        self._on_queued = on_queued
        self._rows_max = ROWS_MAX if is_on else 0
        self._groups: dict[RowKey, _Group] = {}
        self._members: dict[Work, _Member] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept, as it must be when no work is in flight."""
        return not self._groups and not self._members

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy) -> int:
        """Queues those rows of a work that follow no other; returns how many do.

        ``work.rows`` are then the queued rows alone. Raises what the scheduler raises; nothing is kept then.
        """
        if len(work.rows) > self._rows_max or work.request_class is RequestClass.BULK:
            self._admission.admit(work, now_ns, overload)
            return 0
        member = _Member()
        own: dict[RowKey, _Group] = {}
        for row, key in _keys_of(work):
            group = own.get(key) or self._groups.get(key)
            if group is None or not (group.leader is work or _may_follow(work, group)):
                group = own[key] = _Group(key, work, row)
                member.led[row] = group
            else:
                member.followed[row] = group
        self._admit_led(work, member, now_ns, overload)
        # Only now: a refused work leaves nothing behind.
        self._members[work] = member
        self._groups.update(own)
        for row, group in member.followed.items():
            group.followers.append((work, row))
        return len(member.followed)

    def started(self, parts: Iterable[BatchPart], lane: LaneKind) -> None:
        """Hears that a lane starts a batch."""
        for part in parts:
            member = self._members.get(part.work)
            if member is not None:
                for row in part.rows.tolist():
                    group = member.led.get(row)
                    if group is not None:
                        group.is_in_batch = True
                        group.is_on_live_lane = lane is LaneKind.LIVE

    def settled(self, part: BatchPart) -> list[Follower]:
        """Hears that rows have their outputs, or have failed for good; returns the rows that share that.

        An engine fails a row for what it holds, so that identical ones would fail again.
        """
        followers: list[Follower] = []
        for place, group in self._leave(part):
            for work, row in group.followers:
                self._end_following(work, row)
                followers.append(Follower(work, row, place))
        return followers

    def dropped(self, part: BatchPart, now_ns: int) -> list[tuple[Follower, PenstockError]]:
        """Hears that rows will not be computed; the first follower of each takes its place.

        Returns:
            Followers that the scheduler refuses in that place, with its reason.
        """
        refused: list[tuple[Follower, PenstockError]] = []
        for _, group in self._leave(part):
            refused += self._succeed(group, now_ns)
        return refused

    def cancel(self, work: Work, now_ns: int) -> list[tuple[Follower, PenstockError]]:
        """Drops the rows of a work that wait or follow; those in a batch go on if others follow them.

        Returns:
            As ``dropped``.
        """
        if len(work.rows):
            self._admission.cancel(work)
        work.cancelled = True
        member = self._members.pop(work, None)
        if member is None:
            return []
        refused: list[tuple[Follower, PenstockError]] = []
        for row, group in member.followed.items():
            group.followers.remove((work, row))
        for substitute in member.substitutes:
            refused += self.cancel(substitute, now_ns)
        kept = {row: group for row, group in member.led.items() if group.is_in_batch and group.followers}
        if kept:
            rest = self._members[work] = _Member(member.parent)
            rest.led = kept
        self._drop_if_done(member.parent)
        for row, group in member.led.items():
            if row not in kept:
                self._forget(group)
                refused += self._succeed(group, now_ns)
        return refused

    def _admit_led(self, work: Work, member: _Member, now_ns: int, overload: OverloadPolicy) -> None:
        if not member.followed:
            self._admission.admit(work, now_ns, overload)
        elif member.led:
            rows, work.rows = work.rows, np.fromiter(member.led, np.int32, len(member.led))
            try:
                self._admission.admit(work, now_ns, overload)
            except PenstockError:
                work.rows = rows
                raise
        elif work.deadline_ns is not None and work.deadline_ns <= now_ns:
            raise already_late()
        else:
            work.rows = np.empty(0, np.int32)

    def _leave(self, part: BatchPart) -> list[tuple[int, _Group]]:
        """Takes rows that are led no longer out of the books."""
        member = self._members.get(part.work)
        if member is None:
            return []
        left: list[tuple[int, _Group]] = []
        for place, row in enumerate(part.rows.tolist()):
            group = member.led.pop(row, None)
            if group is not None:
                self._forget(group)
                left.append((place, group))
        self._drop_if_done(part.work)
        return left

    def _succeed(self, group: _Group, now_ns: int) -> list[tuple[Follower, PenstockError]]:
        """Queues the first follower that the scheduler takes, in the place of a row that was dropped."""
        refused: list[tuple[Follower, PenstockError]] = []
        waiting = group.followers
        while waiting:
            work, row = waiting.pop(0)
            substitute = _substitute_of(work, row)
            try:
                self._admission.admit(substitute, now_ns)
            except PenstockError as err:
                self._end_following(work, row)
                refused.append((Follower(work, row), err))
                continue
            successor = _Group(group.key, substitute, row)
            successor.followers = waiting
            self._take_over(successor, work)
            self._on_queued()
            return refused
        return refused

    def _take_over(self, group: _Group, work: Work) -> None:
        """Puts a follower's substitute in the books as the leader of the followers that are left."""
        member = self._members[work]
        del member.followed[group.row]
        member.substitutes.append(group.leader)
        substitute = self._members[group.leader] = _Member(work)
        substitute.led[group.row] = group
        self._groups.setdefault(group.key, group)
        for follower, row in group.followers:
            self._members[follower].followed[row] = group

    def _end_following(self, work: Work, row: int) -> None:
        member = self._members[work]
        del member.followed[row]
        self._drop_if_done(work)

    def _drop_if_done(self, work: Work | None) -> None:
        """Forgets a work that nothing is kept of, and then perhaps the one that it is a substitute of."""
        member = None if work is None else self._members.get(work)
        if work is None or member is None or member.led or member.followed:
            return
        if not any(substitute in self._members for substitute in member.substitutes):
            del self._members[work]
            self._drop_if_done(member.parent)

    def _forget(self, group: _Group) -> None:
        if self._groups.get(group.key) is group:
            del self._groups[group.key]


def _keys_of(work: Work) -> list[tuple[int, RowKey]]:
    tokens = work.tokens
    ids, type_ids, model = tokens.ids, tokens.type_ids, work.model
    if tokens.rows == 1:
        return [(0, (model, ids.tobytes(), type_ids.tobytes()))]
    starts = tokens.starts.tolist()
    return [
        (
            row,
            (
                model,
                ids[starts[row] : starts[row + 1]].tobytes(),
                type_ids[starts[row] : starts[row + 1]].tobytes(),
            ),
        )
        for row in work.rows.tolist()
    ]


def _may_follow(work: Work, group: _Group) -> bool:
    """Whether following is no worse for a work's row than waiting itself."""
    leader = group.leader
    if group.is_on_live_lane:
        return True
    return (
        not leader.cancelled
        and leader.tenant == work.tenant
        and leader.request_class <= work.request_class
        and (
            work.deadline_ns is None
            or (leader.deadline_ns is not None and leader.deadline_ns <= work.deadline_ns)
        )
    )


def _substitute_of(work: Work, row: int) -> Work:
    """A work of one row, whose outputs go to another work's sink."""
    return Work(
        model=work.model,
        request_class=work.request_class,
        tokens=work.tokens,
        rows=np.array([row], np.int32),
        sink=work.sink,
        arrival_ns=work.arrival_ns,
        deadline_ns=work.deadline_ns,
        runs=work.runs,
        tenant=work.tenant,
        flow=work.flow,
        weight=work.weight,
    )
