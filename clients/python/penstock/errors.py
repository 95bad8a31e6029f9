"""Every error that a call can raise, as one tree that mirrors the gRPC statuses.

PenstockError
├── InvalidRequestError       the request can never work as it is; see ``violations``
├── NotFoundError             no such model, job, schedule or upload
├── FailedPreconditionError
│   ├── TaskNotSupportedError the model does not do this task
│   └── WrongStateError       the job or upload is not in the state the call needs
├── OverloadedError           a limit is reached; see ``retry_after_s``
├── DeadlineExceededError     the deadline has passed or cannot be met
├── UnavailableError          no server there, or it is loading or draining
├── CallCancelledError        the call was cancelled
├── UnauthenticatedError, PermissionDeniedError
├── UnimplementedError        in the contract, not in this release of the server
├── DataLossError             bytes that arrived differ from the bytes that were sent
└── InternalError             the server failed; ``metadata`` has the incident's id
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

_DETAILS_KEY = "grpc-status-details-bin"
_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that is wrong, and why."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What the server says of an error beside its text.

    Attributes:
        reason: What happened, in UPPER_SNAKE, for programs.
        metadata: Names and values for programs.
        violations: Fields of the request that are wrong.
        retry_after_s: When trying again makes sense, in seconds; None if the server does not say.
    """

    reason: str = ""
    metadata: Mapping[str, str] | None = None
    violations: tuple[Violation, ...] = ()
    retry_after_s: float | None = None


class PenstockError(Exception):
    """Base of all errors that a call can raise.

    Attributes:
        message: What happened, and what to do about it.
        status: Name of the gRPC status, such as ``"NOT_FOUND"``.
        reason: What happened, in UPPER_SNAKE, for programs; empty if the server did not say.
        metadata: Names and values for programs.
        violations: Fields of the request that are wrong.
        retry_after_s: When trying again makes sense, in seconds; None if the server did not say.
    """

    status = "UNKNOWN"

    def __init__(self, message: str, details: ErrorDetails | None = None, *, status: str = "") -> None:
        super().__init__(message)
        details = details or ErrorDetails()
        self.message = message
        self.status = status or type(self).status
        self.reason = details.reason
        self.metadata = dict(details.metadata or {})
        self.violations = details.violations
        self.retry_after_s = details.retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message,), self.__dict__


class InvalidRequestError(PenstockError):
    """The request can never work as it is."""

    status = "INVALID_ARGUMENT"


class NotFoundError(PenstockError):
    """No such model, job, schedule or upload."""

    status = "NOT_FOUND"


class FailedPreconditionError(PenstockError):
    """The model, job or upload is not what the call needs."""

    status = "FAILED_PRECONDITION"


class TaskNotSupportedError(FailedPreconditionError):
    """The model does not do this task."""


class WrongStateError(FailedPreconditionError):
    """The job or upload is not in the state that the call needs."""


class OverloadedError(PenstockError):
    """A limit of the server is reached; with ``retry_after_s`` set, trying again then may work."""

    status = "RESOURCE_EXHAUSTED"


class DeadlineExceededError(PenstockError):
    """The deadline has passed, or the server saw that it cannot be met."""

    status = "DEADLINE_EXCEEDED"


class UnavailableError(PenstockError):
    """No server answers there, or it is loading the model or shutting down."""

    status = "UNAVAILABLE"


class CallCancelledError(PenstockError):
    """The call was cancelled before its answer came."""

    status = "CANCELLED"


class UnauthenticatedError(PenstockError):
    """The server wants credentials."""

    status = "UNAUTHENTICATED"


class PermissionDeniedError(PenstockError):
    """The credentials do not allow this."""

    status = "PERMISSION_DENIED"


class UnimplementedError(PenstockError):
    """This release of the server does not do that yet."""

    status = "UNIMPLEMENTED"


class DataLossError(PenstockError):
    """Bytes that arrived differ from the bytes that were sent."""

    status = "DATA_LOSS"


class InternalError(PenstockError):
    """The server failed; ``metadata["incident"]`` names the line in its log, if it said so."""

    status = "INTERNAL"


_BY_STATUS: dict[str, type[PenstockError]] = {
    kind.status: kind
    for kind in (
        InvalidRequestError,
        NotFoundError,
        FailedPreconditionError,
        OverloadedError,
        DeadlineExceededError,
        UnavailableError,
        CallCancelledError,
        UnauthenticatedError,
        PermissionDeniedError,
        UnimplementedError,
        DataLossError,
        InternalError,
    )
}
_BY_REASON: dict[str, type[PenstockError]] = {
    "TASK_NOT_SUPPORTED": TaskNotSupportedError,
    "WRONG_STATE": WrongStateError,
}


def of_rpc_error(error: grpc.RpcError, address: str) -> PenstockError:
    """Turns what grpc raised into one of ours, with the details that the server sent.

    Args:
        error: A failed call, of ``grpc`` or ``grpc.aio``.
        address: Where the call went, for the text of errors that no server sent.
    """
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return InternalError(f"the call failed without a status: {error!r}")
    code, text = error.code(), error.details() or ""
    details = _details_of(_rich_status(error.trailing_metadata() or ()).details)
    if code is grpc.StatusCode.UNAVAILABLE and not details.reason:
        # gRPC begins with how many addresses it tried; what went wrong with the last one is the news.
        why = text.rpartition("last error: ")[2]
        text = f"no server answers at {address}; start one with `penstock serve` ({why})"
        details = ErrorDetails("SERVER_UNREACHABLE", {"address": address})
    return _error_of(code.name, text, details)


def of_status(status: status_pb2.Status) -> PenstockError:
    """Turns the status of one text or row into the error that a call would have raised."""
    code = _STATUS_CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _error_of(code.name, status.message, _details_of(status.details))


def _error_of(status: str, text: str, details: ErrorDetails) -> PenstockError:
    kind = _BY_REASON.get(details.reason) or _BY_STATUS.get(status, PenstockError)
    return kind(text or f"the server answered {status} without a text", details, status=status)


def _rich_status(trailing: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status:
    for key, value in trailing:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                # A proxy's garbage must not hide the status itself.
                break
    return status_pb2.Status()


def _details_of(packed: Iterable[AnyMessage]) -> ErrorDetails:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad = error_details_pb2.BadRequest()
    retry_after_s: float | None = None
    for item in packed:
        try:
            if not item.Unpack(info) and not item.Unpack(bad) and item.Unpack(retry):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
        except DecodeError:
            continue
    violations = tuple(Violation(each.field, each.description) for each in bad.field_violations)
    return ErrorDetails(info.reason, dict(info.metadata), violations, retry_after_s)
