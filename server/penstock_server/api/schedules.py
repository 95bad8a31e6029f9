"""ScheduleService: recurring jobs."""

from __future__ import annotations

from dataclasses import replace

from penstock.v1 import schedule_pb2, schedule_pb2_grpc
from penstock_server.api import bulk_codec
from penstock_server.api.callers import CallerReader
from penstock_server.api.deadlines import Context
from penstock_server.api.schedule_codec import schedule_to_proto, spec_from_proto
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.schedules import no_schedule
from penstock_server.runtime.schedules import ScheduleRunner


class ScheduleServicer(schedule_pb2_grpc.ScheduleServiceServicer):
    """Parses messages, has the runner do the work, writes messages."""

    def __init__(self, schedules: ScheduleRunner, limits: BulkLimits, callers: CallerReader) -> None:
        self._schedules = schedules
        self._limits = limits
        self._callers = callers

    async def CreateSchedule(  # noqa: N802 - gRPC's name
        self, request: schedule_pb2.CreateScheduleRequest, context: Context
    ) -> schedule_pb2.CreateScheduleResponse:
        """Makes a schedule."""
        request_id = bulk_codec.own_request_id(
            request.request_id, self._callers.proven_tenant(context), self._limits
        )
        spec = spec_from_proto(request.spec, self._limits)
        options = self._callers.options_of(spec.job.options, context)
        schedule = await self._schedules.create(
            replace(spec, job=replace(spec.job, options=options)), request_id
        )
        return schedule_pb2.CreateScheduleResponse(schedule=schedule_to_proto(schedule))

    async def GetSchedule(  # noqa: N802 - gRPC's name
        self, request: schedule_pb2.GetScheduleRequest, context: Context
    ) -> schedule_pb2.GetScheduleResponse:
        """Tells a schedule and its last run."""
        schedule = await self._schedules.get(await self._own(request.schedule_id, context))
        return schedule_pb2.GetScheduleResponse(schedule=schedule_to_proto(schedule))

    async def ListSchedules(  # noqa: N802 - gRPC's name
        self, request: schedule_pb2.ListSchedulesRequest, context: Context
    ) -> schedule_pb2.ListSchedulesResponse:
        """Lists schedules, newest first."""
        page_size = bulk_codec.page_size_from_proto(request.page_size, self._limits)
        token = bulk_codec.bounded(request.page_token, "page_token", self._limits.id_bytes_max)
        page = await self._schedules.page(page_size, token, self._callers.proven_tenant(context))
        return schedule_pb2.ListSchedulesResponse(
            schedules=[schedule_to_proto(schedule) for schedule in page.schedules],
            next_page_token=page.next_page_token,
        )

    async def RunSchedule(  # noqa: N802 - gRPC's name
        self, request: schedule_pb2.RunScheduleRequest, context: Context
    ) -> schedule_pb2.RunScheduleResponse:
        """Runs a schedule now."""
        schedule, job_ids = await self._schedules.run(await self._own(request.schedule_id, context))
        return schedule_pb2.RunScheduleResponse(schedule=schedule_to_proto(schedule), job_ids=job_ids)

    async def PauseSchedule(  # noqa: N802 - gRPC's name
        self, request: schedule_pb2.PauseScheduleRequest, context: Context
    ) -> schedule_pb2.PauseScheduleResponse:
        """Lets a schedule's times pass without a run."""
        schedule = await self._schedules.pause(await self._own(request.schedule_id, context))
        return schedule_pb2.PauseScheduleResponse(schedule=schedule_to_proto(schedule))

    async def ResumeSchedule(  # noqa: N802 - gRPC's name
        self, request: schedule_pb2.ResumeScheduleRequest, context: Context
    ) -> schedule_pb2.ResumeScheduleResponse:
        """Goes on with a schedule's next time."""
        schedule = await self._schedules.resume(await self._own(request.schedule_id, context))
        return schedule_pb2.ResumeScheduleResponse(schedule=schedule_to_proto(schedule))

    async def DeleteSchedule(  # noqa: N802 - gRPC's name
        self, request: schedule_pb2.DeleteScheduleRequest, context: Context
    ) -> schedule_pb2.DeleteScheduleResponse:
        """Removes a schedule."""
        await self._schedules.delete(await self._own(request.schedule_id, context))
        return schedule_pb2.DeleteScheduleResponse()

    async def _own(self, schedule_id: str, context: Context) -> str:
        """The id of a schedule, if the caller may know of it."""
        schedule_id = bulk_codec.required(schedule_id, "schedule_id", self._limits.id_bytes_max)
        tenant = self._callers.proven_tenant(context)
        if tenant is not None:
            schedule = await self._schedules.get(schedule_id)
            if schedule.spec.job.options.tenant != tenant:
                raise no_schedule(schedule_id)
        return schedule_id
