"""Answers as messages: the same numbers, without holding the event loop."""

from __future__ import annotations

import time

import numpy as np
import pytest
from google.protobuf.message import Message

from penstock.v1 import common_pb2
from penstock_server.api import codec
from penstock_server.domain.answer import Classifications, Vectors

NUMBERS = common_pb2.VECTOR_FORMAT_REPEATED_FLOAT
# What the event loop may be held for; STYLE's millisecond, with room for a busy machine.
HELD_S_MAX = 0.003


# Lengths on the wire of one, two and three bytes.
@pytest.mark.parametrize("dimensions", [1, 31, 32, 384, 4095, 4096, 9000])
def test_vectors_as_numbers_are_the_vectors(dimensions: int) -> None:
    values = np.random.default_rng(dimensions).standard_normal((3, dimensions)).astype(np.float32)
    values[1, 0] = np.float32(-0.0)
    values[2, -1] = np.finfo(np.float32).tiny
    messages = codec.embeddings_to_proto(Vectors(values), NUMBERS)
    for message, row in zip(messages, values, strict=True):
        assert message == common_pb2.Embedding(values=row.tolist())
        assert (message.packed, len(message.values)) == (b"", dimensions)


def test_columns_of_a_larger_array_are_written_as_numbers_too() -> None:
    values = np.arange(24, dtype=np.float32).reshape(3, 8)[:, :5]
    assert [list(message.values) for message in codec.embeddings_to_proto(Vectors(values), NUMBERS)] == (
        values.tolist()
    )


def labels_of(rows: int, labels: int) -> Classifications:
    return Classifications(
        np.zeros((rows, labels), np.int32), np.zeros((rows, labels), np.float32), ("label",) * labels
    )


@pytest.mark.parametrize(
    ("outcome", "is_quick"),
    [
        (Vectors(np.zeros((256, 384), np.float32)), True),
        (Vectors(np.zeros((257, 384), np.float32)), False),
        (labels_of(256, 2), True),
        (labels_of(19, 28), False),
        (None, True),
    ],
)
def test_large_answers_leave_the_event_loop(
    outcome: Vectors | Classifications | None, is_quick: bool
) -> None:
    assert codec.is_quickly_written(outcome) == is_quick


@pytest.mark.parametrize(
    "outcome", [Vectors(np.ones((256, 384), np.float32)), labels_of(256, 2), labels_of(18, 28)]
)
def test_what_stays_on_the_event_loop_is_quick(outcome: Vectors | Classifications) -> None:
    def write() -> list[Message]:
        if isinstance(outcome, Vectors):
            return list(codec.embeddings_to_proto(outcome, NUMBERS))
        return list(codec.classifications_to_proto(outcome))

    def seconds() -> float:
        start_s = time.thread_time()
        write()
        return time.thread_time() - start_s

    assert codec.is_quickly_written(outcome)
    assert min(seconds() for _ in range(20)) < HELD_S_MAX
