"""Every error that Penstock reports, as one tree.

PenstockError
├── InvalidRequest          the caller sent something that can never work
├── UnknownModel, UnknownJob, UnknownUpload
├── TaskNotSupported        the model does not do this task
├── WrongState              the job or upload is not in the state the call needs
├── TooManyFailedRows       more rows of a job failed than its maker allows
├── Overloaded              a queue, token or tenant limit is reached; later may work
├── DeadlineUnmeetable      the deadline has passed, or cannot be met even by an idle lane
├── ModelLoading, Draining  not now; soon, or from another server
├── Cancelled               the caller went away
├── CorruptUpload           bytes that arrived differ from the bytes that were sent
├── StorageFull             the server's disk has no room
├── StorageFailed           the server's disk did not take what it was given
├── PlaceFailed             a place that a URL names cannot be reached
├── NotBuilt                in the contract, not in this release
├── EngineFailed            the model could not compute this row
└── ModelBroken             a model folder that cannot be loaded

``api/status.py`` maps each to a gRPC status exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is wrong, and why."""

    field: str
    description: str


class PenstockError(Exception):
    """Base of all errors that a caller may see.

    Args:
        message: What happened and what the caller can do, in one or two sentences.
        metadata: Names and values for programs; becomes ``google.rpc.ErrorInfo.metadata``.
    """

    reason = "INTERNAL"

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata


class InvalidRequest(PenstockError):
    """The request can never work as it is."""

    reason = "INVALID_REQUEST"

    def __init__(self, message: str, violations: Sequence[FieldViolation] = (), **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.violations = tuple(violations)

    @classmethod
    def of_field(cls, field: str, description: str) -> InvalidRequest:
        """Builds the error for a single wrong field."""
        return cls(f"{field}: {description}", [FieldViolation(field, description)])


class UnknownModel(PenstockError):
    """No such model, or no such version of it."""

    reason = "UNKNOWN_MODEL"


class UnknownJob(PenstockError):
    """No such job."""

    reason = "UNKNOWN_JOB"


class UnknownSchedule(PenstockError):
    """No such schedule."""

    reason = "UNKNOWN_SCHEDULE"


class UnknownUpload(PenstockError):
    """No such upload."""

    reason = "UNKNOWN_UPLOAD"


class TaskNotSupported(PenstockError):
    """The model does not do this task."""

    reason = "TASK_NOT_SUPPORTED"


class WrongState(PenstockError):
    """The job or upload is not in the state that the call needs."""

    reason = "WRONG_STATE"


class TooManyFailedRows(PenstockError):
    """More rows of a job failed than its maker allows; what is done is kept."""

    reason = "TOO_MANY_FAILED_ROWS"


class Overloaded(PenstockError):
    """A limit is reached now.

    Args:
        retry_after_s: When trying again makes sense, in seconds.
    """

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_s: float, **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.retry_after_s = retry_after_s


class DeadlineUnmeetable(PenstockError):
    """The deadline has passed or cannot be met; nothing was computed."""

    reason = "DEADLINE_UNMEETABLE"


class ModelLoading(PenstockError):
    """The model is being loaded."""

    reason = "MODEL_LOADING"


class Draining(PenstockError):
    """The server is shutting down and takes no new work."""

    reason = "DRAINING"


class Cancelled(PenstockError):
    """The caller went away."""

    reason = "CANCELLED"


class CorruptUpload(PenstockError):
    """A checksum does not match."""

    reason = "CORRUPT_UPLOAD"


class StorageFull(PenstockError):
    """There is no room on the server's disk, or a storage limit is reached."""

    reason = "STORAGE_FULL"


class StorageFailed(PenstockError):
    """The server's disk failed to keep what it was given; nothing of it counts."""

    reason = "STORAGE_FAILED"


class PlaceFailed(PenstockError):
    """A place that a URL names cannot be reached, read or written now."""

    reason = "PLACE_FAILED"


class NotBuilt(PenstockError):
    """Part of the contract that this release does not have yet."""

    reason = "NOT_IN_THIS_RELEASE"


class EngineFailed(PenstockError):
    """The engine could not compute a row."""

    reason = "ENGINE_FAILED"


class ModelBroken(PenstockError):
    """A model folder cannot be loaded."""

    reason = "MODEL_BROKEN"
