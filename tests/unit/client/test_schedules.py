"""Recurring jobs over a real wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest

import penstock
from penstock import AsyncClient, Client, Schedule, ScheduleRun, TimeWindow
from tests.unit.client.scripted import Refusal, Script, info_of

CUT = Refusal(grpc.StatusCode.UNAVAILABLE, "cut", (info_of("DRAINING"),))
NIGHTLY = "0 2 * * *"
NEXT = datetime(2031, 5, 6, tzinfo=UTC)


def test_a_schedule_says_what_is_done_when(client: Client, script: Script) -> None:
    window = TimeWindow("0 22 * * *", timedelta(hours=8), "Europe/Berlin")
    schedule = client.schedules.create(
        "s3://in/*.csv",
        model="m",
        task="embed",
        cron=NIGHTLY,
        time_zone="Europe/Berlin",
        quiet_s=30,
        expire_after=timedelta(hours=12),
        text_column="review",
        carry_columns=["stars"],
        output_url="s3://out",
        display_name="nightly",
        weight=7,
        share_max=0.25,
        windows=[window],
        failed_rows_max=3,
        dimensions=8,
    )
    spec = script.requests[0].spec
    assert (spec.cron, spec.time_zone, spec.quiet_seconds) == (NIGHTLY, "Europe/Berlin", 30)
    assert spec.expire_after_seconds == 12 * 3600
    job = spec.job
    assert (job.input_url, job.text_column, list(job.carry_columns)) == ("s3://in/*.csv", "review", ["stars"])
    assert (job.embed.dimensions, job.HasField("upload_id"), job.HasField("expire_time")) == (8, False, False)
    assert schedule == Schedule(
        id="s1",
        is_paused=False,
        input_url="s3://in/*.csv",
        cron=NIGHTLY,
        time_zone="Europe/Berlin",
        quiet_s=30,
        expire_after=timedelta(hours=12),
        model="m",
        version="",
        task=penstock.Task.EMBED,
        display_name="nightly",
        output_url="s3://out",
        weight=7,
        share_max=0.25,
        windows=(window,),
        failed_rows_max=3,
        create_time=datetime.fromtimestamp(1_700_000_000, UTC),
        next_run_time=NEXT,
        last_run=None,
    )


def test_what_is_left_out_is_unset_in_the_contract(client: Client, script: Script) -> None:
    schedule = client.schedules.create("/in", model="m", task="embed", cron=NIGHTLY)
    spec = script.requests[0].spec
    assert (spec.time_zone, spec.quiet_seconds, spec.expire_after_seconds) == ("UTC", 0, 0)
    assert (schedule.expire_after, schedule.share_max, schedule.failed_rows_max) == (None, None, None)


def test_parts_of_a_second_do_not_become_no_expire_time(client: Client, script: Script) -> None:
    client.schedules.create(
        "/in", model="m", task="embed", cron=NIGHTLY, expire_after=timedelta(milliseconds=300)
    )
    assert script.requests[0].spec.expire_after_seconds == 1


def test_spans_that_the_contract_reads_as_unset_are_refused(client: Client, script: Script) -> None:
    with pytest.raises(ValueError, match="expire_after must be above zero"):
        client.schedules.create("/in", model="m", task="embed", cron=NIGHTLY, expire_after=timedelta())
    with pytest.raises(ValueError, match="quiet_s must be 1 or more seconds"):
        client.schedules.create("/in", model="m", task="embed", cron=NIGHTLY, quiet_s=0)
    assert script.requests == []


def test_an_empty_url_is_left_to_the_server_to_refuse(client: Client, script: Script) -> None:
    client.schedules.create("", model="m", task="embed", cron=NIGHTLY)
    assert script.requests[0].spec.job.WhichOneof("source") == "input_url"


def test_the_times_of_a_single_job_are_sent_to_be_refused(client: Client, script: Script) -> None:
    client.schedules.create("/in", model="m", task="embed", cron=NIGHTLY, not_before=NEXT)  # type: ignore[call-arg]  # pyright: ignore
    assert script.requests[0].spec.job.HasField("not_before")


def test_a_repeated_creation_has_the_same_request_id(client: Client, script: Script) -> None:
    script.refusals.extend([CUT, CUT])
    client.schedules.create("/in", model="m", task="embed", cron=NIGHTLY)
    sent = [request.request_id for request in script.requests]
    assert len(sent) == 3
    assert len(set(sent)) == 1
    assert sent[0]
    client.schedules.create("/in", model="m", task="embed", cron=NIGHTLY, request_id="mine")
    assert script.requests[-1].request_id == "mine"


def test_pausing_and_resuming_are_repeated_and_running_and_deleting_are_not(
    client: Client, script: Script
) -> None:
    script.refusals.append(CUT)
    assert client.schedules.pause("s1").is_paused
    script.refusals.append(CUT)
    assert not client.schedules.resume("s1").is_paused
    script.refusals.append(CUT)
    with pytest.raises(penstock.UnavailableError):
        client.schedules.run("s1")
    script.refusals.append(CUT)
    with pytest.raises(penstock.UnavailableError):
        client.schedules.delete("s1")
    assert len(script.requests) == 6


def test_a_run_tells_its_jobs(client: Client) -> None:
    run = client.schedules.run("s1")
    time = datetime.fromtimestamp(1_800_000_000, UTC)
    assert run == ScheduleRun(time, jobs=2, files_left=1, error=None, job_ids=("j0", "j1"))
    assert client.schedules.get("s1").last_run == ScheduleRun(time, jobs=2, files_left=1, error=None)


def test_a_run_that_failed_tells_why(client: Client, script: Script) -> None:
    script.run_fails = "s3://in cannot be reached"
    run = client.schedules.run("s1")
    assert isinstance(run.error, penstock.UnavailableError)
    assert run.error.message == "s3://in cannot be reached"


def test_schedules_are_listed_over_pages(client: Client, script: Script) -> None:
    assert [each.id for each in client.schedules.list()] == ["s0", "s1", "s2", "s3", "s4"]
    assert [each.id for each in client.schedules.list(schedules_max=3)] == ["s0", "s1", "s2"]
    assert [request.page_size for request in script.requests] == [1000, 1000, 1000, 3, 1]


def test_the_other_schedule_calls(client: Client, script: Script) -> None:
    assert client.schedules.get("s1").next_run_time == NEXT
    assert client.schedules.pause("s1").next_run_time is None
    assert client.schedules.resume("s1").next_run_time == NEXT
    client.schedules.delete("s1")
    assert {request.schedule_id for request in script.requests} == {"s1"}


def test_an_unknown_schedule_is_not_found(client: Client) -> None:
    with pytest.raises(penstock.NotFoundError, match="no such schedule") as caught:
        client.schedules.get("s9")
    assert (caught.value.reason, caught.value.metadata) == ("UNKNOWN_SCHEDULE", {"schedule_id": "s9"})


async def test_the_async_client_does_the_same(async_client: AsyncClient, script: Script) -> None:
    schedules = async_client.schedules
    made = await schedules.create(
        "/in/*.csv", model="m", task="embed", cron=NIGHTLY, expire_after=timedelta(hours=1), weight=7
    )
    assert (made.input_url, made.expire_after, made.weight) == ("/in/*.csv", timedelta(hours=1), 7)
    assert script.requests[0].request_id
    assert (await schedules.run("s1")).job_ids == ("j0", "j1")
    assert (await schedules.pause("s1")).is_paused
    assert not (await schedules.resume("s1")).is_paused
    assert (await schedules.get("s1")).last_run is not None
    assert len(await schedules.list(schedules_max=4)) == 4
    await schedules.delete("s1")
