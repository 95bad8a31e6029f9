"""The minimum share of bulk work: a credit that live work earns for it."""

from __future__ import annotations


class BulkCredit:
    """Time of the live lane that FLEX and BULK have coming.

    Grows with the time that live batches take while bulk work waits, falls by what bulk batches would have
    cost the live lane wherever they ran, and stops at about one batch: a share that idle cycles have met
    already is not paid twice, and no burst of bulk batches follows a time in which none could run.

    Args:
        share: Of the live lane's time, at least 0 and below 1.
    """

    def __init__(self, share: float) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"the share of bulk work must be at least 0 and below 1, not {share}")
        # Of the time of live batches: both together are then the whole.
        self.rate = share / (1 - share)
        self._credit_ns = 0.0

    def grow(self, live_ns: int, unit_ns: int) -> None:
        """Takes a live batch of ``live_ns`` that ran while a bulk batch of ``unit_ns`` waited."""
        earned_ns = self.rate * live_ns
        # What is earned beyond a batch counts for the next one; what waited unused does not grow.
        self._credit_ns = min(self._credit_ns, float(unit_ns)) + earned_ns

    def fall(self, bulk_ns: int) -> None:
        """Takes a bulk batch that has run, at its cost on the live lane."""
        self._credit_ns = max(0.0, self._credit_ns - bulk_ns)

    def clear(self) -> None:
        """Forgets the credit: nothing waits that could use it."""
        self._credit_ns = 0.0

    def due_within(self, window_ns: int, unit_ns: int) -> int:
        """What of a bulk batch may fall due within a time, beyond what the rate takes of that time itself."""
        earned_ns = self._credit_ns + self.rate * max(window_ns, 0)
        return round(self._credit_ns) if earned_ns >= unit_ns - 1 else 0

    def covers(self, unit_ns: int) -> bool:
        """Whether a bulk batch of ``unit_ns`` may go before live work; rounding to a nanosecond aside."""
        return self.rate > 0 and self._credit_ns >= unit_ns - 1
