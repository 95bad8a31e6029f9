"""The scheduler's limits as the configuration has them."""

from __future__ import annotations

import math

from penstock_server.config import SerialConfig, ServerConfig, TenantConfig
from penstock_server.scheduling.limits import SchedulerLimits, SerialLimits, TenantPolicy

_NS_PER_US = 1000


def scheduler_limits(config: ServerConfig) -> SchedulerLimits:
    """Bounds and weights of the scheduler."""
    return SchedulerLimits(
        live_tokens_max=config.queues.live_tokens_max,
        flex_tokens_max=config.queues.flex_tokens_max,
        bulk_tokens_max=config.queues.bulk_tokens_max,
        live_batch_tokens_max=config.lanes.live_batch_tokens_max,
        bulk_batch_tokens=config.lanes.bulk_batch_tokens,
        bulk_short_ns=config.lanes.bulk_short_us * _NS_PER_US,
        lookahead_rows=config.lanes.lookahead_rows,
        bulk_share=config.lanes.bulk_share,
        bulk_beside_flex=config.lanes.bulk_beside_flex,
        serial=_serial_limits(config.lanes.serial) if config.lanes.kind == "serial" else None,
        tenant=tenant_policy(config.tenants.default),
        tenants={name: tenant_policy(each) for name, each in config.tenants.named.items()},
    )


def _serial_limits(config: SerialConfig) -> SerialLimits:
    return SerialLimits(
        block_ns=config.block_us * _NS_PER_US,
        fill_ns_max=config.fill_us_max * _NS_PER_US,
        bind_ahead_ns=config.bind_ahead_us * _NS_PER_US,
    )


def tenant_policy(config: TenantConfig) -> TenantPolicy:
    """What a tenant gets; 0 in the configuration is no limit."""
    tokens_per_s = config.tokens_per_s or math.inf
    return TenantPolicy(
        weight=config.weight,
        tokens_per_s=tokens_per_s,
        burst_tokens=config.burst_tokens or tokens_per_s,
        queue_tokens_max=config.queue_tokens_max or None,
    )
