"""When rows of a job may be computed: in windows that come again, in time zones that change their clocks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, InputColumns, JobSpec, JobState, TimeWindow
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestOptions, Task, TaskOptions
from penstock_server.runtime.job_times import check_times, next_start_ns, open_from_ns, open_until_ns
from tests.support.bulk_jobs import SECOND_NS, Bench, TurnedTime, running_bench, settle

HOUR_S = 3600
NIGHT = TimeWindow("0 22 * * *", 8 * HOUR_S, "Europe/Berlin")
YEAR_S = 366 * 24 * HOUR_S
LIMITS = BulkLimits(window_rows=4, disk_free_bytes_min=0)
TEXTS = [f"{chr(97 + row % 26)} b" for row in range(10)]


def ns(text: str, zone: str = "Europe/Berlin") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND_NS


def spec(
    *windows: TimeWindow, not_before_ns: int | None = None, expire_time_ns: int | None = None
) -> JobSpec:
    return JobSpec(
        ModelKey("m", "1"),
        TaskOptions(Task.EMBED),
        "upload",
        FileFormat.CSV,
        InputColumns(),
        RequestOptions(),
        windows=windows,
        not_before_ns=not_before_ns,
        expire_time_ns=expire_time_ns,
    )


@pytest.mark.parametrize(
    ("now", "opens", "closes"),
    [
        ("2026-11-27T12:00", "2026-11-27T22:00", None),
        ("2026-11-27T21:59:59", "2026-11-27T22:00", None),
        ("2026-11-27T22:00", "2026-11-27T22:00", "2026-11-28T06:00"),
        ("2026-11-28T05:59:59", "2026-11-28T05:59:59", "2026-11-28T06:00"),
        ("2026-11-28T06:00", "2026-11-28T22:00", None),
        # Clocks go forward at two, and back at three: a window of eight hours lasts eight hours.
        ("2026-03-29T01:00", "2026-03-29T01:00", "2026-03-29T07:00"),
        ("2026-10-25T01:00", "2026-10-25T01:00", "2026-10-25T05:00"),
    ],
)
def test_a_window_opens_and_closes_by_the_clock_of_its_zone(now: str, opens: str, closes: str | None) -> None:
    job = spec(NIGHT)
    assert open_from_ns(job, ns(now)) == ns(opens)
    assert open_until_ns(job, ns(now)) == (None if closes is None else ns(closes))


@pytest.mark.parametrize("minute", [0, 29, 30, 59, 89, 90])
def test_no_time_of_an_hour_that_clocks_repeat_has_passed(minute: int) -> None:
    # From 00:00 to 02:00 of Greenwich Berlin's clocks show the hour from two to three twice.
    now_ns = ns("2026-10-25T00:00", "UTC") + minute * 60 * SECOND_NS
    start_ns = next_start_ns("30 2 * * *", "Europe/Berlin", now_ns)
    assert start_ns > now_ns
    job = spec(TimeWindow("30 2 * * *", 2 * HOUR_S, "Europe/Berlin"))
    until_ns = open_until_ns(job, now_ns)
    assert until_ns is None or until_ns > now_ns
    assert open_from_ns(job, now_ns) >= now_ns


def test_the_window_that_opens_first_counts_and_the_one_that_closes_last() -> None:
    job = spec(NIGHT, TimeWindow("0 4 * * *", 4 * HOUR_S, "Europe/Berlin"), TimeWindow("0 12 * * 6", HOUR_S))
    assert open_until_ns(job, ns("2026-11-27T05:00")) == ns("2026-11-27T08:00")
    assert open_from_ns(job, ns("2026-11-28T09:00")) == ns("2026-11-28T12:00", "UTC")


def test_not_before_and_windows_must_both_allow_it() -> None:
    job = spec(NIGHT, not_before_ns=ns("2026-11-28T07:00"))
    assert open_from_ns(job, ns("2026-11-27T23:00")) == ns("2026-11-28T22:00")
    assert open_from_ns(spec(not_before_ns=5), 3) == 5
    assert open_from_ns(spec(not_before_ns=5), 7) == 7
    assert open_until_ns(spec(not_before_ns=5), 7) is None


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (spec(TimeWindow("0 22 * *", 60)), r"windows\[0\]\.start_cron: .*five cron fields"),
        (spec(NIGHT, TimeWindow("", 60)), r"windows\[1\]\.start_cron"),
        (spec(TimeWindow("99 * * * *", 60)), r"windows\[0\]\.start_cron"),
        (spec(TimeWindow("0 0 30 2 *", 60)), r"windows\[0\]\.start_cron"),
        (spec(TimeWindow("* * * * *", 59)), r"windows\[0\]\.duration: must be from one minute"),
        (spec(TimeWindow("* * * * *", 7 * 24 * HOUR_S + 1)), r"windows\[0\]\.duration"),
        (spec(TimeWindow("* * * * *", 60, "Mars/Base")), r"windows\[0\]\.time_zone: 'Mars/Base' is no IANA"),
        (spec(TimeWindow("* * * * *", 60, "../../etc/passwd")), r"windows\[0\]\.time_zone"),
        (spec(TimeWindow("* * * * *", 60, "Z" * 65)), r"windows\[0\]: is too long"),
        (spec(*[NIGHT] * 17), "windows: must be at most 16"),
        (spec(not_before_ns=(YEAR_S + 60) * SECOND_NS), "not_before: must be at most 366 days"),
        (spec(expire_time_ns=(YEAR_S + 60) * SECOND_NS), "expire_time: must be at most 366 days"),
        (spec(expire_time_ns=0), "expire_time: has passed"),
        (spec(not_before_ns=90, expire_time_ns=60), r"expire_time: is before spec\.not_before"),
    ],
)
def test_times_that_cannot_be_are_refused(job: JobSpec, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        check_times(job, 1, YEAR_S)


def test_times_that_can_be_are_taken() -> None:
    check_times(spec(NIGHT, not_before_ns=10, expire_time_ns=20), 1, YEAR_S)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


@pytest.fixture
def time(bench: Bench) -> TurnedTime:
    return TurnedTime(bench)


async def test_no_row_is_computed_before_its_time(bench: Bench, time: TurnedTime) -> None:
    job = await bench.submit(TEXTS, not_before_ns=time.in_s(60))
    assert (await bench.runner.get(job.id)).progress.total == 10
    await time.pass_s(59)
    assert bench.lane.waiting_rows == 0
    await time.pass_s(1)
    assert bench.lane.waiting_rows
    assert (await bench.finish(job.id)).state is JobState.SUCCEEDED


async def test_rows_are_computed_within_windows_only_and_once(bench: Bench, time: TurnedTime) -> None:
    # Time begins a second after an hour and a minute did: the window is open for another minute.
    job = await bench.submit(TEXTS, windows=(TimeWindow("0 * * * *", 120),))
    bench.lane.compute(5)
    await settle()
    assert bench.lane.waiting_rows
    await time.pass_s(119)
    assert bench.lane.waiting_rows == 0
    assert (await bench.runner.get(job.id)).state is JobState.RUNNING
    for _ in range(200):
        await time.pass_s(30)
        if bench.lane.waiting_rows:
            break
    assert bench.clock.time_ns // SECOND_NS % HOUR_S < 31
    ended = await bench.finish(job.id)
    assert (ended.state, ended.progress.succeeded) == (JobState.SUCCEEDED, 10)
    rows = await bench.read(job.id)
    assert [row.answer for row in rows] == bench.expected(TEXTS)
    assert bench.lane.computed_rows == 10


async def test_a_job_that_waits_for_its_time_is_paused_and_cancelled_like_any(
    bench: Bench, time: TurnedTime
) -> None:
    job = await bench.submit(TEXTS, not_before_ns=time.in_s(60))
    await bench.runner.pause(job.id)
    await time.pass_s(61)
    assert bench.lane.waiting_rows == 0
    await bench.runner.resume(job.id)
    await settle()
    assert bench.lane.waiting_rows
    other = await bench.submit(TEXTS, not_before_ns=time.in_s(60))
    await bench.runner.cancel(other.id)
    await settle()
    assert (await bench.runner.get(other.id)).state is JobState.CANCELLED
