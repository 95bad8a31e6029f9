"""Plain Python twin of the live queue: its specification, and what runs without a compiler.

Rows wait in units, which are planned batches. The units, run in order at their upper costs, all end in time:
``admit`` keeps that true, and ``take`` leaves the order only as far as the slack allows. See
``penstock/live_queue.h`` for the reasons.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.reference_schedule import NEVER, CostGridView, DeadlineTree, ScheduleKey

_ADMITTED, _UNMEETABLE, _LATE, _HARMFUL, _OVER_SHARE = range(5)
_ROWS_PLACED_ONE_BY_ONE = 8
_LONGER_UNITS = 8
_SHORTER_UNITS = 2
_MERGED_LOOKAHEAD = 16
_LAST_SEQUENCE = (1 << 63) - 1

LeavingPart = tuple[Hashable, NDArray[np.int32]]


@dataclass(eq=False, slots=True)
class _Tenant:
    weight: float
    virtual_ns: float = 0.0
    rows: int = 0
    queue: DeadlineTree = field(default_factory=DeadlineTree)


@dataclass(eq=False, slots=True)
class _Work:
    """A work with its rows that wait. ``units`` may name units that its rows have left."""

    owner: Hashable
    model: int
    request_class: int
    tenant: int
    urgency_ns: int
    deadline_ns: int
    sequence: int
    sorted_rows: list[tuple[int, int]]
    rows: int = 0
    tokens: int = 0
    units: list[_Unit] = field(default_factory=list["_Unit"])

    @property
    def rank(self) -> int:
        return 0 if self.request_class == 1 else 1

    @property
    def queue_key(self) -> ScheduleKey:
        return (0, self.deadline_ns, self.sequence)


@dataclass(eq=False, slots=True)
class _Unit:
    """A planned batch. Members are (work, row, length); its turn is that of ``tenant``."""

    key: ScheduleKey
    model: int
    tenant: int
    rows_full: int
    tag: float
    reserve: float
    padded_length: int = 0
    cost_ns: int = 0
    members: list[tuple[_Work, int, int]] = field(default_factory=list[tuple[_Work, int, int]])

    @property
    def is_open(self) -> bool:
        return len(self.members) < self.rows_full


class LiveQueue:
    """The queue of a serial lane as a schedule that is kept feasible.

    Args:
        batch_tokens_max: Rows times padded length of a batch; a longer single row runs alone.
        efficiency: A batch is full once its cost a row is within this of the best, above 0, at most 1.
        margin_ns: Rows are due this much before their deadline.
        quantum_ns: How far a tenant's virtual time may run ahead of the last one's.
        reserve: Share of a batch's time that is kept free after it, until ``set_reserve`` changes it.

    Raises:
        ValueError: A limit is out of range.
    """

    def __init__(
        self,
        batch_tokens_max: int,
        *,
        efficiency: float,
        margin_ns: int,
        quantum_ns: int,
        reserve: float,
    ) -> None:
        if batch_tokens_max < 1 or not 0 < efficiency <= 1 or margin_ns < 0 or quantum_ns < 0:
            raise ValueError("batch_tokens_max and efficiency must be positive, times not negative")
        _check_reserve(reserve)
        self._batch_tokens_max = batch_tokens_max
        self._efficiency = efficiency
        self._margin_ns = margin_ns
        self._quantum_ns = quantum_ns
        self._reserve = reserve
        self._batch_cost_max_ns = NEVER
        self._grids: list[CostGridView] = []
        self._tenants: list[_Tenant] = []
        self._works: dict[Hashable, _Work] = {}
        self._units: dict[ScheduleKey, _Unit] = {}
        self._schedule = DeadlineTree()
        self._sequence = 0
        self._virtual_floor_ns = 0.0
        self._turn_limit_ns = 0.0

    def __len__(self) -> int:
        return len(self._works)

    def __contains__(self, owner: Hashable) -> bool:
        return owner in self._works

    def add_model(
        self, row_points: NDArray[np.int32], length_points: NDArray[np.int32], upper_ns: NDArray[np.float64]
    ) -> int:
        """Takes a model version's costs, which may change in place; returns its index."""
        self._grids.append(CostGridView(row_points, length_points, upper_ns))
        return len(self._grids) - 1

    def add_tenant(self, weight: float) -> int:
        """Takes a tenant; returns its index."""
        _check_weight(weight)
        self._tenants.append(_Tenant(weight))
        return len(self._tenants) - 1

    def set_weight(self, tenant: int, weight: float) -> None:
        """Changes a tenant's weight from now on."""
        _check_weight(weight)
        self._tenant(tenant).weight = weight

    def set_batch_cost_max(self, cost_ns: int) -> None:
        """Bounds the upper cost of batches of more than one row."""
        self._batch_cost_max_ns = cost_ns

    def set_reserve(self, reserve: float) -> None:
        """Changes the reserve from now on; units that wait keep theirs until ``reprice``."""
        _check_reserve(reserve)
        self._reserve = reserve

    def admit(
        self,
        owner: Hashable,
        model: int,
        request_class: int,
        tenant: int,
        urgency_ns: int,
        deadline_ns: int,
        starts: NDArray[np.int64],
        rows: NDArray[np.int32],
        now_ns: int,
        free_ns: int,
        share: float,
        others: float,
    ) -> tuple[int, int, int]:
        """Takes work if all that waits stays in time, at upper costs.

        Args:
            owner: Names the work when its rows leave.
            model: Index of its model version.
            request_class: 1 to 4; class 1 runs before all others.
            tenant: Index of its tenant.
            urgency_ns: Orders the schedule.
            deadline_ns: Of the rows; NEVER for none.
            starts: int64; as in TokenRows.
            rows: int32 indices into ``starts``, at least one.
            now_ns: The time.
            free_ns: When the lane is free, at least ``now_ns``.
            share: Of the lane's time until the deadline that is the tenant's in any case; 1 or more: all.
            others: Of that time what other tenants use.

        Returns:
            (verdict, shortage in ns if refused, cost in ns). Verdicts: 0 admitted, 1 too late even for an
            idle lane, 2 late, 3 makes others late, 4 over the tenant's share.

        Raises:
            ValueError: An index, array or share is wrong, or the owner's work waits already.
        """
        if not 0 <= model < len(self._grids) or not 1 <= request_class <= 4:
            raise ValueError(f"no model {model} or class {request_class}")
        if not share > 0 or not others >= 0:
            raise ValueError(f"shares must be positive, not {share} and {others}")
        self._tenant(tenant)
        if owner in self._works:
            raise ValueError("the work waits already")
        sorted_rows = _sorted_rows(starts, rows)
        work = _Work(
            owner, model, request_class, tenant, urgency_ns, deadline_ns, self._next_sequence(), sorted_rows
        )
        # What is kept free for others is no reason to say that an idle lane could not make it.
        alone_ns = self._cost_alone(work, 0.0)
        if now_ns + alone_ns > self._due(deadline_ns):
            return _UNMEETABLE, now_ns + alone_ns - self._due(deadline_ns), alone_ns
        shortage_ns = self._share_shortage(work, alone_ns, free_ns, (share, others))
        if shortage_ns is not None:
            return _OVER_SHARE, shortage_ns, alone_ns
        place = self._place_rows if len(sorted_rows) <= _ROWS_PLACED_ONE_BY_ONE else self._place_units
        verdict, shortage_ns, cost_ns = place(work, free_ns, others)
        if verdict != _ADMITTED:
            self._drop(work)
            return verdict, shortage_ns, alone_ns
        self._account(work, cost_ns)
        return _ADMITTED, 0, cost_ns

    def cancel(self, owner: Hashable) -> bool:
        """Removes a work's waiting rows; False if it has none."""
        work = self._works.get(owner)
        if work is None:
            return False
        self._drop(work)
        self._leave(work, work.rows, work.tokens)
        return True

    def expire(self, now_ns: int) -> list[LeavingPart]:
        """Removes all works whose deadline has passed."""
        late = [work for work in self._works.values() if work.deadline_ns <= now_ns]
        parts: list[LeavingPart] = []
        for work in sorted(late, key=lambda work: (work.deadline_ns, work.sequence)):
            rows = [row for unit in dict.fromkeys(work.units) for of, row, _ in unit.members if of is work]
            parts.append((work.owner, np.array(rows, np.int32)))
            self._drop(work)
            self._leave(work, work.rows, work.tokens)
        return parts

    def take(self, free_ns: int) -> tuple[int, int, int, int, int, list[LeavingPart]] | None:
        """Removes the next batch.

        Returns:
            (model, rows, padded length, tokens, upper cost in ns, parts), or None if nothing waits.
        """
        if not self._units:
            return None
        unit = self._choose(free_ns)
        self._put_off_riders(unit, free_ns)
        self._merge_others(unit, free_ns)
        unit.cost_ns = self._upper(unit, len(unit.members), unit.padded_length)
        self._charge(unit)
        parts = list(self._leaving(unit))
        tokens = sum(length for _, _, length in unit.members)
        del self._units[unit.key]
        self._schedule.erase(unit.key)
        return unit.model, len(unit.members), unit.padded_length, tokens, unit.cost_ns, parts

    def reprice(self) -> None:
        """Computes all costs anew, after those of a model have changed."""
        for unit in list(self._units.values()):
            unit.reserve = self._reserve
            self._settle(unit)

    def least_slack(self, free_ns: int) -> int:
        """Least slack of all that waits if the lane is free at ``free_ns``; NEVER if nothing waits."""
        if not self._units:
            return NEVER
        return self._schedule.least_slack_after((-1, 0, 0)) - free_ns

    def cost(self) -> int:
        """Upper cost of all that waits, with the reserve."""
        return self._schedule.total_cost()

    def waiting_rows(self, request_class: int) -> int:
        """Rows of a class that wait."""
        return sum(work.rows for work in self._works.values() if work.request_class == request_class)

    def waiting_tokens(self, request_class: int) -> int:
        """Tokens of a class that wait."""
        return sum(work.tokens for work in self._works.values() if work.request_class == request_class)

    def virtual_time(self, tenant: int) -> float:
        """Cost of all a tenant's rows that have left for a batch, over its weight."""
        return self._tenant(tenant).virtual_ns

    def queued_cost(self, tenant: int) -> int:
        """Cost of a tenant's rows that wait."""
        return self._tenant(tenant).queue.total_cost()

    def queued_tokens(self, tenant: int) -> int:
        """Tokens of a tenant's rows that wait."""
        self._tenant(tenant)
        return sum(work.tokens for work in self._works.values() if work.tenant == tenant)

    def _tenant(self, tenant: int) -> _Tenant:
        if not 0 <= tenant < len(self._tenants):
            raise ValueError(f"no tenant {tenant}")
        return self._tenants[tenant]

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    @staticmethod
    def _reserved(cost_ns: int, reserve: float) -> int:
        return cost_ns + int(float(cost_ns) * reserve)

    def _due(self, deadline_ns: int) -> int:
        return NEVER if deadline_ns >= NEVER else deadline_ns - self._margin_ns

    def _upper(self, unit: _Unit, rows: int, padded_length: int) -> int:
        return self._grids[unit.model].upper(rows, padded_length)

    def _rows_full(self, model: int, padded_length: int) -> int:
        grid = self._grids[model]
        fit = self._batch_tokens_max // max(padded_length, 1)
        most, least = grid.efficient_rows(padded_length, fit, self._efficiency), 1
        while least < most:
            middle = least + (most - least + 1) // 2
            if grid.upper(middle, padded_length) <= self._batch_cost_max_ns:
                least = middle
            else:
                most = middle - 1
        return least

    def _turn(self, tenant: int) -> float:
        """Where in virtual time a tenant's next row stands: after all that it has waiting."""
        owner = self._tenants[tenant]
        now = owner.virtual_ns if owner.rows else max(owner.virtual_ns, self._virtual_floor_ns)
        return now + float(owner.queue.total_cost()) / owner.weight

    def _cut(self, work: _Work) -> Iterator[tuple[int, int]]:
        """Cuts rows, longest first, into full units by themselves: (first, end)."""
        first = 0
        while first < len(work.sorted_rows):
            full = self._rows_full(work.model, work.sorted_rows[first][0])
            end = min(first + full, len(work.sorted_rows))
            yield first, end
            first = end

    def _cost_alone(self, work: _Work, reserve: float) -> int:
        grid = self._grids[work.model]
        return sum(
            self._reserved(grid.upper(end - first, work.sorted_rows[first][0]), reserve)
            for first, end in self._cut(work)
        )

    def _share_shortage(
        self, work: _Work, cost_ns: int, free_ns: int, shares: tuple[float, float]
    ) -> int | None:
        share, others = shares
        if share >= 1.0 or work.deadline_ns >= NEVER:
            return None
        queue = self._tenants[work.tenant].queue
        before_ns = queue.cost_before((0, work.deadline_ns, _LAST_SEQUENCE))
        queued_ns = before_ns + cost_ns
        if not before_ns or queued_ns <= self._quantum_ns:
            return None
        needed_ns = float(queued_ns) / share
        if others < 1.0:
            last = (work.rank, work.urgency_ns, _LAST_SEQUENCE)
            all_ns = max(self._schedule.cost_before(last), before_ns) + cost_ns + self._quantum_ns
            used_ns = (float(queued_ns) + float(self._quantum_ns)) / (1.0 - others)
            needed_ns = min(needed_ns, max(used_ns, float(all_ns)))
        window_ns = self._due(work.deadline_ns) - free_ns
        return None if needed_ns <= float(window_ns) else int(min(needed_ns, float(NEVER))) + 1 - window_ns

    def _judge(self, work: _Work, key: ScheduleKey, cost_ns: int, free_ns: int) -> tuple[int, int, int]:
        late_ns = free_ns + self._schedule.cost_before(key) + cost_ns - self._due(work.deadline_ns)
        if late_ns > 0:
            return _LATE, late_ns, cost_ns
        harm_ns = cost_ns - (self._schedule.least_slack_after(key) - free_ns)
        if harm_ns > 0:
            return _HARMFUL, harm_ns, cost_ns
        return _ADMITTED, 0, cost_ns

    def _place_rows(self, work: _Work, free_ns: int, others: float) -> tuple[int, int, int]:
        total_ns = 0
        for length, row in work.sorted_rows:
            verdict, shortage_ns, cost_ns = self._place_row(work, length, row, free_ns, others)
            if verdict != _ADMITTED:
                return verdict, shortage_ns, cost_ns
            total_ns += cost_ns
        return _ADMITTED, 0, total_ns

    def _place_row(
        self, work: _Work, length: int, row: int, free_ns: int, others: float
    ) -> tuple[int, int, int]:
        alone_ns = self._reserved(self._grids[work.model].upper(1, length), self._reserve)
        # Who goes ahead of its turn in a batch must leave others room to take theirs.
        kept_ns = self._quantum_ns if others > 0 else 0
        for added_ns, unit in self._joins(work, length, alone_ns):
            due_ns, cost_ns = self._schedule.item(unit.key)
            end_ns = self._schedule.cost_before(unit.key) + cost_ns
            slack_ns = min(
                self._due(work.deadline_ns) - end_ns,
                due_ns - end_ns,
                self._schedule.least_slack_after(unit.key),
            )
            room_ns = slack_ns - free_ns - (kept_ns if unit.key[1] < work.urgency_ns else 0)
            if room_ns >= added_ns:
                self._add_member(unit, work, row, length)
                return _ADMITTED, 0, added_ns
        key = (work.rank, work.urgency_ns, self._next_sequence())
        answer = self._judge(work, key, alone_ns, free_ns)
        if answer[0] == _ADMITTED:
            unit = self._new_unit(work.model, work.tenant, key, self._turn(work.tenant))
            self._add_member(unit, work, row, length)
        return answer

    def _joins(self, work: _Work, length: int, below_ns: int) -> list[tuple[int, _Unit]]:
        """Open units near a length where a row costs less than ``below_ns``: cheapest first, then latest."""
        open_units = sorted(
            (
                unit
                for unit in self._units.values()
                if unit.is_open and unit.model == work.model and unit.key[0] == work.rank
            ),
            key=lambda unit: (unit.padded_length, unit.key[2]),
        )
        middle = bisect_left(open_units, length, key=lambda unit: unit.padded_length)
        near = (
            open_units[middle : middle + _LONGER_UNITS] + open_units[max(0, middle - _SHORTER_UNITS) : middle]
        )
        tag = self._turn(work.tenant)
        joins: list[tuple[int, _Unit]] = []
        for unit in near:
            rows, padded = len(unit.members) + 1, max(unit.padded_length, length)
            if unit.tenant != work.tenant and not abs(tag - unit.tag) <= float(self._quantum_ns):
                continue
            if padded > unit.padded_length and rows > self._rows_full(unit.model, padded):
                continue
            reserved_ns = self._reserved(self._upper(unit, rows, padded), unit.reserve)
            added_ns = reserved_ns - self._schedule.item(unit.key)[1]
            if added_ns < below_ns:
                joins.append((added_ns, unit))
        joins.sort(key=lambda join: join[1].key, reverse=True)
        joins.sort(key=lambda join: join[0])
        return joins

    def _place_units(self, work: _Work, free_ns: int, others: float) -> tuple[int, int, int]:
        start = (work.rank, work.urgency_ns, self._sequence)
        answer = self._judge(work, start, self._cost_alone(work, self._reserve), free_ns)
        if answer[0] != _ADMITTED:
            return answer
        first_tag = self._turn(work.tenant)
        total_ns = 0
        for first, end in self._cut(work):
            tag = first_tag + float(total_ns) / self._tenants[work.tenant].weight
            key = (work.rank, work.urgency_ns, self._next_sequence())
            unit = self._new_unit(work.model, work.tenant, key, tag)
            for length, row in work.sorted_rows[first:end]:
                self._add_member(unit, work, row, length)
            total_ns += self._schedule.item(unit.key)[1]
        return _ADMITTED, 0, total_ns

    def _new_unit(self, model: int, tenant: int, key: ScheduleKey, tag: float) -> _Unit:
        unit = _Unit(key, model, tenant, 1, tag, self._reserve)
        self._units[key] = unit
        self._schedule.insert(key, NEVER, 0)
        return unit

    def _add_member(self, unit: _Unit, work: _Work, row: int, length: int) -> None:
        unit.members.append((work, row, length))
        if length > unit.padded_length or len(unit.members) == 1:
            unit.rows_full = self._rows_full(unit.model, length)
            unit.padded_length = length
        unit.cost_ns = self._upper(unit, len(unit.members), unit.padded_length)
        due_ns = min(self._schedule.item(unit.key)[0], self._due(work.deadline_ns))
        self._schedule.update(unit.key, due_ns, self._reserved(unit.cost_ns, unit.reserve))
        work.units.append(unit)

    def _account(self, work: _Work, cost_ns: int) -> None:
        tenant = self._tenants[work.tenant]
        if not tenant.rows:
            tenant.virtual_ns = max(tenant.virtual_ns, self._virtual_floor_ns)
        work.rows = len(work.sorted_rows)
        work.tokens = sum(length for length, _ in work.sorted_rows)
        tenant.rows += work.rows
        tenant.queue.insert(work.queue_key, NEVER, cost_ns)
        self._works[work.owner] = work

    def _leave(self, work: _Work, rows: int, tokens: int) -> None:
        tenant = self._tenants[work.tenant]
        tenant.rows -= rows
        if rows < work.rows:
            cost_ns = tenant.queue.item(work.queue_key)[1]
            tenant.queue.update(work.queue_key, NEVER, cost_ns - cost_ns // work.rows * rows)
        else:
            tenant.queue.erase(work.queue_key)
            del self._works[work.owner]
        work.rows -= rows
        work.tokens -= tokens

    def _drop(self, work: _Work) -> None:
        """Takes a work's rows out of all units."""
        for unit in dict.fromkeys(work.units):
            kept = [member for member in unit.members if member[0] is not work]
            if self._units.get(unit.key) is unit and len(kept) < len(unit.members):
                unit.members = kept
                self._settle(unit)
        work.units.clear()

    def _settle(self, unit: _Unit) -> None:
        """Measures a unit anew after some of its rows have left, or costs have changed."""
        if not unit.members:
            del self._units[unit.key]
            self._schedule.erase(unit.key)
            return
        unit.padded_length = max(length for _, _, length in unit.members)
        unit.rows_full = self._rows_full(unit.model, unit.padded_length)
        unit.cost_ns = self._upper(unit, len(unit.members), unit.padded_length)
        due_ns = min(self._due(work.deadline_ns) for work, _, _ in unit.members)
        self._schedule.update(unit.key, due_ns, self._reserved(unit.cost_ns, unit.reserve))
        if all(work.tenant != unit.tenant for work, _, _ in unit.members):
            unit.tenant = unit.members[0][0].tenant

    def _choose(self, free_ns: int) -> _Unit:
        """The first unit of a tenant whose turn it is, if those before can wait; else the first."""
        keys = self._schedule.keys()
        head = self._units[keys[0]]
        ranked = [unit for key in keys if key[0] == head.key[0] for unit in (self._units[key],)]
        least = min(self._tenants[unit.tenant].virtual_ns for unit in ranked)
        self._virtual_floor_ns = max(self._virtual_floor_ns, least)
        self._turn_limit_ns = least + float(self._quantum_ns)
        best = next(unit for unit in ranked if not self._is_ahead(unit.tenant))
        cost_ns = self._schedule.item(best.key)[1]
        return best if self._schedule.least_slack_before(best.key) - free_ns >= cost_ns else head

    def _is_ahead(self, tenant: int) -> bool:
        return self._tenants[tenant].virtual_ns > self._turn_limit_ns

    def _put_off_riders(self, unit: _Unit, free_ns: int) -> None:
        """Moves rows of tenants that are ahead of their turn right behind a unit, if time allows."""
        riders = [
            member
            for member in unit.members
            if member[0].tenant != unit.tenant and self._is_ahead(member[0].tenant)
        ]
        if not riders:
            return
        kept = [member for member in unit.members if member not in riders]
        key = (unit.key[0], unit.key[1], self._next_sequence())
        costs = [
            self._reserved(
                self._upper(unit, len(members), max(length for _, _, length in members)), unit.reserve
            )
            for members in (kept, riders)
        ]
        added_ns = sum(costs) - self._schedule.item(unit.key)[1]
        due_ns = min(self._due(work.deadline_ns) for work, _, _ in riders)
        if free_ns + self._schedule.cost_before(key) + added_ns > due_ns:
            return
        if self._schedule.least_slack_after(key) - free_ns < added_ns:
            return
        owner = riders[0][0].tenant
        behind = self._new_unit(unit.model, owner, key, self._tenants[owner].virtual_ns)
        behind.reserve = unit.reserve
        unit.members = kept
        self._settle(unit)
        for work, _, _ in riders:
            work.units.append(behind)
        behind.members = riders
        self._settle(behind)

    def _merge_others(self, unit: _Unit, free_ns: int) -> None:
        for key in self._schedule.keys()[:_MERGED_LOOKAHEAD]:
            if not unit.is_open:
                return
            if key != unit.key:
                self._merge(unit, self._units[key], free_ns)

    def _merge(self, unit: _Unit, other: _Unit, free_ns: int) -> None:
        if other.model != unit.model or other.key[0] != unit.key[0]:
            return
        if other.tenant != unit.tenant and self._is_ahead(other.tenant):
            return
        padded = max(unit.padded_length, other.padded_length)
        rows = len(unit.members) + len(other.members)
        if rows > (unit.rows_full if padded == unit.padded_length else self._rows_full(unit.model, padded)):
            return
        cost_ns = self._reserved(self._upper(unit, rows, padded), unit.reserve)
        due_ns, unit_ns = self._schedule.item(unit.key)
        other_due_ns, other_ns = self._schedule.item(other.key)
        added_ns, due_ns = cost_ns - unit_ns, min(due_ns, other_due_ns)
        between_ns = self._schedule.least_slack_between(unit.key, other.key) - free_ns
        before_ns = self._schedule.least_slack_before(unit.key) - free_ns
        if added_ns >= other_ns or free_ns + cost_ns > due_ns or before_ns < cost_ns or between_ns < added_ns:
            return
        for member in other.members:
            unit.members.append(member)
            member[0].units.append(unit)
        unit.padded_length = padded
        unit.rows_full = self._rows_full(unit.model, padded)
        unit.cost_ns = self._upper(unit, rows, padded)
        self._schedule.update(unit.key, due_ns, cost_ns)
        del self._units[other.key]
        self._schedule.erase(other.key)

    def _charge(self, unit: _Unit) -> None:
        """Charges a batch to the tenants of its rows, by their lengths."""
        a_token = float(unit.cost_ns) / float(sum(max(length, 1) for _, _, length in unit.members))
        for work, _, length in unit.members:
            tenant = self._tenants[work.tenant]
            tenant.virtual_ns += a_token * float(max(length, 1)) / tenant.weight

    def _leaving(self, unit: _Unit) -> Iterator[LeavingPart]:
        """The unit's rows, by runs of one work, as they are taken out of the sums."""
        at = 0
        while at < len(unit.members):
            work, first = unit.members[at][0], at
            while at < len(unit.members) and unit.members[at][0] is work:
                at += 1
            run = unit.members[first:at]
            self._leave(work, len(run), sum(length for _, _, length in run))
            yield work.owner, np.array([row for _, row, _ in run], np.int32)


def _check_weight(weight: float) -> None:
    if not math.isfinite(weight) or weight <= 0:
        raise ValueError(f"a weight must be positive, not {weight}")


def _check_reserve(reserve: float) -> None:
    if not 0 <= reserve <= 1000:
        raise ValueError(f"reserve must be in 0 .. 1000, not {reserve}")


def _sorted_rows(starts: NDArray[np.int64], rows: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Rows as (length, index), longest first, equal ones in their order; checks them."""
    if starts.ndim != 1 or starts.dtype != np.int64 or rows.ndim != 1 or rows.dtype != np.int32:
        raise ValueError("starts must be int64 and rows int32, both of one dimension")
    if not len(rows):
        raise ValueError("work needs at least one row")
    if rows.min() < 0 or rows.max() >= len(starts) - 1:
        raise ValueError(f"a row index is outside the {max(len(starts) - 1, 0)} rows of its TokenRows")
    lengths = starts[rows + 1] - starts[rows]
    if lengths.min() < 0 or lengths.max() > 1 << 30:
        raise ValueError("the starts of a TokenRows do not ascend")
    return sorted(zip(lengths.tolist(), rows.tolist(), strict=True), key=lambda row: -row[0])
