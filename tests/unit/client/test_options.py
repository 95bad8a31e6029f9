"""The words of the client against the numbers of the contract."""

from __future__ import annotations

import pytest

from penstock import options
from penstock.v1 import bulk_pb2, common_pb2, inference_pb2, model_pb2


@pytest.mark.parametrize(
    ("kind", "contract"),
    [
        (options.Task, common_pb2.Task),
        (options.RequestClass, common_pb2.RequestClass),
        (options.OverloadPolicy, common_pb2.OverloadPolicy),
        (options.Truncation, common_pb2.Truncation),
        (options.ScoreFunction, common_pb2.ScoreFunction),
        (options.Aggregation, common_pb2.Aggregation),
        (options.StreamOrder, inference_pb2.StreamOrder),
        (options.FileFormat, bulk_pb2.FileFormat),
        (options.RowSelection, bulk_pb2.RowSelection),
        (options.JobState, bulk_pb2.JobState),
        (options.ModelState, model_pb2.ModelState),
    ],
)
def test_words_and_numbers_are_those_of_the_contract(kind: type[options.WireEnum], contract: object) -> None:
    numbers: dict[str, int] = dict(contract.items())  # type: ignore[attr-defined]  # pyright: ignore
    prefix = next(name for name, number in numbers.items() if number == 0).removesuffix("UNSPECIFIED")
    assert {f"{prefix}{member.name}": member.number for member in kind} == numbers
    assert all(member.value == member.name.lower() for member in kind)


def test_words_are_read_in_any_case() -> None:
    assert options.StreamOrder("AS-READY") is options.StreamOrder.AS_READY  # type: ignore[call-arg]  # pyright: ignore
    assert options.JobState("SUCCEEDED") == "succeeded"  # type: ignore[call-arg]  # pyright: ignore


def test_a_newer_servers_number_reads_as_unspecified() -> None:
    assert options.JobState.of_number(99) is options.JobState.UNSPECIFIED
