"""Which gRPC status each error becomes: the only place that says so."""

from __future__ import annotations

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from penstock_server.domain import errors

DOMAIN = "penstock.dev"

STATUS_BY_ERROR: dict[type[errors.PenstockError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownModel: grpc.StatusCode.NOT_FOUND,
    errors.UnknownJob: grpc.StatusCode.NOT_FOUND,
    errors.UnknownSchedule: grpc.StatusCode.NOT_FOUND,
    errors.UnknownUpload: grpc.StatusCode.NOT_FOUND,
    errors.TaskNotSupported: grpc.StatusCode.FAILED_PRECONDITION,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TooManyFailedRows: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StorageFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StorageFailed: grpc.StatusCode.UNAVAILABLE,
    errors.PlaceFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeadlineUnmeetable: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ModelLoading: grpc.StatusCode.UNAVAILABLE,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.CorruptUpload: grpc.StatusCode.DATA_LOSS,
    errors.NotBuilt: grpc.StatusCode.UNIMPLEMENTED,
    errors.EngineFailed: grpc.StatusCode.INTERNAL,
    errors.ModelBroken: grpc.StatusCode.INTERNAL,
}

# Errors travel in trailers, of which gRPC takes 8 KiB by default; UTF-8 and base64 can make five of one.
_MESSAGE_CHARS_MAX = 400
_METADATA_CHARS_MAX = 120
_VIOLATIONS_MAX = 8

# When trying again makes sense after an UNAVAILABLE. Chosen: models load in about a second.
_UNAVAILABLE_RETRY_S = 1.0


def code_of(error: errors.PenstockError) -> grpc.StatusCode:
    """Returns the gRPC status of an error; INTERNAL for one that the table does not have."""
    return STATUS_BY_ERROR.get(type(error), grpc.StatusCode.INTERNAL)


def message_of(error: errors.PenstockError) -> str:
    """Returns an error's text as it is sent: cut, since it may repeat what the caller wrote."""
    return shorten(error.message, _MESSAGE_CHARS_MAX)


def shorten(text: str, chars_max: int) -> str:
    """Cuts a text in its middle."""
    if len(text) <= chars_max:
        return text
    half = (chars_max - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def retry_after_s(error: errors.PenstockError) -> float | None:
    """Returns when trying again makes sense, in seconds, or None if it does not."""
    if isinstance(error, errors.Overloaded):
        return error.retry_after_s
    if isinstance(error, errors.ModelLoading | errors.Draining):
        return _UNAVAILABLE_RETRY_S
    return None


def status_of(error: errors.PenstockError) -> status_pb2.Status:
    """Builds the status of an error, with ErrorInfo and, where they apply, BadRequest and RetryInfo."""
    code: int = code_of(error).value[0]
    status = status_pb2.Status(code=code, message=message_of(error))
    metadata = {name: shorten(value, _METADATA_CHARS_MAX) for name, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status.details.add().Pack(info)
    if isinstance(error, errors.InvalidRequest) and error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations[:_VIOLATIONS_MAX]:
            description = shorten(violation.description, _METADATA_CHARS_MAX)
            bad_request.field_violations.add(field=violation.field, description=description)
        status.details.add().Pack(bad_request)
    delay_s = retry_after_s(error)
    if delay_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(delay_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status
