"""The live lane: what runs on it, what waits for it, and what may be promised."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import NEVER, LiveQueue
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.work import BatchPart, BatchPlan, Work
from penstock_server.scheduling.cost import Cost, CostModels
from penstock_server.scheduling.limits import SchedulerLimits
from penstock_server.scheduling.queues import urgency_ns
from penstock_server.scheduling.tenants import ALONE, Shares

# Waiting batches are priced anew when a table's costs have moved by this much in all: less is noise.
_REPRICED_BEYOND = 0.03


class Verdict(IntEnum):
    """What became of work that was offered, as the native queue numbers it."""

    ADMITTED = 0
    UNMEETABLE = 1
    LATE = 2
    HARMFUL = 3
    OVER_SHARE = 4


_VERDICTS = tuple(Verdict)


class Offer(NamedTuple):
    """The answer to work that was offered: the time that is missing if it was refused, and what it costs."""

    verdict: Verdict
    shortage_ns: int
    cost_ns: int


class _Model(NamedTuple):
    """A model version's place in the live queue, and its costs."""

    place: int
    upper_ns: NDArray[np.float64]


class _Chosen(NamedTuple):
    """A batch that runs or follows, with its upper cost; ``is_again`` if it has rows of one that failed."""

    plan: BatchPlan
    cost_ns: int
    is_again: bool = False


class LiveLane:
    """The live queue, and the end of the batch that runs.

    Args:
        limits: Bounds.
        costs: What batches cost; the queue reads the live tables in place.
        reserve: Share of each batch's time that is kept free for bulk work while there is some.
    """

    def __init__(self, limits: SchedulerLimits, costs: CostModels, reserve: float) -> None:
        self._costs = costs
        self.queue = LiveQueue(
            batch_tokens_max=limits.live_batch_tokens_max,
            efficiency=limits.batch_efficiency,
            margin_ns=limits.live_margin_ns,
            quantum_ns=limits.quantum_ns,
            reserve=0.0,
        )
        self._reserve = reserve
        self._is_reserving = False
        if limits.live_batch_ns_max is not None:
            self.queue.set_batch_cost_max(limits.live_batch_ns_max)
        self._models: dict[ModelKey, _Model] = {}
        self._keys: list[ModelKey] = []
        self._priced_ns: dict[ModelKey, float] = {}
        # What runs and what follows it.
        self._running: list[_Chosen] = []
        self._free_ns = 0
        # When the first of them began.
        self._begun_ns = 0

    def free_ns(self, now_ns: int) -> int:
        """When the lane is free, at the upper cost of what runs."""
        return self._free_ns if self._free_ns > now_ns else now_ns

    def likely_end_ns(self, now_ns: int) -> int:
        """When what runs, and what follows it, has probably ended; now if nothing runs."""
        if not self._running:
            return now_ns
        medians = (self._cost(chosen.plan).median_ns for chosen in self._running)
        return self._begun_ns + round(sum(medians))

    def offer(
        self,
        work: Work,
        rows: NDArray[np.int32],
        tenant: int,
        now_ns: int,
        *,
        kept_ns: int = 0,
        shares: Shares = ALONE,
    ) -> Offer:
        """Takes rows of a work if all that waits stays in time; O(log n).

        Args:
            work: Its class says whether it goes first; anything but LIVE_CRITICAL is live here.
            rows: Which of its rows.
            tenant: The tenant's index in the queue.
            now_ns: The time.
            kept_ns: Time of the lane that is spoken for beside what runs and waits.
            shares: Of the lane's time until the deadline: the tenant's own, and what others use.
        """
        model = self._models.get(work.model) or self._add_model(work.model)
        verdict, shortage_ns, cost_ns = self.queue.admit(
            work,
            model.place,
            work.request_class,
            tenant,
            urgency_ns(work),
            NEVER if work.deadline_ns is None else work.deadline_ns,
            work.tokens.starts,
            rows,
            now_ns,
            (self._free_ns if self._free_ns > now_ns else now_ns) + kept_ns,
            *shares,
        )
        return Offer(_VERDICTS[verdict], shortage_ns, cost_ns)

    def reserve(self, *, is_wanted: bool) -> None:
        """Keeps time free after what is admitted from now on, or does not: bulk work waits, or none does."""
        if self._reserve and is_wanted is not self._is_reserving:
            self._is_reserving = is_wanted
            self.queue.set_reserve(self._reserve if is_wanted else 0.0)

    def expire(self, now_ns: int) -> list[BatchPart]:
        """Removes all work whose deadline has passed."""
        return [BatchPart(cast("Work", work), rows) for work, rows in self.queue.expire(now_ns)]

    def take(self, now_ns: int) -> BatchPlan | None:
        """Removes the next batch; None if nothing waits."""
        taken = self.queue.take(self.free_ns(now_ns))
        if taken is None:
            return None
        model, rows, padded_length, tokens, cost_ns, leaving = taken
        parts = tuple(BatchPart(cast("Work", work), indices) for work, indices in leaving)
        return BatchPlan(self._keys[model], parts, rows, padded_length, tokens, cost_ns)

    def started(self, plan: BatchPlan, now_ns: int) -> None:
        """Hears that a batch goes to the lane, behind what runs there."""
        if not self._running:
            self._begun_ns = now_ns
        self._free_ns = self.free_ns(now_ns) + plan.predicted_ns
        self._running.append(_Chosen(plan, plan.predicted_ns))

    def ended(self, plan: BatchPlan, end_ns: int, again: Sequence[BatchPlan] = ()) -> None:
        """Hears of the true end of a batch, and of batches of its rows that run in its place.

        Earlier ones have ended as well, as the lane is serial; but those in the place of others run behind
        what had been chosen when these failed, and each of them is told of.
        """
        for place, running in enumerate(self._running):
            if running.plan is plan:
                later = [chosen for chosen in self._running[:place] if chosen.is_again]
                later += [_Chosen(each, round(self._cost(each).upper_ns), is_again=True) for each in again]
                self._running[: place + 1] = later
                self._begun_ns = end_ns
                self._free_ns = end_ns + sum(chosen.cost_ns for chosen in self._running)
                return

    def reprice(self, model: ModelKey) -> None:
        """Prices what waits anew if a model's costs have moved."""
        known = self._models.get(model)
        if known is None:
            return
        total_ns, priced_ns = float(known.upper_ns.sum()), self._priced_ns[model]
        if abs(total_ns - priced_ns) > _REPRICED_BEYOND * priced_ns:
            self._priced_ns[model] = total_ns
            self.queue.reprice()

    def _cost(self, plan: BatchPlan) -> Cost:
        return self._costs.table(plan.model, LaneKind.LIVE).predict(plan.rows, plan.padded_length)

    def _add_model(self, key: ModelKey) -> _Model:
        table = self._costs.table(key, LaneKind.LIVE)
        place = self.queue.add_model(table.row_points, table.length_points, table.upper_ns)
        model = self._models[key] = _Model(place, table.upper_ns)
        self._keys.append(key)
        self._priced_ns[key] = float(table.upper_ns.sum())
        return model
