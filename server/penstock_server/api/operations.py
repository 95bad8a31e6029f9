"""google.longrunning.Operations over bulk jobs, for clients that know operations and not Penstock."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from google.rpc import code_pb2, status_pb2

from penstock.v1 import bulk_pb2
from penstock_server.api.bulk import BulkServicer
from penstock_server.api.deadlines import Context
from penstock_server.domain.errors import InvalidRequest

COLLECTION = "operations"
# How long WaitOperation waits unless it is told. Chosen: shorter than what proxies allow a silent call.
_WAIT_S = 30.0

# Jobs that have ended without having computed all their rows; those that FAILED have an error of their own.
_ENDINGS = {
    bulk_pb2.JOB_STATE_CANCELLED: (code_pb2.CANCELLED, "The job was cancelled; finished rows can be read."),
    bulk_pb2.JOB_STATE_EXPIRED: (
        code_pb2.DEADLINE_EXCEEDED,
        "The job's time ran out; finished rows can be read.",
    ),
}


class OperationsServicer:
    """Shows each job as an operation ``operations/JOB_ID`` with the Job as its metadata.

    An operation is done when its job has ended: with the Job as its response if it SUCCEEDED, else with an
    error.
    """

    def __init__(self, bulk: BulkServicer) -> None:
        self._bulk = bulk

    async def GetOperation(  # noqa: N802 - gRPC's name
        self, request: operations_pb2.GetOperationRequest, context: Context
    ) -> operations_pb2.Operation:
        """Tells how far a job is."""
        response = await self._bulk.GetJob(bulk_pb2.GetJobRequest(job_id=_job_id(request.name)), context)
        return operation_of(response.job)

    async def ListOperations(  # noqa: N802 - gRPC's name
        self, request: operations_pb2.ListOperationsRequest, context: Context
    ) -> operations_pb2.ListOperationsResponse:
        """Lists jobs, newest first."""
        if request.name not in ("", COLLECTION):
            raise InvalidRequest.of_field("name", f"must be {COLLECTION}")
        if request.filter:
            raise InvalidRequest.of_field("filter", "must be empty; ListJobs filters by state")
        jobs = await self._bulk.ListJobs(
            bulk_pb2.ListJobsRequest(page_size=request.page_size, page_token=request.page_token), context
        )
        return operations_pb2.ListOperationsResponse(
            operations=[operation_of(job) for job in jobs.jobs], next_page_token=jobs.next_page_token
        )

    async def CancelOperation(  # noqa: N802 - gRPC's name
        self, request: operations_pb2.CancelOperationRequest, context: Context
    ) -> empty_pb2.Empty:
        """Ends a job, keeping what is done."""
        await self._bulk.CancelJob(bulk_pb2.CancelJobRequest(job_id=_job_id(request.name)), context)
        return empty_pb2.Empty()

    async def DeleteOperation(  # noqa: N802 - gRPC's name
        self, request: operations_pb2.DeleteOperationRequest, context: Context
    ) -> empty_pb2.Empty:
        """Removes a job that has ended, with its input and results."""
        await self._bulk.DeleteJob(bulk_pb2.DeleteJobRequest(job_id=_job_id(request.name)), context)
        return empty_pb2.Empty()

    async def WaitOperation(  # noqa: N802 - gRPC's name
        self, request: operations_pb2.WaitOperationRequest, context: Context
    ) -> operations_pb2.Operation:
        """Answers when a job has ended, or after a while with how far it is."""
        job_id = _job_id(request.name)
        seconds = request.timeout.ToTimedelta().total_seconds() if request.HasField("timeout") else _WAIT_S
        watched = self._bulk.WatchJob(bulk_pb2.WatchJobRequest(job_id=job_id), context)
        job: bulk_pb2.Job | None = None
        try:
            async with asyncio.timeout(max(0.0, seconds)), aclosing(watched) as responses:
                async for response in responses:
                    job = response.job
        except TimeoutError:
            pass
        if job is None:
            job = (await self._bulk.GetJob(bulk_pb2.GetJobRequest(job_id=job_id), context)).job
        return operation_of(job)


def operation_of(job: bulk_pb2.Job) -> operations_pb2.Operation:
    """Writes a job as an operation."""
    operation = operations_pb2.Operation(name=f"{COLLECTION}/{job.id}")
    operation.metadata.Pack(job)
    if job.state == bulk_pb2.JOB_STATE_SUCCEEDED:
        operation.done = True
        operation.response.Pack(job)
    elif job.state == bulk_pb2.JOB_STATE_FAILED:
        operation.done = True
        operation.error.CopyFrom(job.error)
    elif job.state in _ENDINGS:
        operation.done = True
        code, message = _ENDINGS[job.state]
        operation.error.CopyFrom(status_pb2.Status(code=code, message=message))
    return operation


def _job_id(name: str) -> str:
    collection, _, job_id = name.partition("/")
    if collection != COLLECTION or not job_id:
        raise InvalidRequest.of_field("name", f"must be {COLLECTION}/JOB_ID")
    return job_id
