"""Work: tokenised rows on their way through the scheduler to an engine and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.errors import PenstockError
from penstock_server.domain.explanation import BatchRun
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestClass

if TYPE_CHECKING:
    from penstock_kernels import TokenRows


IdArray: TypeAlias = NDArray[np.int64] | NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """When a batch ran, and what it cost; nanoseconds.

    Attributes:
        start_ns: When it began, on the server's monotonic clock.
        end_ns: When it ended.
        cpu_ns: What it cost its lane; cost models learn from it. On bulk lanes, which run at idle priority,
            one thread each: the CPU time of that thread, as the time that passes tells how much live work
            there was. On live lanes, which have several threads and give way to nobody, the time that passed.
    """

    start_ns: int
    end_ns: int
    cpu_ns: int


class RowSink(Protocol):
    """Takes the outputs of a Work's rows. Called on the event loop; must not block.

    Every row of a Work is delivered or failed exactly once, unless the Work was cancelled.
    """

    def deliver(self, rows: NDArray[np.int32], outputs: NDArray[np.float32], times: BatchTimes) -> None:
        """Takes outputs, float32 ``[len(rows), width]``, for the rows of these indices.

        ``times.cpu_ns`` is what falls to them of the batch, if they are a job's.
        """

    def fail(self, rows: NDArray[np.int32], error: PenstockError) -> None:
        """Takes the reason why the rows of these indices have no outputs."""


@dataclass(eq=False, slots=True)
class Work:
    """Rows of one request or of one window of a job, for one model version.

    Attributes:
        model: Which model version computes the rows.
        request_class: How urgent they are.
        tokens: The tokenised rows.
        rows: Indices into ``tokens`` of the rows to compute; int32.
        sink: Takes the outputs.
        arrival_ns: When the work was submitted.
        deadline_ns: When the answer stops being of use; None for never.
        cancelled: Set by the scheduler's ``cancel``; rows not yet in a batch are dropped.
        started: Whether any row has been put into a batch.
        cached_rows: Rows that were not queued, since their outputs were there.
        runs: Takes the batches that computed its rows; None where nobody wants to know.
        tenant: Who asks; tenants share the lanes by their policies.
        flow: The job that it is of; empty for a tenant's calls.
        weight: The job's share of the bulk lanes against others, above 0.
    """

    model: ModelKey
    request_class: RequestClass
    tokens: TokenRows
    rows: NDArray[np.int32]
    sink: RowSink
    arrival_ns: int
    deadline_ns: int | None = None
    cancelled: bool = False
    started: bool = False
    cached_rows: int = 0
    runs: list[BatchRun] | None = None
    tenant: str = ""
    flow: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Some rows of one Work in a batch."""

    work: Work
    rows: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Which rows make the next batch on a lane; the order of parts is the order of rows.

    Attributes:
        model: All parts are of this model version.
        parts: The rows, by Work.
        rows: Number of rows.
        padded_length: Tokens of the longest row; every row takes this much room.
        tokens: Tokens without padding.
        predicted_ns: What it costs at most, as the scheduler believes; 0 if it was not asked.
    """

    model: ModelKey
    parts: tuple[BatchPart, ...]
    rows: int
    padded_length: int
    tokens: int
    predicted_ns: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as an engine reads it: C-contiguous arrays ``[rows, padded_length]``.

    Attributes:
        token_ids: int64 or int32, as the engine asks; padded with the model's pad id.
        attention_mask: Same dtype; 1 for tokens, 0 for padding.
        type_ids: Same dtype; 0 for the first text, 1 for the second.
    """

    token_ids: IdArray
    attention_mask: IdArray
    type_ids: IdArray

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return int(self.token_ids.shape[0])

    @property
    def padded_length(self) -> int:
        """Tokens of the longest row."""
        return int(self.token_ids.shape[1])
