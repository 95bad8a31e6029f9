"""Jobs as google.longrunning operations."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from google.protobuf import duration_pb2
from google.rpc import code_pb2

from penstock.v1 import bulk_pb2
from penstock_server.api.bulk import BulkServicer
from penstock_server.api.callers import CallerReader
from penstock_server.api.operations import OperationsServicer
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import InvalidRequest, UnknownJob, WrongState
from tests.support.bulk_jobs import BARE_CONTEXT as CONTEXT
from tests.support.bulk_jobs import Bench, running_bench, settle

LIMITS = BulkLimits(window_rows=4, disk_free_bytes_min=0)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with running_bench(tmp_path, LIMITS) as bench:
        yield bench


@pytest.fixture
def operations(bench: Bench) -> OperationsServicer:
    return OperationsServicer(BulkServicer(bench.uploads, bench.runner, LIMITS, CallerReader()))


def job_in(message: operations_pb2.Operation) -> bulk_pb2.Job:
    job = bulk_pb2.Job()
    assert message.metadata.Unpack(job)
    return job


async def test_a_job_is_an_operation_that_is_done_when_it_has_ended(
    bench: Bench, operations: OperationsServicer
) -> None:
    job = await bench.submit(["a", "b"])
    name = f"operations/{job.id}"
    bench.lane.compute(1)
    running = await operations.GetOperation(operations_pb2.GetOperationRequest(name=name), CONTEXT)
    assert (running.name, running.done, running.WhichOneof("result")) == (name, False, None)
    assert (job_in(running).id, job_in(running).progress.succeeded) == (job.id, 1)
    brief = operations_pb2.WaitOperationRequest(name=name, timeout=duration_pb2.Duration())
    assert not (await operations.WaitOperation(brief, CONTEXT)).done
    await bench.finish(job.id)
    done = await operations.WaitOperation(operations_pb2.WaitOperationRequest(name=name), CONTEXT)
    answer = bulk_pb2.Job()
    assert done.done
    assert done.response.Unpack(answer)
    assert answer.progress.succeeded == 2
    listed = await operations.ListOperations(
        operations_pb2.ListOperationsRequest(name="operations", page_size=5), CONTEXT
    )
    assert [each.name for each in listed.operations] == [name]
    await operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name), CONTEXT)
    with pytest.raises(UnknownJob):
        await operations.GetOperation(operations_pb2.GetOperationRequest(name=name), CONTEXT)


async def test_what_did_not_succeed_has_an_error(bench: Bench, operations: OperationsServicer) -> None:
    cancelled = await bench.submit(["a", "b"])
    name = f"operations/{cancelled.id}"
    with pytest.raises(WrongState):
        await operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name), CONTEXT)
    await operations.CancelOperation(operations_pb2.CancelOperationRequest(name=name), CONTEXT)
    await settle()
    told = await operations.GetOperation(operations_pb2.GetOperationRequest(name=name), CONTEXT)
    assert (told.done, told.error.code) == (True, code_pb2.CANCELLED)
    upload_id = bench.upload("rows.jsonl", b'{"body": "a"}\n')
    failed = await bench.runner.create(bench.spec(upload_id))
    await settle()
    told = await operations.GetOperation(
        operations_pb2.GetOperationRequest(name=f"operations/{failed.id}"), CONTEXT
    )
    assert (told.done, told.error.code) == (True, code_pb2.INVALID_ARGUMENT)
    assert "No line has a field 'text'" in told.error.message


@pytest.mark.parametrize("name", ["", "operations", "operations/", "jobs/job-1", "job-1"])
async def test_other_names_are_refused(operations: OperationsServicer, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name: must be operations/JOB_ID"):
        await operations.GetOperation(operations_pb2.GetOperationRequest(name=name), CONTEXT)


async def test_lists_are_of_all_jobs(operations: OperationsServicer) -> None:
    for request in (
        operations_pb2.ListOperationsRequest(name="jobs"),
        operations_pb2.ListOperationsRequest(filter="done"),
    ):
        with pytest.raises(InvalidRequest):
            await operations.ListOperations(request, CONTEXT)
