"""The parameters of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.texts import TextKind

WORKS = ("hybrid", "throughput", "overload", "tenants", "saturated")


@dataclass(frozen=True, slots=True)
class Plan:
    """As it goes into the result.

    Attributes:
        seconds: Length of each stretch of load.
        rounds: How often every contestant has its turn.
        texts: Kind of texts of live calls and bulk rows.
        rate: Live calls a second beside bulk work.
        deadline_ms: Time of a live call in the overload.
        factors: Offered load there, in capacities.
        throughput_rows: Rows of each throughput measurement.
        throughput_texts: Kinds of texts there.
        seed: Of arrivals and texts.
    """

    seconds: float
    rounds: int
    texts: TextKind
    rate: float
    deadline_ms: float
    factors: tuple[float, ...]
    throughput_rows: int
    throughput_texts: tuple[TextKind, ...]
    seed: int

    @property
    def bulk_rows(self) -> int:
        """Rows that last for a stretch and for what goes before it, at 500 rows a second.

        Twice what two cores were seen to do with short rows; at least a few windows of a job.
        """
        return max(10_000, int(500 * (self.seconds + 10)))
