"""gRPC deadlines on the server's clock."""

from __future__ import annotations

from typing import Any, cast

import grpc

from penstock_server.runtime.clock import Clock

Context = grpc.aio.ServicerContext[Any, Any]


def remaining_s(context: Context) -> float | None:
    """Returns the seconds until a call's deadline, or None if it has none."""
    # The stubs forget that a call may have no deadline.
    return cast("float | None", context.time_remaining())


def deadline_of(context: Context, clock: Clock) -> int | None:
    """Returns a call's deadline in nanoseconds of our clock, or None if it has none."""
    seconds = remaining_s(context)
    return None if seconds is None else clock.now_ns() + int(seconds * 1e9)
