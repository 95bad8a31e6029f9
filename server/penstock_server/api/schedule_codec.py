"""Schedules between messages and the domain."""

from __future__ import annotations

from penstock.v1 import schedule_pb2
from penstock_server.api import bulk_codec
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.schedule import Schedule, ScheduleRun, ScheduleSpec

_QUIET_S_DEFAULT = 10


def spec_from_proto(message: schedule_pb2.ScheduleSpec, limits: BulkLimits) -> ScheduleSpec:
    """Reads what is to be done when; what depends on the model and the time is checked later.

    Args:
        message: The message.
        limits: Bounds the names.

    Raises:
        InvalidRequest: A field is missing or wrong; those of the job are named from ``spec`` on.
        NotBuilt: A field is of a later release.
    """
    job = message.job
    unset = {"upload_id": job.upload_id, "expire_time": job.HasField("expire_time")}
    unset["not_before"] = job.HasField("not_before")
    for name, is_set in unset.items():
        if is_set:
            raise InvalidRequest.of_field(f"spec.job.{name}", "must be unset: each job has its own")
    bulk_codec.required(job.input_url, "spec.job.input_url", limits.url_bytes_max)
    if message.expire_after_seconds < 0:
        raise InvalidRequest.of_field("spec.expire_after_seconds", "must not be negative")
    spec = bulk_codec.spec_from_proto(job, job.input_url, limits)
    return ScheduleSpec(
        job=spec,
        cron=message.cron,
        time_zone=message.time_zone,
        quiet_s=message.quiet_seconds or _QUIET_S_DEFAULT,
        expire_after_s=message.expire_after_seconds or None,
    )


def schedule_to_proto(schedule: Schedule) -> schedule_pb2.Schedule:
    """Writes a schedule."""
    spec = schedule.spec
    message = schedule_pb2.Schedule(
        id=schedule.id,
        spec=schedule_pb2.ScheduleSpec(
            job=bulk_codec.spec_to_proto(spec.job),
            cron=spec.cron,
            time_zone=spec.time_zone,
            quiet_seconds=spec.quiet_s,
            expire_after_seconds=spec.expire_after_s or 0,
        ),
        paused=schedule.is_paused,
        create_time=bulk_codec.timestamp_to_proto(schedule.create_time_ns),
    )
    if schedule.due_ns is not None:
        message.next_run_time.CopyFrom(bulk_codec.timestamp_to_proto(schedule.due_ns))
    if schedule.last_run is not None:
        message.last_run.CopyFrom(_run_to_proto(schedule.last_run))
    return message


def _run_to_proto(run: ScheduleRun) -> schedule_pb2.ScheduleRun:
    message = schedule_pb2.ScheduleRun(
        time=bulk_codec.timestamp_to_proto(run.time_ns), jobs=run.jobs, files_left=run.files_left
    )
    if run.error is not None:
        message.error.CopyFrom(bulk_codec.status_to_proto(run.error.reason, run.error.message))
    return message
