"""A job takes no more than its share of the lanes' time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.job import JobState
from penstock_server.runtime.job_pace import Pace
from tests.support.bulk_jobs import Bench, ManualClock, running_bench, settle

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
    done = (await bench.runner.pause(job.id)).progress.done
    await settle()
    assert 0 < done < 500
    assert (await bench.runner.get(job.id)).progress.done == done
