"""Outputs that are kept for those who ask for the same rows again."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_kernels import TokenRows
from penstock_server.domain.errors import DeadlineUnmeetable, InvalidRequest
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPlan, BatchTimes
from penstock_server.runtime.clock import MonotonicClock
from penstock_server.runtime.dispatcher import Dispatcher
from penstock_server.runtime.lanes import BatchResult
from penstock_server.runtime.result_cache import ResultCache
from penstock_server.scheduling.scheduler import LaneKind, Scheduler
from tests.support.costs import FixedCosts
from tests.support.work import MODEL, RecordingSink, make_work, token_rows
from tests.unit.runtime.test_dispatcher import LIMITS, RowLane, settle

WIDTH = 4
ENTRY_BYTES = 190 + WIDTH * 4


def some(*indices: int) -> NDArray[np.int32]:
    return np.array(indices, np.int32)


def outputs(rows: int) -> NDArray[np.float32]:
    return np.arange(rows * WIDTH, dtype=np.float32).reshape(rows, WIDTH)


def test_rows_are_found_with_their_outputs_and_the_others_named() -> None:
    cache = ResultCache(1 << 20)
    tokens = token_rows([3, 1, 2])
    cache.keep(MODEL, "", tokens, some(2, 0), outputs(2))
    found = cache.find(MODEL, "", tokens, some(0, 1, 2))
    assert found is not None
    assert (found.rows.tolist(), found.missing.tolist()) == ([0, 2], [1])
    assert found.outputs.tolist() == outputs(2)[[1, 0]].tolist()
    assert cache.counts() == (2, 1, 2, 2 * ENTRY_BYTES)


def test_nothing_is_found_by_another_version_tenant_or_row() -> None:
    cache = ResultCache(1 << 20)
    tokens = token_rows([3])
    cache.keep(ModelKey("ab", "1"), "c", tokens, some(0), outputs(1))
    assert cache.find(ModelKey("ab", "2"), "c", tokens, some(0)) is None
    assert cache.find(ModelKey("ab", "1"), "", tokens, some(0)) is None
    # The same characters, cut elsewhere.
    assert cache.find(ModelKey("a", "b1"), "c", tokens, some(0)) is None
    assert cache.find(ModelKey("ab", "1"), "c", token_rows([4]), some(0)) is None
    pair = TokenRows(tokens.ids, np.array([0, 0, 1], np.uint8), tokens.starts, tokens.truncated, tokens.valid)
    assert cache.find(ModelKey("ab", "1"), "c", pair, some(0)) is None
    assert cache.find(ModelKey("ab", "1"), "c", tokens, some(0)) is not None


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    cache = ResultCache(3 * ENTRY_BYTES)
    tokens = token_rows([1, 2, 3, 4])
    cache.keep(MODEL, "", tokens, some(0, 1, 2), outputs(3))
    assert cache.find(MODEL, "", tokens, some(0)) is not None
    cache.keep(MODEL, "", tokens, some(3), outputs(1))
    found = cache.find(MODEL, "", tokens, some(0, 1, 2, 3))
    assert found is not None
    assert found.rows.tolist() == [0, 2, 3]
    assert cache.counts().bytes == 3 * ENTRY_BYTES


def test_a_row_that_is_kept_twice_counts_once() -> None:
    cache = ResultCache(1 << 20)
    tokens = token_rows([1])
    for first in (0, 1):
        cache.keep(MODEL, "", tokens, some(0), outputs(2)[first:][:1])
    assert (cache.counts().entries, cache.counts().bytes) == (1, ENTRY_BYTES)


def test_what_is_no_number_is_not_kept() -> None:
    cache = ResultCache(1 << 20)
    tokens = token_rows([1, 2])
    broken = outputs(2)
    broken[0, 1] = np.nan
    cache.keep(MODEL, "", tokens, some(0, 1), broken)
    found = cache.find(MODEL, "", tokens, some(0, 1))
    assert found is not None
    assert found.rows.tolist() == [1]


def test_a_bound_below_one_entry_keeps_nothing() -> None:
    cache = ResultCache(1)
    cache.keep(MODEL, "", token_rows([1]), some(0), outputs(1))
    assert cache.counts() == (0, 0, 0, 0)


def dispatcher(lane: RowLane) -> Dispatcher:
    return Dispatcher(Scheduler(LIMITS, FixedCosts()), [lane], MonotonicClock(), cache=ResultCache(1 << 20))


async def test_a_call_computes_only_what_no_call_has_computed() -> None:
    lane = RowLane()
    target = dispatcher(lane)
    target.start()
    first, _ = make_work([3, 1])
    target.submit(first)
    await settle()
    # Rows 0 and 1 are as before.
    second, sink = make_work([3, 1, 2])
    target.submit(second)
    await settle()
    third, all_there = make_work([3, 1, 2])
    target.submit(third)
    await settle()
    await target.close()
    assert lane.batches == [[1000, 1001], [1002]]
    assert sink.outputs == all_there.outputs == {0: [1000.0], 1: [1001.0], 2: [1002.0]}
    assert (first.cached_rows, second.cached_rows, third.cached_rows) == (0, 2, 3)


async def test_a_call_that_is_refused_gets_nothing_and_may_come_again() -> None:
    lane = RowLane()
    target = dispatcher(lane)
    target.start()
    target.submit(make_work([3])[0])
    await settle()
    late, late_sink = make_work([3], deadline_ns=1)
    with pytest.raises(DeadlineUnmeetable):
        target.submit(late)
    big, big_sink = make_work([3, 20_000])
    with pytest.raises(InvalidRequest):
        target.submit(big)
    await settle()
    assert (late_sink.outputs, big_sink.outputs) == ({}, {})
    assert big.rows.tolist() == [0, 1]
    await target.close()


async def test_a_cancelled_call_hears_nothing() -> None:
    lane = RowLane()
    target = dispatcher(lane)
    target.start()
    target.submit(make_work([3])[0])
    await settle()
    work, sink = make_work([3])
    target.submit(work)
    target.cancel(work)
    await asyncio.sleep(0)
    assert sink.outputs == {}
    await target.close()


async def test_a_job_is_charged_for_its_rows_of_a_batch_only() -> None:
    class CostSink(RecordingSink):
        cost_ns = 0

        def deliver(self, rows: NDArray[np.int32], outputs: NDArray[np.float32], times: BatchTimes) -> None:
            self.cost_ns += times.cpu_ns

    class DearLane(RowLane):
        kind = LaneKind.BULK

        async def run(self, plan: BatchPlan, *, alone: bool = False) -> BatchResult:
            result = await super().run(plan, alone=alone)
            return BatchResult(result.outputs, BatchTimes(1, 2, 1000))

    target = dispatcher(DearLane())
    sinks = [CostSink(), CostSink()]
    for sink, lengths in zip(sinks, ([6], [2, 2]), strict=True):
        work, _ = make_work(lengths, request_class=RequestClass.BULK)
        work.sink, work.flow = sink, f"job of {lengths}"
        target.submit(work)
    target.start()
    await settle()
    await target.close()
    assert [sink.cost_ns for sink in sinks] == [600, 400]


async def test_rows_of_jobs_are_not_looked_up_again() -> None:
    lane = RowLane()
    target = dispatcher(lane)
    target.start()
    target.submit(make_work([3])[0])
    await settle()
    work, _ = make_work([3], request_class=RequestClass.BULK)
    work.flow = "job"
    target.submit(work)
    assert work.rows.tolist() == [0]
    await target.close()
