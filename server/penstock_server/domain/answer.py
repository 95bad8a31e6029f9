"""What comes back from a request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.explanation import Explanation
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestClass


@dataclass(frozen=True, slots=True)
class AnswerInfo:
    """What answered, and where the time went; times in nanoseconds.

    Attributes:
        model: The model version that answered.
        served_class: The class the request was served as, after any demotion.
        total_ns: From arrival until the answer was complete.
        tokenise_ns: Spent turning texts into ids.
        queue_ns: From admission until the last batch started.
        compute_ns: The longest batch.
        tokens: Tokens computed, without padding.
        truncated_rows: Rows that were cut to the limit.
        explanation: What happened to the request; None unless it asked.
        job_id: The job that computes the request after the call; empty if the call has its answer.
    """

    model: ModelKey
    served_class: RequestClass
    total_ns: int
    tokenise_ns: int
    queue_ns: int
    compute_ns: int
    tokens: int
    truncated_rows: int
    explanation: Explanation | None = None
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Answers of the embed task: float32 ``[rows, dimensions]``, C-contiguous."""

    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classifications:
    """Answers of the classify task, best label first.

    Attributes:
        label_ids: int32 ``[rows, k]``, indices into ``labels``.
        scores: float32 ``[rows, k]``.
        labels: The model's labels.
    """

    label_ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answers of a request's rows, in their order, with what is said of them.

    ``outcome`` is None where a job computes them: ``info.job_id`` names it.
    """

    outcome: Vectors | Classifications | None
    info: AnswerInfo
