"""What callers hear whose work is refused."""

from __future__ import annotations

from penstock_server.domain.errors import DeadlineUnmeetable, InvalidRequest, Overloaded
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import Work
from penstock_server.scheduling.live_lane import Offer, Verdict

# Delays that a caller can use: below, the calls back cost more than they find; above, patience ends.
_RETRY_AFTER_MIN_S = 0.02
_RETRY_AFTER_MAX_S = 60.0
# So that callers refused together do not come back together.
_JITTER = 0.2
_GOLDEN_RATIO = 0.6180339887498949


class Refusals:
    """Makes the errors of refused work. Their delays are spread evenly, the same in every run."""

    def __init__(self) -> None:
        self._made = 0

    def of_offer(self, offer: Offer, work: Work) -> Overloaded | DeadlineUnmeetable:
        """The error for work that the live lane cannot take."""
        if offer.verdict is Verdict.UNMEETABLE:
            return DeadlineUnmeetable(
                "The deadline could not be met even by an idle server; allow more time, or send less at once."
            )
        why = {
            Verdict.LATE: "would be late behind what waits",
            Verdict.HARMFUL: "would make calls late that were admitted before",
            Verdict.OVER_SHARE: "has its tenant's share of the time until the deadline waiting already",
        }[offer.verdict]
        return Overloaded(
            f"The {work.request_class.name} request {why}. Try again after the delay in RetryInfo, with a "
            "later deadline, or allow the request to be demoted to FLEX or BULK.",
            retry_after_s=self._delay_s(offer.shortage_ns / 1e9),
            request_class=work.request_class.name,
            limit=offer.verdict.name,
        )

    def of_queue(self, request_class: RequestClass, waiting: int, most: int, drain_ns: float) -> Overloaded:
        """The error for work that has no room in its queue, which needs ``drain_ns`` to make some."""
        return Overloaded(
            f"The {request_class.name} queue is full ({waiting:,} of {most:,} tokens wait). Try again after "
            "the delay in RetryInfo, or allow the request to be demoted to FLEX or BULK.",
            retry_after_s=self._delay_s(drain_ns / 1e9),
            request_class=request_class.name,
            limit="QUEUE",
        )

    def _delay_s(self, drain_s: float) -> float:
        """The time until there is room, by up to a fifth more or less."""
        self._made += 1
        spread = 2 * (self._made * _GOLDEN_RATIO % 1.0) - 1
        return min(_RETRY_AFTER_MAX_S, max(_RETRY_AFTER_MIN_S, drain_s)) * (1 + _JITTER * spread)


def too_large(request_class: RequestClass, tokens: int, most: int) -> InvalidRequest:
    """The error for a request that would shut all others of its class out, however long its caller waits."""
    return InvalidRequest.of_field(
        "inputs",
        f"hold {tokens:,} tokens; a {request_class.name} request may hold {most:,}. Split it, or send it as "
        "FLEX, BULK or a job",
    )


def already_late() -> DeadlineUnmeetable:
    """The error for work that comes after its deadline."""
    return DeadlineUnmeetable("The deadline had passed when the request was admitted; allow more time.")
