"""Keeps a job within the largest share of the lanes' time that it may take."""

from __future__ import annotations

import asyncio

from penstock_server.runtime.clock import Clock

# A piece takes about so much of a lane: far more than a batch, and little enough that the pause after it is
# not long (50 s for one percent of two lanes).
_PIECE_NS = 1_000_000_000
# Tokens of the first piece, from whose cost the next ones follow; some full batches.
_FIRST_TOKENS = 2048
# A piece has no fewer: that is one batch.
_TOKENS_MIN = 256


class Pace:
    """The time at which a job may have its next rows computed. Owned by the event loop.

    Rows are given to the lanes in pieces. What a piece costs is paid by a pause: the next one begins when its
    cost is the share of the time that has passed since it began. Time in which the job did not want to
    compute is not made up for.

    Args:
        share: Above 0, up to 1.
        lanes: Lanes that compute at once.
        clock: The time.

    Attributes:
        piece: Held while a piece is computed.
    """

    def __init__(self, share: float, lanes: int, clock: Clock) -> None:
        self.piece = asyncio.Lock()
        self._per_ns = share * lanes
        self._clock = clock
        self._free_ns = clock.now_ns()
        self._ns_per_token = _PIECE_NS / _FIRST_TOKENS

    def left_s(self) -> float:
        """How long the next piece must wait, in seconds."""
        return max(0, self._free_ns - self._clock.now_ns()) / 1e9

    def begin(self) -> int:
        """Begins a piece; returns about the tokens that it may have."""
        self._free_ns = max(self._free_ns, self._clock.now_ns())
        return max(_TOKENS_MIN, int(_PIECE_NS / self._ns_per_token))

    def charge(self, tokens: int, cost_ns: int) -> None:
        """Hears what a batch with so many of its tokens has cost its lane."""
        self._free_ns += round(cost_ns / self._per_ns)
        if tokens and cost_ns:
            self._ns_per_token += (cost_ns / tokens - self._ns_per_token) / 8
