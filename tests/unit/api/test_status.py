from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from penstock_server.api.status import STATUS_BY_ERROR, code_of, status_of
from penstock_server.domain import errors


def all_errors() -> list[type[errors.PenstockError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type)
        and issubclass(value, errors.PenstockError)
        and value is not errors.PenstockError
    ]


def example(kind: type[errors.PenstockError]) -> errors.PenstockError:
    return kind("text", retry_after_s=1.5) if issubclass(kind, errors.Overloaded) else kind("text")


def test_every_error_has_exactly_one_status() -> None:
    assert set(STATUS_BY_ERROR) == set(all_errors())


@pytest.mark.parametrize("kind", all_errors())
def test_every_status_carries_error_info(kind: type[errors.PenstockError]) -> None:
    status = status_of(example(kind))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("penstock.dev", kind.reason)
    assert status.code == code_of(example(kind)).value[0]
    assert code_of(example(kind)) is not grpc.StatusCode.OK


def test_reasons_are_unique_and_upper_snake() -> None:
    reasons = [kind.reason for kind in all_errors()]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.replace("_", "").isalpha() and reason.isupper() for reason in reasons)


def test_invalid_request_names_its_fields() -> None:
    status = status_of(errors.InvalidRequest.of_field("inputs[3].text", "is empty"))
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert [violation.field for violation in bad_request.field_violations] == ["inputs[3].text"]


def test_overload_says_when_to_try_again() -> None:
    status = status_of(errors.Overloaded("full", retry_after_s=1.5))
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 1500
