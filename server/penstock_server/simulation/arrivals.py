"""Live calls: when they come, how long they are, who makes them. All policies meet the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.simulation.lengths import Lengths, draw, known_lengths
from penstock_server.simulation.scenario import NS_PER_MS, NS_PER_S, LiveTraffic, TenantMix


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A request as it comes in.

    Attributes:
        arrival_ns: When.
        request_class: What it asks for.
        lengths: Tokens of each row; int32.
        tenant: Who asks.
        weight: The tenant's weight.
        deadline_ns: When its answer stops being of use; None for never.
        overload: What may happen to it if it cannot be computed in time.
        cancel_ns: When its caller goes away; None for never.
        flow: The job it is a window of, or empty.
    """

    arrival_ns: int
    request_class: RequestClass
    lengths: Lengths
    tenant: str = ""
    weight: float = 1.0
    deadline_ns: int | None = None
    overload: OverloadPolicy = OverloadPolicy.REJECT
    cancel_ns: int | None = None
    flow: str = ""

    @property
    def is_live(self) -> bool:
        """Whether it asks for LIVE_CRITICAL or LIVE."""
        return self.request_class <= RequestClass.LIVE


def stream(seed: int, *names: str) -> np.random.Generator:
    """A random stream of its own for each use, so that one use more changes no other."""
    return np.random.default_rng([seed, *(int.from_bytes(name.encode(), "little") for name in names)])


def live_calls(live: LiveTraffic, rate: float, duration_ns: int, seed: int) -> list[Call]:
    """Draws the calls of a random process, in order of arrival."""
    if live.arrivals == "mmpp":
        times = mmpp_times(live, rate, duration_ns, stream(seed, "arrivals"))
    else:
        times = poisson_times(rate, duration_ns, stream(seed, "arrivals"))
    lengths = draw(known_lengths(live.lengths), len(times) * live.rows, stream(seed, "lengths"))
    return list(_calls(live, times, lengths.reshape(-1, live.rows), stream(seed, "callers")))


def poisson_times(rate: float, duration_ns: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Times of a Poisson process of ``rate`` a second."""
    expected = rate * duration_ns / NS_PER_S
    # Six standard deviations more than are expected, so that one draw does; the loop is for the rest.
    gaps = random.exponential(NS_PER_S / rate, math.ceil(expected + 6 * math.sqrt(expected) + 10))
    times = np.cumsum(gaps)
    while times[-1] < duration_ns:
        more = random.exponential(NS_PER_S / rate, len(gaps))
        times = np.concatenate([times, times[-1] + np.cumsum(more)])
    return times[times < duration_ns].astype(np.int64)


def mmpp_times(
    live: LiveTraffic, rate: float, duration_ns: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Times of a Poisson process that switches between a calm and a busy rate; ``rate`` on average."""
    calm_part = live.calm_s / (live.calm_s + live.busy_s)
    calm_rate = rate / (calm_part + (1 - calm_part) * live.burst_ratio)
    pieces: list[NDArray[np.int64]] = []
    begin_ns, is_busy = 0, False
    while begin_ns < duration_ns:
        mean_s = live.busy_s if is_busy else live.calm_s
        length_ns = max(1, round(random.exponential(mean_s) * NS_PER_S))
        state_rate = calm_rate * live.burst_ratio if is_busy else calm_rate
        pieces.append(begin_ns + poisson_times(state_rate, length_ns, random))
        begin_ns, is_busy = begin_ns + length_ns, not is_busy
    times = np.concatenate(pieces)
    return times[times < duration_ns]


def _calls(
    live: LiveTraffic, times: NDArray[np.int64], lengths: Lengths, random: np.random.Generator
) -> Iterator[Call]:
    tenants = _tenants(live.tenants, len(times), random)
    kinds = random.random(len(times))
    leaving = random.random((len(times), 2))
    deadline_after_ns = round(live.deadline_ms * NS_PER_MS)
    for index, arrival_ns in enumerate(times.tolist()):
        is_cancelled = leaving[index, 0] < live.cancel_share
        patience_ns = deadline_after_ns or NS_PER_S
        yield Call(
            arrival_ns=arrival_ns,
            request_class=_class_of(live, float(kinds[index])),
            lengths=lengths[index],
            tenant=tenants[index].name,
            weight=tenants[index].weight,
            deadline_ns=arrival_ns + deadline_after_ns if deadline_after_ns else None,
            overload=OverloadPolicy(live.overload_policy),
            cancel_ns=arrival_ns + int(leaving[index, 1] * patience_ns) if is_cancelled else None,
        )


def _class_of(live: LiveTraffic, drawn: float) -> RequestClass:
    if drawn < live.critical_share:
        return RequestClass.LIVE_CRITICAL
    return RequestClass.FLEX if drawn >= 1 - live.flex_share else RequestClass.LIVE


def _tenants(tenants: tuple[TenantMix, ...], count: int, random: np.random.Generator) -> list[TenantMix]:
    shares = np.array([tenant.share for tenant in tenants])
    chosen = random.choice(len(tenants), count, p=shares / shares.sum())
    return [tenants[index] for index in chosen.tolist()]
