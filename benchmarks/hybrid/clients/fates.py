"""What became of a call. Standard library only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

GOOD, LATE, REFUSED, FAILED = "good", "late", "refused", "failed"
_REFUSALS = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "HTTP_429", "HTTP_503"})
# Servers that drop a call whose time is over say so in these words.
_EXPIRIES = frozenset({"DEADLINE_EXCEEDED", "HTTP_408", "HTTP_504"})
# A word that time is over counts as a refusal if it leaves the caller this much of its time.
_REFUSAL_LEAVES_S = 0.005


def fate(status: str, elapsed_s: float, deadline_s: float) -> str:
    """Tells good answers from late ones, and refusals from calls that were admitted and then left to die.

    Args:
        status: As the client library tells it; ``OK`` for an answer.
        elapsed_s: From the scheduled arrival until the status was there.
        deadline_s: From the scheduled arrival until the answer is worthless.
    """
    if status == "OK":
        return GOOD if elapsed_s <= deadline_s else LATE
    if status in _REFUSALS:
        return REFUSED
    if status in _EXPIRIES:
        return REFUSED if elapsed_s < deadline_s - _REFUSAL_LEAVES_S else LATE
    return FAILED


@dataclass(slots=True)
class Tally:
    """The calls of a stretch of load, as they cross to the measuring process.

    Attributes:
        latency_ms: From the scheduled arrival to the answer, of answered calls.
        lag_ms: How late each call was sent.
        fates: How many calls met each fate.
        statuses: How often each status came back.
        good: When each good answer was there, in seconds after the start, and its tokens.
    """

    latency_ms: list[float] = field(default_factory=list[float])
    lag_ms: list[float] = field(default_factory=list[float])
    fates: dict[str, int] = field(default_factory=dict[str, int])
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    good: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def count(self, status: str, at_s: float, elapsed_s: float, deadline_s: float, tokens: int) -> None:
        """Counts a call that was due ``at_s`` seconds after the start."""
        met = fate(status, elapsed_s, deadline_s)
        self.fates[met] = self.fates.get(met, 0) + 1
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if met == GOOD:
            self.good.append((at_s + elapsed_s, tokens))
        if status == "OK":
            self.latency_ms.append(elapsed_s * 1e3)

    def as_dict(self) -> dict[str, object]:
        """The values by their names."""
        return asdict(self)
