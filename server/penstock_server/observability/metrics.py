"""All metrics of a server, as ``docs/metrics.md`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock_server.domain.answer import AnswerInfo
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan, BatchTimes
from penstock_server.observability.meters import Counters, Distribution, Histograms, MeterName, Number

# From a short text on a fast machine to the longest deadline that makes sense; close where it matters.
LATENCY_BOUNDS_S = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 60.0),
)
ROWS_BOUNDS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
FILL_BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 3.0, 4.0)
# Above 1 the batch took longer than its upper prediction, which admission relies on.
ERROR_BOUNDS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0)

ANSWERED = "ok"
NO_CLASS = "unspecified"
# What tenants beyond the first ``tenants_max`` are called together, and those that name nobody.
OTHER_TENANTS = "__other__"

# Refusals before anything was computed, by the error's reason.
_REFUSALS = frozenset({"OVERLOADED", "DEADLINE_UNMEETABLE", "DRAINING", "MODEL_LOADING", "INVALID_REQUEST"})

_CLASS_LABELS = {request_class: request_class.name.lower() for request_class in RequestClass}
_OUTCOME_LABELS = ("method", "request_class", "model", "version", "outcome")
_CLASS = ("request_class",)
_LANE = ("lane_kind",)


def class_label(request_class: RequestClass | None) -> str:
    """The label value of a class."""
    return NO_CLASS if request_class is None else _CLASS_LABELS[request_class]


@dataclass(frozen=True, slots=True)
class _Answered:
    """The numbers of one kind of answered request, found with one look-up instead of seven."""

    requests: Number
    rows: Number
    tokens: Number
    total: Distribution
    queue: Distribution
    tokenise: Distribution
    compute: Distribution


@dataclass(frozen=True, slots=True)
class _Batches:
    """The numbers of one model's batches on one kind of lane."""

    batches: Number
    tokens: Number
    padded: Number
    rows: Distribution
    fill: Distribution
    time: Distribution
    cost_error: Distribution
    tokens_max: int


class Metrics:
    """Counts everything that ``Observer`` hears. Owned by the event loop; other threads may only read.

    Args:
        batch_tokens: Most padded tokens of a batch by kind of lane, to tell how full batches are.
        tenants_max: Most tenants with numbers of their own.
    """

    def __init__(self, batch_tokens: Mapping[str, int], tenants_max: int) -> None:
        self._fill_tokens = batch_tokens
        self._tenants_max = tenants_max
        self._tenants: dict[str, tuple[Number, Number]] = {}
        self._answered: dict[tuple[str, ModelKey, RequestClass], _Answered] = {}
        self._batches: dict[tuple[str, ModelKey], _Batches] = {}
        self._count_requests()
        self._count_batches()
        # What has no labels is there from the start.
        self.shared_rows.add((), 0)

    def _count_requests(self) -> None:
        self.rpcs: Counters[tuple[str, str]] = Counters(
            MeterName("penstock_rpcs", "Calls that ended, by gRPC status code.", ("method", "code"))
        )
        self.requests: Counters[tuple[str, ...]] = Counters(
            MeterName(
                "penstock_requests", "Requests and texts of streams, by what became of them.", _OUTCOME_LABELS
            )
        )
        self.rows: Counters[tuple[str, ...]] = Counters(
            MeterName("penstock_request_rows", "Rows of these requests.", _OUTCOME_LABELS)
        )
        self.tokens: Counters[str] = Counters(
            MeterName("penstock_request_tokens", "Tokens of answered requests, without padding.", _CLASS)
        )
        self.total = self._latency("duration", "From arrival until the answer was complete.")
        self.queue = self._latency("queue", "From admission until the last batch of a request was started.")
        self.tokenise = self._latency("tokenise", "Turning a request's texts into token ids.")
        self.compute = self._latency("compute", "The longest batch with rows of a request.")
        self.refused: Counters[tuple[str, str]] = Counters(
            MeterName("penstock_refused_requests", "Requests refused before compute.", (*_CLASS, "reason"))
        )
        self.demotions: Counters[tuple[str, str]] = Counters(
            MeterName(
                "penstock_demoted_requests", "Requests admitted in a lower class.", ("from_class", "to_class")
            )
        )
        self.expired_rows: Counters[str] = Counters(
            MeterName("penstock_expired_rows", "Rows given up because their deadline had passed.", _CLASS)
        )
        self.shared_rows: Counters[tuple[()]] = Counters(
            MeterName("penstock_shared_rows", "Rows not computed because an identical one in flight was.")
        )
        self.tenant_requests: Counters[tuple[str, str]] = Counters(
            MeterName("penstock_tenant_requests", "Requests by tenant.", ("tenant", "outcome"))
        )
        self.tenant_tokens: Counters[str] = Counters(
            MeterName("penstock_tenant_tokens", "Tokens of answered requests by tenant.", ("tenant",))
        )

    def _count_batches(self) -> None:
        self.batches: Counters[tuple[str, str, str]] = Counters(
            MeterName("penstock_batches", "Batches computed.", ("lane_kind", "model", "version"))
        )
        self.batch_tokens: Counters[str] = Counters(
            MeterName("penstock_batch_tokens", "Tokens of batches, without padding.", _LANE)
        )
        self.padded_tokens: Counters[str] = Counters(
            MeterName("penstock_batch_padded_tokens", "Tokens of batches, with padding.", _LANE)
        )
        self.computed_rows: Counters[str] = Counters(
            MeterName(
                "penstock_computed_rows",
                "Rows computed; of the class bulk, its rate is that of jobs.",
                _CLASS,
            )
        )
        self.batch_rows: Histograms[str] = Histograms(
            MeterName("penstock_batch_rows", "Rows of a batch.", _LANE), ROWS_BOUNDS
        )
        self.batch_fill: Histograms[str] = Histograms(
            MeterName(
                "penstock_batch_fill_ratio",
                "Padded tokens of a batch over the most it may have; up to 4 for short bulk batches.",
                _LANE,
            ),
            FILL_BOUNDS,
        )
        self.batch_time: Histograms[str] = Histograms(
            MeterName("penstock_batch_duration_seconds", "How long a batch ran.", _LANE), LATENCY_BOUNDS_S
        )
        self.cost_error: Histograms[str] = Histograms(
            MeterName("penstock_cost_error_ratio", "Time a batch took over its upper prediction.", _LANE),
            ERROR_BOUNDS,
        )
        self.live_delay: Histograms[tuple[()]] = Histograms(
            MeterName(
                "penstock_live_wait_behind_bulk_seconds",
                "Wait of live work that arrived while the live lane ran a batch of other work.",
            ),
            LATENCY_BOUNDS_S,
        )

    @staticmethod
    def _latency(part: str, told: str) -> Histograms[str]:
        return Histograms(MeterName(f"penstock_request_{part}_seconds", told, _CLASS), LATENCY_BOUNDS_S)

    def counters(self) -> list[Counters[object]]:
        """All counters."""
        return [value for value in vars(self).values() if isinstance(value, Counters)]

    def histograms(self) -> list[Histograms[object]]:
        """All histograms."""
        return [value for value in vars(self).values() if isinstance(value, Histograms)]

    def rpc_ended(self, method: str, code: str) -> None:
        """Counts a call."""
        self.rpcs.add((method, code))

    def answered(self, method: str, tenant: str, rows: int, info: AnswerInfo) -> None:
        """Counts a request with its times."""
        numbers = self._answered.get((method, info.model, info.served_class))
        if numbers is None:
            numbers = self._new_answered(method, info)
        numbers.requests.value += 1
        numbers.rows.value += rows
        numbers.tokens.value += info.tokens
        numbers.total.add(info.total_ns * 1e-9)
        numbers.queue.add(info.queue_ns * 1e-9)
        numbers.tokenise.add(info.tokenise_ns * 1e-9)
        numbers.compute.add(info.compute_ns * 1e-9)
        requests, tokens = self._tenants.get(tenant) or self._new_tenant(tenant)
        requests.value += 1
        tokens.value += info.tokens

    def _new_answered(self, method: str, info: AnswerInfo) -> _Answered:
        served = class_label(info.served_class)
        key = (method, served, *info.model, ANSWERED)
        numbers = self._answered[method, info.model, info.served_class] = _Answered(
            requests=self.requests.of(key),
            rows=self.rows.of(key),
            tokens=self.tokens.of(served),
            total=self.total.of(served),
            queue=self.queue.of(served),
            tokenise=self.tokenise.of(served),
            compute=self.compute.of(served),
        )
        return numbers

    def not_answered(
        self,
        method: str,
        tenant: str,
        rows: int,
        model: ModelKey,
        request_class: RequestClass | None,
        why: str,
        limit: str = "",
    ) -> None:
        """Counts a request by why it has no answer."""
        asked, outcome = class_label(request_class), why.lower()
        key = (method, asked, *model, outcome)
        self.requests.add(key)
        self.rows.add(key, rows)
        if tenant not in self._tenants:
            self._new_tenant(tenant)
        named = tenant if tenant in self._tenants else OTHER_TENANTS
        self.tenant_requests.add((named, outcome))
        if why in _REFUSALS:
            self.refused.add((asked, (limit or why).lower()))

    def demoted(self, asked: RequestClass, served: RequestClass) -> None:
        """Counts a demotion."""
        self.demotions.add((class_label(asked), class_label(served)))

    def expired(self, part: BatchPart) -> None:
        """Counts rows that came too late."""
        self.expired_rows.add(class_label(part.work.request_class), len(part.rows))

    def rows_shared(self, rows: int) -> None:
        """Counts rows that were spared."""
        self.shared_rows.add((), rows)

    def batch_ran(self, lane_kind: str, plan: BatchPlan, times: BatchTimes) -> None:
        """Counts a batch."""
        numbers = self._batches.get((lane_kind, plan.model))
        if numbers is None:
            numbers = self._new_batches(lane_kind, plan.model)
        padded = plan.rows * plan.padded_length
        numbers.batches.value += 1
        numbers.tokens.value += plan.tokens
        numbers.padded.value += padded
        numbers.rows.add(plan.rows)
        numbers.fill.add(padded / numbers.tokens_max)
        numbers.time.add((times.end_ns - times.start_ns) * 1e-9)
        if plan.predicted_ns:
            numbers.cost_error.add(times.cpu_ns / plan.predicted_ns)
        for part in plan.parts:
            self.computed_rows.add(class_label(part.work.request_class), len(part.rows))

    def live_waited_behind_bulk(self, waited_ns: int) -> None:
        """Takes a delay."""
        self.live_delay.add((), waited_ns * 1e-9)

    def _new_batches(self, lane_kind: str, model: ModelKey) -> _Batches:
        numbers = self._batches[lane_kind, model] = _Batches(
            batches=self.batches.of((lane_kind, model.name, model.version)),
            tokens=self.batch_tokens.of(lane_kind),
            padded=self.padded_tokens.of(lane_kind),
            rows=self.batch_rows.of(lane_kind),
            fill=self.batch_fill.of(lane_kind),
            time=self.batch_time.of(lane_kind),
            cost_error=self.cost_error.of(lane_kind),
            tokens_max=self._fill_tokens[lane_kind],
        )
        return numbers

    def _new_tenant(self, tenant: str) -> tuple[Number, Number]:
        """The numbers of a tenant that has none yet: its own if there is room, else the others'."""
        if len(self._tenants) >= self._tenants_max:
            tenant = OTHER_TENANTS
        numbers = (self.tenant_requests.of((tenant, ANSWERED)), self.tenant_tokens.of(tenant))
        if tenant != OTHER_TENANTS:
            self._tenants[tenant] = numbers
        return numbers
