"""Recurring jobs over the wire, through restarts, and out of others' reach."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2

from penstock import Client
from penstock.v1 import bulk_pb2, common_pb2, schedule_pb2, schedule_pb2_grpc
from tests.integration.test_tenants import SERVER_TLS, acme
from tests.support.server import running_server


def put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"text\n{text}\n", encoding="utf-8")
    a_minute_ago_s = time.time() - 60
    os.utime(path, (a_minute_ago_s, a_minute_ago_s))


def spec(url: str, **changes: Any) -> schedule_pb2.ScheduleSpec:
    job = bulk_pb2.JobSpec(
        model=common_pb2.ModelRef(name="minilm"), task=common_pb2.TASK_EMBED, input_url=url
    )
    values: dict[str, Any] = {"job": job, "cron": "0 3 * * *", "time_zone": "Europe/Berlin", **changes}
    return schedule_pb2.ScheduleSpec(**values)


def create(service: schedule_pb2_grpc.ScheduleServiceStub, url: str, **changes: Any) -> schedule_pb2.Schedule:
    request = schedule_pb2.CreateScheduleRequest(spec=spec(url, **changes))
    return service.CreateSchedule(request).schedule


def test_a_schedule_makes_jobs_of_new_files_through_a_restart(tmp_path: Path) -> None:
    folder, data = tmp_path / "in", tmp_path / "data"
    folder.mkdir()
    bulk = {"input_roots": [str(tmp_path)]}
    put(folder, "monday.csv", "a film")
    with running_server(data, bulk=bulk) as server, grpc.insecure_channel(server.address) as channel:
        service = schedule_pb2_grpc.ScheduleServiceStub(channel)
        schedule = create(service, f"{folder}/")
        assert schedule.next_run_time.ToSeconds() > time.time()
        ran = service.RunSchedule(schedule_pb2.RunScheduleRequest(schedule_id=schedule.id))
        assert len(ran.job_ids) == 1
        with Client(server.address) as client:
            assert client.bulk.wait(ran.job_ids[0]).succeeded == 1
    put(folder, "tuesday.csv", "another film")
    with running_server(data, bulk=bulk) as server, grpc.insecure_channel(server.address) as channel:
        service = schedule_pb2_grpc.ScheduleServiceStub(channel)
        listed = service.ListSchedules(schedule_pb2.ListSchedulesRequest()).schedules
        assert [each.id for each in listed] == [schedule.id]
        again = service.RunSchedule(schedule_pb2.RunScheduleRequest(schedule_id=schedule.id))
        with Client(server.address) as client:
            (job_id,) = again.job_ids
            job = client.bulk.wait(job_id)
            assert job.input_url.endswith("tuesday.csv")
        got = service.GetSchedule(schedule_pb2.GetScheduleRequest(schedule_id=schedule.id)).schedule
        assert (got.last_run.jobs, got.last_run.files_left, got.last_run.HasField("error")) == (1, 0, False)


def test_a_schedule_runs_at_its_time(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    put(folder, "now.csv", "a film")
    bulk = {"input_roots": [str(tmp_path)]}
    data = tmp_path / "data"
    with running_server(data, bulk=bulk) as server, grpc.insecure_channel(server.address) as channel:
        schedule = create(schedule_pb2_grpc.ScheduleServiceStub(channel), f"{folder}/*.csv", cron="* * * * *")
        with Client(server.address) as client:
            deadline_s = time.monotonic() + 90
            while not (jobs := client.bulk.list()):
                assert time.monotonic() < deadline_s, f"{schedule} does not run"
                time.sleep(0.5)
            assert client.bulk.wait(jobs[0].id).succeeded == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "61 * * * *"}, "spec.cron"),
        ({"time_zone": "nowhere"}, "spec.time_zone"),
        ({"quiet_seconds": -1}, "spec.quiet_seconds"),
        ({"expire_after_seconds": -1}, "spec.expire_after_seconds"),
        ({"job": bulk_pb2.JobSpec(model=common_pb2.ModelRef(name="minilm"))}, "spec.job.input_url"),
        (
            {"job": bulk_pb2.JobSpec(input_url="/in/", expire_time=timestamp_pb2.Timestamp(seconds=1))},
            "spec.job.expire_time",
        ),
    ],
)
def test_a_wrong_schedule_is_refused_with_the_field(
    tmp_path: Path, live_server: Any, changes: dict[str, Any], field: str
) -> None:
    with grpc.insecure_channel(live_server.address) as channel:
        service = schedule_pb2_grpc.ScheduleServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            create(service, f"{tmp_path}/", **changes)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in error.details()


def test_a_tenant_reaches_no_others_schedules(tmp_path: Path) -> None:
    bulk = {"input_roots": [str(tmp_path)]}
    data = tmp_path / "data"
    with (
        running_server(data, bulk=bulk) as open_to_all,
        grpc.insecure_channel(open_to_all.address) as channel,
    ):
        foreign = create(schedule_pb2_grpc.ScheduleServiceStub(channel), f"{tmp_path}/")
    with (
        running_server(data, bulk=bulk, tls=SERVER_TLS) as secured,
        grpc.secure_channel(secured.address, acme()) as channel,
    ):
        service = schedule_pb2_grpc.ScheduleServiceStub(channel)
        methods: list[tuple[Any, Any]] = [
            (service.GetSchedule, schedule_pb2.GetScheduleRequest),
            (service.RunSchedule, schedule_pb2.RunScheduleRequest),
            (service.PauseSchedule, schedule_pb2.PauseScheduleRequest),
            (service.ResumeSchedule, schedule_pb2.ResumeScheduleRequest),
            (service.DeleteSchedule, schedule_pb2.DeleteScheduleRequest),
        ]
        for call, request in methods:
            with pytest.raises(grpc.RpcError) as caught:
                call(request(schedule_id=foreign.id))
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.NOT_FOUND
        assert len(service.ListSchedules(schedule_pb2.ListSchedulesRequest()).schedules) == 0
        own = create(service, f"{tmp_path}/")
        assert own.spec.job.options.tenant == "acme"
