"""Tenants: how much each may submit, and what of a live lane it and the others use."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from penstock_server.domain.errors import Overloaded
from penstock_server.scheduling.limits import SchedulerLimits, TenantPolicy

# A tenant counts as active this long after it last submitted live work: its share of the time until a
# deadline is its own. Chosen: longer than live deadlines, shorter than it takes others to miss the room.
_ACTIVE_NS = 10_000_000_000
# How fast it is forgotten what tenants used of the live lane. Chosen: a hundred batches, so that chance
# is no use, and less than a caller's patience.
_USE_NS = 2e9
# What is used is not forgotten in smaller steps than this, a thousandth of it: an exponential a step is dear.
_USE_STEP_NS = 2_000_000
# A tenant that wants its share or more leaves others this much more than they use, as calls come in bursts:
# with it, the p99 of others is about as if strict shares were kept (simulated 2026-11-27).
_CAUTION = 2.0
# Names come from callers. Beyond this many, one takes the place of the tenant that has been silent the
# longest, or shares the last place with others where none can be forgotten.
_TENANTS_MAX = 4096
# How many are asked whether they can be forgotten.
_ASKED_MAX = 4
# The name of the last place; no caller can have it.
_OTHERS = "\0others"


@dataclass(eq=False, slots=True)
class Tenant:
    """What is known of a tenant.

    Attributes:
        name: Its name.
        policy: What it gets.
        index: Its index in the live queue.
        is_limited: Whether it has a rate or a quota.
        bucket_tokens: What it may submit at once, at ``bucket_ns``.
        bucket_ns: When that was so.
        seen_ns: When it last submitted work.
        live_ns: When it last submitted live work.
        used_ns: Time of the live lane that it wanted of late, at most its share, as of ``used_at_ns``.
        used_at_ns: When that was so.
    """

    name: str
    policy: TenantPolicy
    index: int
    is_limited: bool
    bucket_tokens: float = 0.0
    bucket_ns: int = 0
    seen_ns: int = 0
    live_ns: int = 0
    used_ns: float = 0.0
    used_at_ns: int = 0


class Shares(NamedTuple):
    """Parts of the live lane: a tenant's own in any case, and what is kept for what the other tenants use."""

    own: float
    others: float


# Nobody else is there.
ALONE = Shares(1.0, 0.0)


class Tenants:
    """All tenants of late, the longest silent first. Every operation is O(1).

    Args:
        limits: Their policies.
        add_index: Makes a place in the live queue for a tenant of a weight.
        reuse_index: Gives the place of a forgotten tenant to one of a weight.
        waits: Whether work of a tenant waits.
    """

    def __init__(
        self,
        limits: SchedulerLimits,
        *,
        add_index: Callable[[float], int],
        reuse_index: Callable[[int, float], None],
        waits: Callable[[Tenant], bool],
    ) -> None:
        self._limits = limits
        self._add_index = add_index
        self._reuse_index = reuse_index
        self._waits = waits
        self._tenants: OrderedDict[str, Tenant] = OrderedDict()
        self._active: OrderedDict[str, Tenant] = OrderedDict()
        self._active_weight = 0.0
        # Nobody is silent before.
        self._silent_from_ns = 0
        self._used_ns = 0.0
        self._used_at_ns = 0
        self._others: Tenant | None = None

    def __len__(self) -> int:
        return len(self._tenants)

    def find(self, name: str, now_ns: int) -> Tenant:
        """The tenant of a name, which submits work now; one for all others if there are too many."""
        tenant = self._tenants.get(name)
        if tenant is None:
            return self._add(name, now_ns)
        tenant.seen_ns = now_ns
        self._tenants.move_to_end(name)
        return tenant

    def shares(self, tenant: Tenant, now_ns: int) -> Shares:
        """Marks a tenant as active on the live lane; returns its share, and what is kept for the others."""
        if now_ns > self._silent_from_ns:
            self._drop_silent(now_ns)
        tenant.live_ns = now_ns
        if tenant.name not in self._active:
            self._active_weight += tenant.policy.weight
            self._active[tenant.name] = tenant
        else:
            self._active.move_to_end(tenant.name)
        if now_ns > self._used_at_ns + _USE_STEP_NS:
            self._used_ns *= math.exp((self._used_at_ns - now_ns) / _USE_NS)
            self._used_at_ns = now_ns
        if now_ns > tenant.used_at_ns + _USE_STEP_NS:
            tenant.used_ns *= math.exp((tenant.used_at_ns - now_ns) / _USE_NS)
            tenant.used_at_ns = now_ns
        if len(self._active) == 1:
            return ALONE
        own_share = tenant.policy.weight / self._active_weight
        others_ns = self._used_ns - tenant.used_ns
        if others_ns <= 0:
            return Shares(own_share, 0.0)
        wanted = tenant.used_ns / (_USE_NS * own_share)
        return Shares(own_share, others_ns / _USE_NS * (1 + _CAUTION * (wanted if wanted < 1 else 1.0)))

    def use(self, tenant: Tenant, cost_ns: int, shares: Shares) -> None:
        """Counts live work that a tenant wants, admitted or not, as far as its share goes; after `shares`.

        What is beyond is left to it as long as nobody wants it: it is kept from nobody.
        """
        room_ns = shares.own * _USE_NS - tenant.used_ns
        if room_ns > 0:
            added_ns = cost_ns if cost_ns < room_ns else room_ns
            tenant.used_ns += added_ns
            self._used_ns += added_ns

    def _add(self, name: str, now_ns: int) -> Tenant:
        is_named = name in self._limits.tenants
        index = None
        if len(self._tenants) >= _TENANTS_MAX and not is_named:
            index = self._forget_one(now_ns)
            if index is None:
                return self._share_last(now_ns)
        policy = self._limits.tenants.get(name, self._limits.tenant)
        tenant = self._tenants[name] = self._made(name, policy, index, now_ns)
        return tenant

    def _made(self, name: str, policy: TenantPolicy, index: int | None, now_ns: int) -> Tenant:
        if index is None:
            index = self._add_index(policy.weight)
        else:
            self._reuse_index(index, policy.weight)
        is_limited = policy.queue_tokens_max is not None or not math.isinf(policy.tokens_per_s)
        return Tenant(name, policy, index, is_limited, policy.burst_tokens, now_ns, now_ns)

    def _share_last(self, now_ns: int) -> Tenant:
        if self._others is None:
            self._others = self._made(_OTHERS, self._limits.tenant, None, now_ns)
        self._others.seen_ns = now_ns
        return self._others

    def _forget_one(self, now_ns: int) -> int | None:
        """Forgets a silent tenant for whom nothing waits and who owes nothing; returns its place."""
        for _ in range(_ASKED_MAX):
            tenant = next(iter(self._tenants.values()))
            if now_ns - tenant.seen_ns <= _ACTIVE_NS:
                return None
            if not self._waits(tenant) and _fill(tenant, now_ns) >= tenant.policy.burst_tokens:
                del self._tenants[tenant.name]
                self._drop_active(tenant)
                return tenant.index
            # It is not silent: work of it waits, or it is still paying for some.
            tenant.seen_ns = now_ns
            self._tenants.move_to_end(tenant.name)
        return None

    @staticmethod
    def check_queue(tenant: Tenant, tokens: int, queued_tokens: int) -> None:
        """Checks how much a tenant may have waiting.

        Raises:
            Overloaded: It has too much.
        """
        most = tenant.policy.queue_tokens_max
        if most is not None and queued_tokens + tokens > most:
            raise _over(tenant, f"{queued_tokens:,} of its {most:,} tokens wait", "TENANT_QUEUE", 0.0)

    @staticmethod
    def check_rate(tenant: Tenant, tokens: int, now_ns: int) -> None:
        """Checks how much a tenant may submit now, taking nothing.

        Raises:
            Overloaded: It is over its rate.
        """
        policy = tenant.policy
        if math.isinf(policy.tokens_per_s):
            return
        tenant.bucket_tokens, tenant.bucket_ns = _fill(tenant, now_ns), now_ns
        # A request larger than the bucket goes when the bucket is full, and leaves a debt.
        missing = min(float(tokens), policy.burst_tokens) - tenant.bucket_tokens
        if missing > 0:
            seconds = missing / policy.tokens_per_s
            why = f"{policy.tokens_per_s:,.0f} tokens a second are allowed"
            raise _over(tenant, why, "TENANT_RATE", seconds)

    @staticmethod
    def take(tenant: Tenant, tokens: int) -> None:
        """Takes admitted tokens from what a tenant may submit."""
        tenant.bucket_tokens -= tokens

    def _drop_silent(self, now_ns: int) -> None:
        while self._active:
            tenant = next(iter(self._active.values()))
            self._silent_from_ns = tenant.live_ns + _ACTIVE_NS
            if now_ns <= self._silent_from_ns:
                return
            self._drop_active(tenant)

    def _drop_active(self, tenant: Tenant) -> None:
        if self._active.pop(tenant.name, None) is not None:
            # Rounding does not gather: nothing is left of it once all are silent.
            self._active_weight = self._active_weight - tenant.policy.weight if self._active else 0.0


def _fill(tenant: Tenant, now_ns: int) -> float:
    """What a tenant may submit at once, now."""
    policy = tenant.policy
    if math.isinf(policy.tokens_per_s):
        return policy.burst_tokens
    elapsed_ns = max(0, now_ns - tenant.bucket_ns)
    return min(policy.burst_tokens, tenant.bucket_tokens + elapsed_ns * policy.tokens_per_s / 1e9)


def _shown(tenant: Tenant) -> str:
    return f"(all beyond the first {_TENANTS_MAX:,})" if tenant.name is _OTHERS else tenant.name


def _over(tenant: Tenant, why: str, limit: str, retry_after_s: float) -> Overloaded:
    return Overloaded(
        f"The tenant {_shown(tenant)} is at its limit: {why}. Try again after the delay in RetryInfo.",
        retry_after_s=max(retry_after_s, 0.05),
        tenant=_shown(tenant),
        limit=limit,
    )
