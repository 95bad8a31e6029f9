"""Padded batches: what pack_rows writes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

import penstock_kernels._batch as native
from penstock_kernels import TokenRows, reference_batch

Batch = ModuleType


@pytest.fixture(params=[native, reference_batch], ids=["native", "reference"])
def kernel(request: pytest.FixtureRequest) -> Batch:
    module: Batch = request.param
    return module


def rows_of(*rows: list[int]) -> TokenRows:
    ids = [token_id for row in rows for token_id in row]
    return TokenRows(
        ids=np.array(ids, np.int32),
        type_ids=np.array([token_id % 2 for token_id in ids], np.uint8),
        starts=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        truncated=np.zeros(len(rows), np.bool_),
        valid=np.ones(len(rows), np.bool_),
    )


def indices(*rows: int) -> NDArray[np.int32]:
    return np.array(rows, np.int32)


def test_rows_of_several_parts_follow_each_other_padded(kernel: Batch) -> None:
    first, second = rows_of([1, 2], [3]), rows_of([], [4, 5, 6])
    ids, mask, types = (np.full((4, 3), -1, np.int64) for _ in range(3))
    kernel.pack_rows([(first, indices(1, 0)), (second, indices(1, 0))], 3, 9, ids, mask, types)
    assert ids.tolist() == [[3, 9, 9], [1, 2, 9], [4, 5, 6], [9, 9, 9]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert types.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_mask_and_type_ids_may_be_left_out(kernel: Batch) -> None:
    ids = np.full((1, 2), -1, np.int32)
    kernel.pack_rows([(rows_of([7]), indices(0))], 2, 0, ids, None, None)
    assert ids.tolist() == [[7, 0]]


def test_nothing_to_pack_is_fine(kernel: Batch) -> None:
    kernel.pack_rows([], 4, 0, np.empty((0, 4), np.int64), None, None)
    kernel.pack_rows([(rows_of([1]), indices())], 4, 0, np.empty((0, 4), np.int64), None, None)
    kernel.pack_rows([(rows_of([]), indices(0))], 0, 0, np.empty((1, 0), np.int64), None, None)


@pytest.mark.parametrize(
    ("shape", "row", "padded_length", "message"),
    [
        ((2, 3), 0, 3, r"must all be \[1, 3\] of one dtype"),
        ((1, 4), 0, 3, r"must all be \[1, 3\] of one dtype"),
        ((1, 3), 1, 3, "outside the 1 rows"),
        ((1, 3), -1, 3, "outside the 1 rows"),
        ((1, 1), 0, 1, "longer than padded_length, 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    kernel: Batch, shape: tuple[int, int], row: int, padded_length: int, message: str
) -> None:
    part = [(rows_of([1, 2]), indices(row))]
    with pytest.raises(ValueError, match=message):
        kernel.pack_rows(part, padded_length, 0, np.zeros(shape, np.int64), None, None)


def test_outputs_of_other_or_different_dtypes_are_refused(kernel: Batch) -> None:
    part = [(rows_of([1]), indices(0))]
    with pytest.raises(ValueError, match="int32 or int64, not float32"):
        kernel.pack_rows(part, 1, 0, np.zeros((1, 1), np.float32), None, None)
    with pytest.raises(ValueError, match="of one dtype"):
        kernel.pack_rows(part, 1, 0, np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int32), None)


@pytest.mark.parametrize(
    ("lengths", "out_shape"), [([1], (2, 4)), ([1, 4], (2, 4)), ([1, -1], (2, 4)), ([1, 1], (2, 3))]
)
def test_mean_pool_refuses_what_does_not_fit(
    kernel: Batch, lengths: list[int], out_shape: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=r"mean_pool needs|outside 0\.\.3"):
        kernel.mean_pool(np.zeros((2, 3, 4), np.float32), indices(*lengths), np.zeros(out_shape, np.float32))


def test_mean_pool_leaves_padding_out(kernel: Batch) -> None:
    hidden = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    out = np.full((2, 2), -1, np.float32)
    kernel.mean_pool(hidden, indices(2, 0), out)
    assert out.tolist() == [[1.0, 2.0], [0.0, 0.0]]


@pytest.mark.parametrize("starts", [[10**6, 10**6 + 3], [-2, 1], [3, 1], [0, 11]])
def test_rows_that_do_not_lie_within_the_ids_are_refused(kernel: Batch, starts: list[int]) -> None:
    sound = rows_of(list(range(10)))
    broken = replace(sound, starts=np.array(starts, np.int64))
    with pytest.raises(ValueError, match="starts"):
        kernel.pack_rows([(broken, indices(0))], 64, 0, np.zeros((1, 64), np.int64), None, None)


def test_missing_type_ids_are_refused(kernel: Batch) -> None:
    broken = replace(rows_of([1, 2, 3]), type_ids=np.zeros(1, np.uint8))
    out = [np.zeros((1, 3), np.int64) for _ in range(3)]
    with pytest.raises(ValueError, match="type ids"):
        kernel.pack_rows([(broken, indices(0))], 3, 0, *out)


def test_parts_may_come_from_a_generator(kernel: Batch) -> None:
    ids = np.full((2, 2), -7, np.int64)
    kernel.pack_rows((part for part in [(rows_of([1], [2, 3]), indices(1, 0))]), 2, 0, ids, None, None)
    assert ids.tolist() == [[2, 3], [1, 0]]
