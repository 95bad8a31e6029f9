"""Client for Penstock, one gRPC server for live and bulk NLP inference.

    import penstock

    with penstock.Client("127.0.0.1:50051") as client:
        vectors = client.embed(["a text", "another"], model="minilm")

Names load on first use, so that ``penstock.v1``, the generated messages, can be imported alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.answers import (
        AnswerInfo,
        Classification,
        Classifications,
        LabelScore,
        RankedDocument,
        Ranking,
        Span,
        TagLists,
        Timings,
        Tokenizations,
        Tokens,
    )
    from penstock.async_client import AsyncClient
    from penstock.client import Client
    from penstock.errors import (
        CallCancelledError,
        DataLossError,
        DeadlineExceededError,
        FailedPreconditionError,
        InternalError,
        InvalidRequestError,
        NotFoundError,
        OverloadedError,
        PenstockError,
        PermissionDeniedError,
        TaskNotSupportedError,
        UnauthenticatedError,
        UnavailableError,
        UnimplementedError,
        Violation,
        WrongStateError,
    )
    from penstock.explanations import BatchExplanation, Explanation
    from penstock.jobs import Job, Progress, RowResult
    from penstock.models import CostTable, HealthStatus, Model, ModelVersion
    from penstock.options import (
        Aggregation,
        FileFormat,
        JobState,
        LaneKind,
        ModelState,
        OverloadPolicy,
        RequestClass,
        RowSelection,
        ScoreFunction,
        StreamOrder,
        Task,
        TimeWindow,
        Truncation,
    )
    from penstock.schedule import Schedule, ScheduleRun
    from penstock.stream import SentenceRange, StreamAppend, StreamResult, StreamText
    from penstock.vectors import Embedding, Embeddings

__version__ = "0.1.0"

_HOMES = {
    "answers": (
        "AnswerInfo Classification Classifications LabelScore RankedDocument Ranking "
        "Span TagLists Timings Tokenizations Tokens"
    ),
    "async_client": "AsyncClient",
    "client": "Client",
    "errors": (
        "CallCancelledError DataLossError DeadlineExceededError FailedPreconditionError InternalError "
        "InvalidRequestError NotFoundError OverloadedError PenstockError PermissionDeniedError "
        "TaskNotSupportedError UnauthenticatedError UnavailableError UnimplementedError Violation "
        "WrongStateError"
    ),
    "explanations": "BatchExplanation Explanation",
    "jobs": "Job Progress RowResult",
    "models": "CostTable HealthStatus Model ModelVersion",
    "options": (
        "Aggregation FileFormat JobState LaneKind ModelState OverloadPolicy RequestClass RowSelection "
        "ScoreFunction StreamOrder Task TimeWindow Truncation"
    ),
    "schedule": "Schedule ScheduleRun",
    "stream": "SentenceRange StreamAppend StreamResult StreamText",
    "vectors": "Embedding Embeddings",
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Aggregation",
    "AnswerInfo",
    "AsyncClient",
    "BatchExplanation",
    "CallCancelledError",
    "Classification",
    "Classifications",
    "Client",
    "CostTable",
    "DataLossError",
    "DeadlineExceededError",
    "Embedding",
    "Embeddings",
    "Explanation",
    "FailedPreconditionError",
    "FileFormat",
    "HealthStatus",
    "InternalError",
    "InvalidRequestError",
    "Job",
    "JobState",
    "LabelScore",
    "LaneKind",
    "Model",
    "ModelState",
    "ModelVersion",
    "NotFoundError",
    "OverloadPolicy",
    "OverloadedError",
    "PenstockError",
    "PermissionDeniedError",
    "Progress",
    "RankedDocument",
    "Ranking",
    "RequestClass",
    "RowResult",
    "RowSelection",
    "Schedule",
    "ScheduleRun",
    "ScoreFunction",
    "SentenceRange",
    "Span",
    "StreamAppend",
    "StreamOrder",
    "StreamResult",
    "StreamText",
    "TagLists",
    "Task",
    "TaskNotSupportedError",
    "TimeWindow",
    "Timings",
    "Tokenizations",
    "Tokens",
    "Truncation",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Violation",
    "WrongStateError",
]


def __getattr__(name: str) -> object:
    """Loads the module that holds ``name``, on first use."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"penstock.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
