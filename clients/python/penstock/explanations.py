"""What happened to a request on its way, as the server tells it where it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from penstock.options import RequestClass
from penstock.times import seconds_of
from penstock.v1 import common_pb2


@dataclass(frozen=True, slots=True)
class BatchExplanation:
    """A batch that computed rows of the request.

    Attributes:
        lane: The lane that ran it.
        rows: Its rows, of all requests.
        own_rows: Those that belong to the request.
        tokens: Its tokens without padding.
        padded_tokens: Its tokens with padding.
        shared_with: All its rows by the class they were served as.
        waited_s: From the request's admission until the batch was started.
        computed_s: How long it ran.
        shared_rows: Own rows that were computed once for an identical row.
    """

    lane: str
    rows: int
    own_rows: int
    tokens: int
    padded_tokens: int
    shared_with: dict[RequestClass, int] = field(hash=False)
    waited_s: float
    computed_s: float
    shared_rows: int

    @classmethod
    def of(cls, message: common_pb2.BatchExplanation) -> BatchExplanation:
        """Reads the server's message."""
        return cls(
            lane=message.lane,
            rows=message.rows,
            own_rows=message.own_rows,
            tokens=message.tokens,
            padded_tokens=message.padded_tokens,
            shared_with={
                RequestClass.of_number(each.request_class): each.rows for each in message.shared_with
            },
            waited_s=seconds_of(message.waited),
            computed_s=seconds_of(message.computed),
            shared_rows=message.shared_rows,
        )

    @property
    def padding_share(self) -> float:
        """Which part of what was computed was padding, from 0 to 1."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened to a request.

    Attributes:
        batches: The batches that computed its rows, in the order they were started.
        tenant: Who pays for it; empty where nobody is named.
        demoted_from: The class it had before it was demoted; UNSPECIFIED if it was not.
        routing_rule: The server's rule that decided its class; empty if none did.
        spared_version: The version that would have answered but for the overload; empty if it did.
        predicted_s: From admission to the answer at the latest, as predicted when its last batch started;
            None if nothing was, or if the texts went in several calls.
        cached_rows: Rows that no batch computed, since the server had kept the outputs of the same rows.
    """

    batches: tuple[BatchExplanation, ...] = ()
    tenant: str = ""
    demoted_from: RequestClass = RequestClass.UNSPECIFIED
    routing_rule: str = ""
    spared_version: str = ""
    predicted_s: float | None = None
    cached_rows: int = 0

    @classmethod
    def of(cls, message: common_pb2.Explanation) -> Explanation:
        """Reads the server's message."""
        return cls(
            batches=tuple(BatchExplanation.of(each) for each in message.batches),
            tenant=message.tenant,
            demoted_from=RequestClass.of_number(message.demoted_from),
            routing_rule=message.routing_rule,
            spared_version=message.spared_version,
            predicted_s=seconds_of(message.predicted) if message.HasField("predicted") else None,
            cached_rows=message.cached_rows,
        )

    @classmethod
    def joined(cls, parts: Sequence[Explanation]) -> Explanation:
        """Sums up the calls that a long list was split into: all their batches; the first's other words."""
        first = parts[0]
        demotions = [part.demoted_from for part in parts if part.demoted_from.number]
        return cls(
            batches=tuple(chain.from_iterable(part.batches for part in parts)),
            tenant=first.tenant,
            demoted_from=demotions[0] if demotions else first.demoted_from,
            routing_rule=first.routing_rule,
            spared_version=first.spared_version,
            cached_rows=sum(part.cached_rows for part in parts),
        )
