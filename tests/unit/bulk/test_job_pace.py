"""A job takes no more than its share of the lanes' time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.journal import JobStore
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.job import JobState
from penstock_server.domain.tasks import RequestClass, RequestOptions, Truncation
from penstock_server.runtime import job_run
from penstock_server.runtime.job_pace import Pace
from tests.support.bulk_jobs import TOKENS_MAX, Bench, ManualClock, running_bench, settle

SECOND_NS = 1_000_000_000
LIMITS = BulkLimits(window_rows=600, disk_free_bytes_min=0, lanes=2, checkpoint_s=1000)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


def texts_of(rows: int) -> list[str]:
    """Texts of about 20 words, all different."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        f"{letters[row // 26 % 26]}{letters[row % 26]} {letters[row // 676]} {'x ' * 18}"
        for row in range(rows)
    ]


def test_a_piece_is_paid_by_a_pause() -> None:
    clock = ManualClock()
    pace = Pace(0.25, 2, clock)
    assert pace.left_s() == 0
    pace.begin()
    pace.charge(1000, SECOND_NS)
    # A second of one of two lanes is a quarter of what both have within two seconds.
    assert pace.left_s() == 2
    clock.time_ns += 2 * SECOND_NS
    assert pace.left_s() == 0


def test_time_that_was_not_used_is_not_made_up_for() -> None:
    clock = ManualClock()
    pace = Pace(0.5, 1, clock)
    clock.time_ns += 100 * SECOND_NS
    pace.begin()
    pace.charge(1000, SECOND_NS)
    assert pace.left_s() == 2


def test_pieces_become_about_a_second_long() -> None:
    pace = Pace(1, 1, ManualClock())
    for _ in range(100):
        tokens = pace.begin()
        pace.charge(tokens, tokens * 10_000)
    assert pace.begin() == pytest.approx(100_000, rel=0.01)
    for _ in range(100):
        pace.charge(100, SECOND_NS)
    assert pace.begin() == 256


async def test_a_job_with_a_share_computes_in_pieces_and_rests_between(bench: Bench) -> None:
    texts = texts_of(1000)
    job = await bench.submit(texts, share_max=0.5)
    bench.lane.cost_ns = 10_000_000
    pieces: list[int] = []
    done = job
    while not done.state.has_ended:
        if waiting := bench.lane.waiting_rows:
            pieces.append(waiting)
            bench.lane.compute(waiting)
            await settle()
            # Nothing follows before the time for it has come.
            assert bench.lane.waiting_rows == 0
        bench.clock.time_ns += bench.lane.cost_ns
        await asyncio.sleep(0.01)
        await settle()
        done = await bench.runner.get(job.id)
    assert (done.state, done.progress.succeeded) == (JobState.SUCCEEDED, 1000)
    assert len(pieces) > 4
    assert sum(pieces) == bench.lane.computed_rows
    assert [row.answer for row in await bench.read(job.id)] == bench.expected(texts)


async def test_a_job_that_rests_stops_at_once(bench: Bench) -> None:
    job = await bench.submit(texts_of(500), share_max=0.001)
    bench.lane.cost_ns = SECOND_NS
    bench.lane.compute(bench.lane.waiting_rows)
    await settle()
    done = (await bench.runner.get(job.id)).progress.done
    assert 0 < done < 500
    await bench.runner.pause(job.id)
    await asyncio.wait_for(bench.runner.close(), 5)
    assert sum(window.succeeded for window in bench.store.windows(job.id)) == done


def of(tenant: str) -> RequestOptions:
    return RequestOptions(request_class=RequestClass.BULK, tenant=tenant)


async def test_a_job_that_rests_gives_its_place_to_another_tenant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_run, "_REST_S", 0.001)
    async with running_bench(tmp_path, replace(LIMITS, jobs_running_max=1)) as bench:
        texts = texts_of(1300)
        resting = await bench.submit(texts, share_max=0.01, options=of("a"))
        other = await bench.submit(texts_of(1200), options=of("b"))
        bench.lane.cost_ns = SECOND_NS
        for _ in range(20):
            bench.lane.compute(bench.lane.waiting_rows)
            await asyncio.sleep(0.005)
            await settle()
        # No time has passed: the one still pays for its first piece.
        assert (await bench.runner.get(other.id)).state is JobState.SUCCEEDED
        assert 0 < (await bench.runner.get(resting.id)).progress.done < 1300
        while not (done := await bench.runner.get(resting.id)).state.has_ended:
            bench.clock.time_ns += 60 * SECOND_NS
            bench.lane.compute(bench.lane.waiting_rows)
            await asyncio.sleep(0.002)
            await settle()
        assert done.progress.succeeded == 1300
        assert [row.answer for row in await bench.read(resting.id)] == bench.expected(texts)


async def test_what_is_done_is_on_disk_before_a_long_rest(tmp_path: Path) -> None:
    async with running_bench(tmp_path, replace(LIMITS, checkpoint_s=15)) as bench:
        job = await bench.submit(texts_of(1100), share_max=0.01)
        bench.lane.cost_ns = SECOND_NS
        bench.lane.compute(bench.lane.waiting_rows)
        await settle()
        done = (await bench.runner.get(job.id)).progress.done
        assert 0 < done < 600
        assert sum(window.succeeded for window in bench.store.windows(job.id)) == done
        await bench.runner.cancel(job.id)
        await settle()


async def test_short_rests_cost_no_part_each(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = 0
    commit = JobStore.commit_window

    def count(store: JobStore, *arguments: Any) -> Any:
        nonlocal commits
        commits += 1
        return commit(store, *arguments)

    monkeypatch.setattr(JobStore, "commit_window", count)
    job = await bench.submit(texts_of(1000), share_max=0.9)
    bench.lane.cost_ns = 10_000_000
    while not (await bench.runner.get(job.id)).state.has_ended:
        bench.lane.compute(bench.lane.waiting_rows)
        bench.clock.time_ns += bench.lane.cost_ns
        await asyncio.sleep(0.005)
        await settle()
    assert commits == 2


async def test_time_left_is_no_less_than_the_share_allows(bench: Bench) -> None:
    texts = texts_of(500)
    job = await bench.submit(texts, share_max=0.005)
    bench.lane.compute(bench.lane.waiting_rows)
    await settle()
    bench.clock.time_ns += 10 * SECOND_NS
    progress = (await bench.runner.get(job.id)).progress
    tokens = bench.model.tokenizer.encode(
        texts, tokens_max=TOKENS_MAX, truncation=Truncation.RIGHT
    ).lengths.mean()
    assert progress.rows_per_s > 1
    # A token costs 0.1 s of one of two lanes, of which half a percent may be used.
    assert progress.time_left_s == pytest.approx(progress.pending * tokens * 0.1 / 2 / 0.005, rel=1e-6)
    await bench.runner.cancel(job.id)
    await settle()
