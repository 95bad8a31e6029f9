"""When calls arrive: drawn once from a seed, and the same for every contestant."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks.generator import arrivals
from benchmarks.hybrid.clients.loads import Arrival


@dataclass(frozen=True, slots=True)
class Stream:
    """Calls of one tenant: a Poisson process of ``rate`` calls a second."""

    rate: float
    tenant: str = ""


def schedule(streams: Iterable[Stream], duration_s: float, texts: int, seed: str) -> list[Arrival]:
    """Draws arrivals of several streams, in the order of their times.

    Args:
        streams: Each has a source of its own: the arrivals of one do not change with the others.
        duration_s: Length of the schedule.
        texts: How many texts there are to choose from.
        seed: Of times and texts.
    """
    drawn: list[Arrival] = []
    for stream in streams:
        rng = random.Random(f"{seed}/{stream.tenant}")
        times = arrivals(rng, stream.rate, duration_s)
        drawn += [Arrival(at_s, rng.randrange(texts), stream.tenant) for at_s in times]
    return sorted(drawn, key=lambda arrival: arrival.at_s)


def write_schedule(path: Path, due: Sequence[Arrival]) -> None:
    """Writes arrivals for a client process."""
    path.write_text(json.dumps([astuple(arrival) for arrival in due]), encoding="utf-8")
