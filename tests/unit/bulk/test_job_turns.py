"""Who computes next: jobs of all tenants go on, and small ones never wait behind large ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from penstock_server.bulk.export import ExportOrder
from penstock_server.bulk.file_process import carry_out
from penstock_server.bulk.inputs import InputOrder
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.job import Job, JobState
from penstock_server.domain.tasks import RequestClass, RequestOptions
from tests.support.bulk_jobs import Bench, DirectFiles, running_bench, settle

LIMITS = BulkLimits(
    window_rows=4,
    windows_in_flight_max=1,
    jobs_running_max=1,
    small_jobs_running_max=4,
    small_input_bytes=400,
    disk_free_bytes_min=0,
)
# Several windows.
LARGE = [f"{chr(97 + row % 26)} b" for row in range(20)]


class HeldFiles(DirectFiles):
    """Reads large inputs only once they are let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def materialise(self, order: InputOrder) -> int:
        if order.input_path.stat().st_size > LIMITS.small_input_bytes:
            await self.gate.wait()
        return carry_out(order).rows

    async def export(self, order: ExportOrder) -> None:
        carry_out(order)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


async def submit(bench: Bench, tenant: str, texts: list[str]) -> Job:
    options = RequestOptions(request_class=RequestClass.BULK, tenant=tenant)
    return await bench.submit(texts, options=options)


async def state(bench: Bench, job: Job) -> JobState:
    return (await bench.runner.get(job.id)).state


async def test_a_small_job_does_not_wait_for_a_large_one_of_its_own_tenant(bench: Bench) -> None:
    large = await submit(bench, "a", LARGE)
    small = await submit(bench, "a", ["x"])
    # A window of the large one, and the small one's row.
    bench.lane.compute(5)
    await settle()
    assert await state(bench, small) is JobState.SUCCEEDED
    assert (await bench.runner.get(large.id)).progress.pending == len(LARGE) - LIMITS.window_rows


async def test_large_jobs_of_two_tenants_go_on_side_by_side(bench: Bench) -> None:
    first = await submit(bench, "a", LARGE)
    second = await submit(bench, "b", LARGE)
    done: list[tuple[int, int]] = []
    for _ in range(6):
        bench.lane.compute(LIMITS.window_rows)
        await settle()
        done.append(
            (
                (await bench.runner.get(first.id)).progress.done,
                (await bench.runner.get(second.id)).progress.done,
            )
        )
    assert done == [(4, 0), (4, 4), (8, 4), (8, 8), (12, 8), (12, 12)]
    for job in (first, second):
        ended = await bench.finish(job.id)
        assert (ended.state, ended.progress.succeeded) == (JobState.SUCCEEDED, len(LARGE))
        rows = await bench.read(job.id)
        assert [row.answer for row in rows] == bench.expected(LARGE)


async def test_a_tenants_own_jobs_go_one_after_another(bench: Bench) -> None:
    first = await submit(bench, "a", LARGE)
    second = await submit(bench, "a", LARGE)
    await bench.finish(first.id)
    assert (await bench.runner.get(second.id)).progress.done == 0


async def test_a_tenant_of_many_small_jobs_leaves_room_for_another(bench: Bench) -> None:
    for _ in range(6):
        await submit(bench, "a", ["x", "y"])
    assert bench.lane.waiting_rows == 4
    ticket = await submit(bench, "b", ["z"])
    assert bench.lane.waiting_rows == 5
    bench.lane.compute(5)
    await settle()
    assert await state(bench, ticket) is JobState.SUCCEEDED


async def test_a_job_that_waits_for_its_turn_can_be_paused_resumed_and_cancelled(bench: Bench) -> None:
    first = await submit(bench, "a", LARGE)
    second = await submit(bench, "b", LARGE)
    bench.lane.compute(LIMITS.window_rows)
    await settle()
    # The first has given its place to the second, and waits for it.
    assert (await bench.runner.pause(first.id)).state is JobState.PAUSED
    await bench.runner.resume(first.id)
    await settle()
    await bench.runner.cancel(second.id)
    await settle()
    assert await state(bench, second) is JobState.CANCELLED
    ended = await bench.finish(first.id)
    assert (ended.progress.succeeded, bench.lane.computed_rows) == (len(LARGE), len(LARGE))


async def test_the_last_window_of_a_job_does_not_cost_it_another_turn(bench: Bench) -> None:
    first = await submit(bench, "a", LARGE[:8])
    bench.lane.compute(LIMITS.window_rows)
    await settle()
    second = await submit(bench, "b", LARGE)
    bench.lane.compute(LIMITS.window_rows)
    await settle()
    assert await state(bench, first) is JobState.SUCCEEDED
    assert (await bench.runner.get(second.id)).progress.done == 0


async def test_a_small_input_is_read_beside_a_large_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LIMITS)
    bench.files = files = HeldFiles()
    await bench.start()
    large = await submit(bench, "a", LARGE)
    small = await submit(bench, "a", ["x"])
    assert await state(bench, large) is JobState.VALIDATING
    assert await state(bench, small) is JobState.RUNNING
    files.gate.set()
    await settle()
    assert await state(bench, large) is JobState.RUNNING
    await bench.stop()
