"""Whatever happens to a job in whatever order: the counts add up, and no row is lost or answered twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import WrongState
from penstock_server.domain.job import Job, JobState
from penstock_server.domain.tasks import RequestClass, RequestOptions
from tests.support.bulk_jobs import Bench, TurnedTime, settle

Event = Literal["compute", "fail", "spoil", "pause", "resume", "stop", "crash", "cancel", "rival", "expire"]

_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "compute",
                "pause",
                "resume",
                "stop",
                "compute",
                "fail",
                "spoil",
                "crash",
                "compute",
                "rival",
                "cancel",
                "expire",
            ]
        ),
        st.integers(1, 3),
    ),
    # Lists are long from the start: short ones rarely stop a job in the middle of a window.
    min_size=6,
    max_size=12,
)
_TEXTS = st.lists(st.sampled_from(["a", "bb c", "", "ddd", "e f g h"]), min_size=6, max_size=14)
_TIME_S = 60
_LIMITS = BulkLimits(window_rows=3, jobs_running_max=1, disk_free_bytes_min=0)


@settings(deadline=None, max_examples=40)
@given(texts=_TEXTS, events=_EVENTS)
def test_counts_add_up_and_rows_are_answered_once(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], events: list[tuple[str, int]]
) -> None:
    asyncio.run(_play(tmp_path_factory.mktemp("jobs"), texts, events))


async def _play(folder: Path, texts: list[str], events: list[tuple[str, int]]) -> None:
    bench = Bench(folder, _LIMITS)
    await bench.start()
    time = TurnedTime(bench)
    job = await bench.submit(texts, expire_time_ns=time.in_s(_TIME_S))
    done = 0
    for event, count in events:
        await _happen(bench, time, job.id, cast(Event, event), count)
        done = _check(await bench.runner.get(job.id), len(texts), at_least=0 if event == "crash" else done)
        await settle()
        done = _check(await bench.runner.get(job.id), len(texts), at_least=done)
    if (await bench.runner.get(job.id)).state is JobState.PAUSED:
        await bench.runner.resume(job.id)
        await settle()
    ended = await bench.finish(job.id)
    _check(ended, len(texts), at_least=done)
    await _check_rows(bench, ended, texts)
    await bench.stop()


async def _happen(bench: Bench, time: TurnedTime, job_id: str, event: Event, count: int) -> None:
    if event in ("compute", "fail", "spoil"):
        getattr(bench.lane, event)(count)
    elif event in ("stop", "crash"):
        await (bench.stop() if event == "stop" else bench.crash())
        await bench.start()
    elif event == "rival":
        # Another tenant's job of several windows, with which this one takes turns.
        options = RequestOptions(request_class=RequestClass.BULK, tenant="rival")
        await bench.submit(["x"] * (2 * _LIMITS.window_rows + count), options=options)
    elif event == "expire":
        await time.pass_s(_TIME_S)
    else:
        try:
            await getattr(bench.runner, event)(job_id)
        except WrongState:
            return


def _check(job: Job, total: int, *, at_least: int) -> int:
    progress = job.progress
    assert progress.total == total
    assert progress.succeeded + progress.failed + progress.pending == total
    assert 0 <= progress.pending <= total
    assert progress.done >= at_least
    assert job.state is not JobState.FAILED
    return progress.done


async def _check_rows(bench: Bench, job: Job, texts: list[str]) -> None:
    rows = await bench.read(job.id)
    numbers = [row.row for row in rows]
    assert numbers == sorted(set(numbers))
    assert len(rows) == job.progress.done
    assert [row.failure is not None for row in rows].count(True) == job.progress.failed
    if job.state is JobState.SUCCEEDED:
        assert numbers == list(range(len(texts)))
    elif job.state is JobState.EXPIRED:
        assert job.progress.pending
    for row in rows:
        assert row.key == f"k{row.row}"
        if row.failure is None:
            assert [row.answer] == bench.expected([texts[row.row]])
        elif not texts[row.row]:
            assert row.failure.code == "EMPTY_TEXT"
