"""Tenants: how much each may submit, and its share of a live lane."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from penstock_server.domain.errors import Overloaded
from penstock_server.scheduling.limits import SchedulerLimits, TenantPolicy

# A tenant counts as active this long after it last submitted work: its share of the time until a deadline is
# kept for it. Chosen: longer than live deadlines, shorter than it takes others to miss the room.
_ACTIVE_NS = 10_000_000_000
# Names come from callers. Beyond this many, those that have been silent the longest are forgotten.
_TENANTS_MAX = 4096


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
        active_ns: When it last submitted work.
    """

    name: str
    policy: TenantPolicy
    index: int
    is_limited: bool
    bucket_tokens: float = 0.0
    bucket_ns: int = 0
    active_ns: int = 0


class Tenants:
    """All tenants of late, the longest silent first."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self._limits = limits
        self._tenants: OrderedDict[str, Tenant] = OrderedDict()
        self._active: OrderedDict[str, Tenant] = OrderedDict()
        self._active_weight = 0.0
        self._free_indices: list[int] = []

    def find(self, name: str) -> Tenant | None:
        """The tenant of a name, if it is known."""
        return self._tenants.get(name)

    def add(self, name: str, index: int) -> Tenant:
        """Takes a tenant in whose index in the live queue is ``index``."""
        policy = self.policy(name)
        is_limited = policy.queue_tokens_max is not None or not math.isinf(policy.tokens_per_s)
        tenant = Tenant(name, policy, index, is_limited, bucket_tokens=policy.burst_tokens)
        self._tenants[name] = tenant
        return tenant

    def policy(self, name: str) -> TenantPolicy:
        """What a tenant of this name gets."""
        return self._limits.tenants.get(name, self._limits.tenant)

    def free_index(self, waits: Callable[[int], bool]) -> int | None:
        """An index of the live queue that a forgotten tenant had; None to ask for a new one.

        Args:
            waits: Whether rows of the tenant of an index wait.
        """
        if not self._free_indices and len(self._tenants) >= _TENANTS_MAX:
            self._forget_silent(waits)
        return self._free_indices.pop() if self._free_indices else None

    def share(self, tenant: Tenant, now_ns: int) -> float:
        """Marks a tenant as active; returns its share of the live lane, 1 if it is alone."""
        self._drop_silent(now_ns)
        if tenant.name not in self._active:
            self._active_weight += tenant.policy.weight
            self._active[tenant.name] = tenant
        tenant.active_ns = now_ns
        self._active.move_to_end(tenant.name)
        return 1.0 if len(self._active) == 1 else tenant.policy.weight / self._active_weight

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
        elapsed_ns = max(0, now_ns - tenant.bucket_ns)
        filled = tenant.bucket_tokens + elapsed_ns * policy.tokens_per_s / 1e9
        tenant.bucket_tokens, tenant.bucket_ns = min(policy.burst_tokens, filled), now_ns
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
            if now_ns - tenant.active_ns <= _ACTIVE_NS:
                return
            self._active.popitem(last=False)
            # Counted anew now and then, so that rounding does not gather.
            self._active_weight = sum(each.policy.weight for each in self._active.values())

    def _forget_silent(self, waits: Callable[[int], bool]) -> None:
        """Forgets tenants that are not active and for whom nothing waits, a quarter of all at most."""
        silent = [each for each in self._tenants.values() if each.name not in self._active]
        for tenant in [each for each in silent if not waits(each.index)][: _TENANTS_MAX // 4]:
            del self._tenants[tenant.name]
            self._free_indices.append(tenant.index)


def _over(tenant: Tenant, why: str, limit: str, retry_after_s: float) -> Overloaded:
    return Overloaded(
        f"The tenant {tenant.name!r} is at its limit: {why}. Try again after the delay in RetryInfo.",
        retry_after_s=max(retry_after_s, 0.05),
        tenant=tenant.name,
        limit=limit,
    )
