from __future__ import annotations

import math

from penstock_server.config import load_config
from penstock_server.runtime.limits import scheduler_limits
from penstock_server.scheduling.limits import TenantPolicy


def test_tenants_have_no_limits_unless_configured() -> None:
    limits = scheduler_limits(load_config())
    assert limits.tenant == TenantPolicy(1.0, math.inf, math.inf, None)
    assert not limits.tenants


def test_limits_of_a_tenant_are_its_own() -> None:
    tenants = {
        "default": {"tokens_per_s": 100, "burst_tokens": 300},
        "named": {"acme": {"weight": 3, "tokens_per_s": 50, "queue_tokens_max": 7}},
    }
    limits = scheduler_limits(load_config(tenants=tenants, lanes={"bulk_share": 0}))
    assert limits.tenant == TenantPolicy(1.0, 100, 300, None)
    # A burst is a second's tokens unless it is said.
    assert limits.tenants == {"acme": TenantPolicy(3, 50, 50, 7)}
    assert limits.bulk_share == 0
