"""The bulk worker as it is: a process, shared memory, a real model."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import shutil
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from penstock_server.domain.errors import EngineFailed
from penstock_server.domain.model import ModelKey
from penstock_server.domain.work import BatchPart, BatchPlan
from penstock_server.engines.worker_protocol import SlotLayout
from penstock_server.models.repository import ModelRepository
from penstock_server.runtime.clock import MonotonicClock
from penstock_server.runtime.lanes import BatchResult, LaneLost, LocalLane
from penstock_server.runtime.worker_lane import BulkWorker, WorkerLane
from tests.support.work import make_work

MODELS = Path(__file__).resolve().parents[2] / "models"
KEY = ModelKey("minilm", "1")
OTHER = ModelKey("injection", "1")
LAYOUT = SlotLayout(slots=2, tokens_max=1024, outputs_max=1024 * 512)


def plan_of(lengths: list[int], model: ModelKey = KEY) -> BatchPlan:
    work, _ = make_work(lengths, model=model)
    return BatchPlan(model, (BatchPart(work, work.rows),), len(lengths), max(lengths), sum(lengths))


@asynccontextmanager
async def worker_lanes(
    count: int = 1, models: Path = MODELS
) -> AsyncGenerator[tuple[BulkWorker, list[WorkerLane]]]:
    worker = BulkWorker(count, LAYOUT)
    worker.start()
    try:
        lanes = list(worker.lanes)
        manifest = ModelRepository(models).manifest(KEY)
        await asyncio.gather(*(lane.prepare(manifest) for lane in lanes))
        yield worker, lanes
    finally:
        await worker.close()


async def test_worker_computes_what_the_live_lane_computes() -> None:
    live = LocalLane("live", threads=1, clock=MonotonicClock())
    await live.prepare(ModelRepository(MODELS).manifest(KEY))
    plans = [plan_of([5, 9, 3]), plan_of([40]), plan_of([7, 7])]
    async with worker_lanes(2) as (_, lanes):
        # More batches than slots: they wait for one another and none gets another's outputs.
        bulk = await asyncio.gather(*(lane.run(plan) for lane in lanes for plan in plans))
    expected = [(await live.run(plan)).outputs for plan in plans] * 2
    await live.close()
    for result, outputs in zip(bulk, expected, strict=True):
        np.testing.assert_allclose(result.outputs, outputs, atol=1e-5)
        assert result.times.end_ns > result.times.start_ns
        # One thread computes, so its processor time fits into the time that passed.
        assert 0 < result.times.cpu_ns <= result.times.end_ns - result.times.start_ns


async def test_worker_runs_at_idle_priority() -> None:
    async with worker_lanes() as (worker, _):
        pid = worker.pid
        assert pid is not None
        # Threads of libraries count as well: one at normal priority would take cycles from live work.
        policies = {os.sched_getscheduler(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")}
        assert policies == {os.SCHED_IDLE}


async def test_killed_worker_starts_anew_and_serves_again() -> None:
    async with worker_lanes() as (worker, lanes):
        before = await lanes[0].run(plan_of([6]))
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        after = await run_until_served(lanes[0], plan_of([6]))
        np.testing.assert_array_equal(before.outputs, after.outputs)
        assert worker.restarts == 1


async def test_a_batch_that_finds_the_worker_dead_is_not_blamed_and_all_lanes_hear_of_it() -> None:
    async with worker_lanes(2) as (worker, lanes):
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        # In line, so that the event loop has no chance to read of the death.
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
        with pytest.raises(LaneLost) as lost:
            await lanes[0].run(plan_of([6]), alone=True)
        assert not lost.value.is_suspect
        results = await asyncio.gather(*(lane.run(plan_of([6])) for lane in lanes))
        assert [result.outputs.shape for result in results] == [(1, 384)] * 2
        assert worker.restarts == 1


def open_descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


@contextmanager
def free_descriptors(count: int) -> Generator[None]:
    """Lets this process open so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = (number for number in range(soft) if number not in open_descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, count, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Two lanes take three each, and starting a process some more.
@pytest.mark.parametrize("count", range(9))
async def test_a_worker_that_cannot_be_started_leaves_no_descriptor_open(count: int) -> None:
    worker = BulkWorker(2, LAYOUT)
    before = open_descriptors()
    with free_descriptors(count), pytest.raises(OSError, match="Too many open files"):
        worker.start()
    # Less than before is another test's garbage that was collected meanwhile.
    assert open_descriptors() <= before


async def run_until_lost(lane: WorkerLane, plan: BatchPlan) -> None:
    """Runs a batch again and again until the worker's death shows."""
    try:
        while True:
            await lane.run(plan)
    except LaneLost:
        return


async def run_until_served(lane: WorkerLane, plan: BatchPlan) -> BatchResult:
    """Runs a batch, again if it was under way when the worker died."""
    try:
        return await lane.run(plan)
    except LaneLost:
        return await lane.run(plan)


async def test_worker_ends_by_itself_when_its_sockets_close() -> None:
    async with worker_lanes() as (worker, lanes):
        assert worker.pid is not None
        descriptor = os.pidfd_open(worker.pid)
        for lane in lanes:
            lane.detach()
        ended, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], 20)
        os.close(descriptor)
        assert ended


async def test_model_that_the_new_worker_cannot_build_fails_its_rows_and_blocks_no_other(
    tmp_path: Path,
) -> None:
    shutil.copytree(MODELS / "minilm", tmp_path / "minilm")
    async with worker_lanes(models=tmp_path) as (worker, lanes):
        await lanes[0].run(plan_of([6]))
        await lanes[0].prepare(ModelRepository(MODELS).manifest(OTHER))
        (tmp_path / "minilm" / "model.onnx").unlink()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        await run_until_lost(lanes[0], plan_of([6], OTHER))
        answers = await asyncio.gather(
            *(lanes[0].run(plan_of([6])) for _ in range(4)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [EngineFailed] * 4
        assert (await lanes[0].run(plan_of([6], OTHER))).outputs.shape == (1, 2)
