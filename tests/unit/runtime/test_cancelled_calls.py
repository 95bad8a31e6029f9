"""What a caller has gone away from is not computed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest

from penstock_server.config import QueueLimits, RequestLimits
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.tasks import RequestClass, RequestOptions, Task, TaskOptions
from penstock_server.domain.work import BatchPlan, BatchTimes
from penstock_server.models.repository import ModelRepository
from penstock_server.runtime.dispatcher import Dispatcher
from penstock_server.runtime.inference import Inference
from penstock_server.runtime.lanes import BatchResult
from penstock_server.runtime.model_table import ModelTable
from penstock_server.runtime.request_ticket import InferenceCall, TextRow
from penstock_server.scheduling.scheduler import Scheduler, SchedulerLimits
from penstock_server.text.tokenizer import TokenizerLimits
from tests.support.bulk_jobs import WIDTH, ManualClock, settle, sums_model
from tests.support.costs import FixedCosts

LIMITS = SchedulerLimits(
    10_000, 10_000, 10_000, live_batch_tokens_max=100, bulk_batch_tokens=100, lookahead_rows=8
)


class HeldLane:
    """Takes a batch at a time and keeps it until it is let go."""

    kind = LaneKind.LIVE
    slots = 1
    name = "held"

    def __init__(self) -> None:
        self.rows = 0
        self.gate = asyncio.Event()

    async def prepare(self, manifest: ModelManifest) -> None:
        return

    async def run(self, plan: BatchPlan, *, alone: bool = False) -> BatchResult:
        self.rows += plan.rows
        await self.gate.wait()
        return BatchResult(np.ones((plan.rows, WIDTH), np.float32), BatchTimes(1, 2, 1))

    async def close(self) -> None:
        return


class Bench:
    """Inference over one held lane."""

    def __init__(self, folder: Path) -> None:
        self.lane = HeldLane()
        clock = ManualClock()
        self.scheduler = Scheduler(LIMITS, FixedCosts())
        self.dispatcher = Dispatcher(self.scheduler, [self.lane], clock)
        models = ModelTable(ModelRepository(folder), [], TokenizerLimits())
        self.inference = Inference(
            models, self.dispatcher, RequestLimits(), QueueLimits(), clock, tokenizer_threads=1
        )
        self._model = sums_model(folder)

    def call(self) -> InferenceCall:
        options = RequestOptions(request_class=RequestClass.LIVE)
        return InferenceCall(self._model, TaskOptions(Task.EMBED), options, deadline_ns=None)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    bench = Bench(tmp_path)
    bench.dispatcher.start()
    yield bench
    bench.lane.gate.set()
    await bench.dispatcher.close()
    bench.inference.close()


async def test_rows_of_a_cancelled_call_are_dropped(bench: Bench) -> None:
    first = asyncio.create_task(bench.inference.answer(bench.call(), [TextRow("a")]))
    await settle()
    assert bench.lane.rows == 1
    second = asyncio.create_task(bench.inference.answer(bench.call(), [TextRow("b c"), TextRow("d e f")]))
    await settle()
    assert bench.scheduler.depth(RequestClass.LIVE).rows == 2
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert second.cancelled()
    assert bench.scheduler.depth(RequestClass.LIVE).rows == 0
    bench.lane.gate.set()
    await first
    await settle()
    assert bench.lane.rows == 1


async def test_a_call_cancelled_while_it_is_computed_ends_quietly(bench: Bench) -> None:
    call = asyncio.create_task(bench.inference.answer(bench.call(), [TextRow("a")]))
    await settle()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    bench.lane.gate.set()
    await settle()
    # The lane goes on with whoever comes next.
    assert (await bench.inference.answer(bench.call(), [TextRow("b")])).outcome is not None


async def test_a_call_cancelled_with_its_answer_there_is_not_dropped(bench: Bench) -> None:
    ticket = bench.inference.submit(bench.call(), TextRow("a"))
    bench.lane.gate.set()
    await settle()
    ticket.cancel()
    assert (await ticket.answer()).outcome is not None
