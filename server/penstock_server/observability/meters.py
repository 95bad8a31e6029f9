"""Counters and histograms that one thread writes without locks and another may read.

The client library's own take a lock for each number: 1.9 us for a histogram and 0.8 us for a counter
(measured 2026-11-24), 25 us for all that is counted of a request; here that takes 6 to 8. The library
renders them: see ``exporter.py``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class MeterName:
    """What a meter is called and what it tells.

    Attributes:
        name: In Prometheus' conventions, base unit last; counters without their ``_total``.
        help: One sentence.
        labels: Names of the labels.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()


class Number:
    """A number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Counters(Generic[K]):
    """A number for each label set, which only grows. A key is a label's value, or a tuple of such values."""

    __slots__ = ("name", "numbers")

    def __init__(self, name: MeterName) -> None:
        self.name = name
        self.numbers: dict[K, Number] = {}

    def add(self, key: K, amount: float = 1) -> None:
        """Adds to one label set's number."""
        self.of(key).value += amount

    def of(self, key: K) -> Number:
        """One label set's number, to be kept by who adds to it often."""
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = Number()
        return number


class Distribution:
    """How often values fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Takes a value; a bound belongs to the bucket below it."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Histograms(Generic[K]):
    """A distribution for each label set; all have the same buckets."""

    __slots__ = ("bounds", "distributions", "name")

    def __init__(self, name: MeterName, bounds: Sequence[float]) -> None:
        self.name = name
        self.bounds = tuple(bounds)
        self.distributions: dict[K, Distribution] = {}

    def add(self, key: K, value: float) -> None:
        """Takes a value of one label set."""
        self.of(key).add(value)

    def of(self, key: K) -> Distribution:
        """One label set's distribution, to be kept by who adds to it often."""
        distribution = self.distributions.get(key)
        if distribution is None:
            distribution = self.distributions[key] = Distribution(self.bounds)
        return distribution
