"""The models of a server, and its health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf import wrappers_pb2

from penstock.errors import ErrorDetails, NotFoundError
from penstock.exchange import Deadline, Exchange, ask
from penstock.methods import GET_MODEL, HEALTH_CHECK, LIST_MODELS
from penstock.options import LaneKind, ModelState, Task
from penstock.v1 import model_pb2

# Ten nanoseconds: more digits would be those of the single-precision numbers that were sent.
_COST_DIGITS = 5


class HealthStatus(IntEnum):
    """What a server says of its health; the numbers are those of grpc.health.v1."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3

    @property
    def is_serving(self) -> bool:
        """Whether requests are answered."""
        return self is HealthStatus.SERVING


@dataclass(frozen=True, slots=True)
class CostTable:
    """What the server has learnt of the time that batches of a model take.

    Attributes:
        lane: On which kind of lane. Bulk times are CPU time, as bulk work takes what live work leaves.
        rows: Row counts of the table, increasing.
        lengths: Padded lengths of the table in tokens, increasing.
        median_ms: Median time in milliseconds of each row count, by length.
        upper_ms: Time in milliseconds that about one batch in a hundred exceeds.
        best_rows: For each length the smallest row count with nearly the best throughput.
        observations: Batches it has learnt from since the server started.
        drift: By how much all batches have become slower since then; 1 for not at all.
    """

    lane: LaneKind
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    median_ms: tuple[tuple[float, ...], ...]
    upper_ms: tuple[tuple[float, ...], ...]
    best_rows: tuple[int, ...]
    observations: int
    drift: float

    @classmethod
    def of(cls, message: model_pb2.CostTable) -> CostTable:
        """Reads the server's message."""
        width = len(message.lengths)

        def by_rows(values: Sequence[float]) -> tuple[tuple[float, ...], ...]:
            rounded = tuple(round(value, _COST_DIGITS) for value in values)
            return tuple(
                rounded[first : first + width] for first in range(0, width * len(message.rows), width)
            )

        return cls(
            LaneKind.of_number(message.lane),
            tuple(message.rows),
            tuple(message.lengths),
            by_rows(message.median_ms),
            by_rows(message.upper_ms),
            tuple(message.best_rows),
            message.observations,
            round(message.drift, _COST_DIGITS),
        )


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model.

    Attributes:
        version: The version.
        state: Where it stands.
        error: Why it could not be loaded; empty otherwise.
        task: What it computes.
        tokens_max: Longest token count of a text, special tokens included.
        dimensions: Dimensions of the vectors; 0 for models that do not embed.
        labels: Labels in the order of the model's outputs.
        engine: What computes it, such as "onnxruntime/cpu".
        precision: Precision of the weights as stored.
        costs: What its batches cost, on each kind of lane; empty in lists of models.
    """

    version: str
    state: ModelState
    error: str
    task: Task
    tokens_max: int
    dimensions: int
    labels: tuple[str, ...]
    engine: str
    precision: str
    costs: tuple[CostTable, ...] = ()

    @classmethod
    def of(cls, message: model_pb2.ModelVersion) -> ModelVersion:
        """Reads the server's message."""
        return cls(
            message.version,
            ModelState.of_number(message.state),
            message.error,
            Task.of_number(message.task),
            message.tokens_max,
            message.dimensions,
            tuple(message.labels),
            message.engine,
            message.precision,
            tuple(CostTable.of(table) for table in message.costs),
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A model with its versions, newest first."""

    name: str
    versions: tuple[ModelVersion, ...]

    @classmethod
    def of(cls, message: model_pb2.Model) -> Model:
        """Reads the server's message."""
        return cls(message.name, tuple(ModelVersion.of(each) for each in message.versions))


def list_models(timeout_s: float | None) -> Exchange[list[Model]]:
    """Asks for all models, by name."""
    response = yield from ask(LIST_MODELS, model_pb2.ListModelsRequest(), Deadline(timeout_s))
    return [Model.of(each) for each in response.models]


def get_model(name: str, timeout_s: float | None) -> Exchange[Model]:
    """Asks for one model."""
    response = yield from ask(GET_MODEL, model_pb2.GetModelRequest(name=name), Deadline(timeout_s))
    return Model.of(response.model)


def health(model: str, timeout_s: float | None) -> Exchange[HealthStatus]:
    """Asks whether the server (empty name) or one model answers requests."""
    request = wrappers_pb2.StringValue(value=model)
    try:
        response = yield from ask(HEALTH_CHECK, request, Deadline(timeout_s))
    except NotFoundError as error:
        raise NotFoundError(f"the server has no model {model!r}", ErrorDetails("UNKNOWN_MODEL")) from error
    known = {status.value for status in HealthStatus}
    return HealthStatus(response.value) if response.value in known else HealthStatus.UNKNOWN
