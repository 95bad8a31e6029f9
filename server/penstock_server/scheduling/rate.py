"""How fast a kind of lane works, learnt from the batches it has run."""

from __future__ import annotations

# Weight of the newest batch. Chosen: about the last twenty batches count.
_NEWEST_WEIGHT = 0.05
# Tokens a second before anything has run: MiniLM fp32 on one core of a 2-core AVX2 machine, roughly.
_INITIAL_TOKENS_PER_S = 4_000.0
_RETRY_AFTER_MIN_S = 0.05
_RETRY_AFTER_MAX_S = 60.0


class TokenRate:
    """Exponentially weighted tokens a second."""

    def __init__(self) -> None:
        self._tokens_per_s = _INITIAL_TOKENS_PER_S

    def add(self, tokens: int, duration_ns: int) -> None:
        """Takes a batch of ``tokens`` that ran for ``duration_ns``."""
        if duration_ns > 0:
            newest = tokens * 1e9 / duration_ns
            self._tokens_per_s += _NEWEST_WEIGHT * (newest - self._tokens_per_s)

    def seconds_for(self, tokens: int) -> float:
        """Predicted time for ``tokens``, kept within what a caller can use as a delay."""
        return min(_RETRY_AFTER_MAX_S, max(_RETRY_AFTER_MIN_S, tokens / self._tokens_per_s))
