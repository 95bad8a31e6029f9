"""A real gRPC server on a free port that answers as its script says, to test the client on the wire."""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf import duration_pb2, wrappers_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from penstock.v1 import (
    bulk_pb2,
    bulk_pb2_grpc,
    common_pb2,
    inference_pb2,
    inference_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    schedule_pb2,
    schedule_pb2_grpc,
)

Context = grpc.ServicerContext


@dataclass(frozen=True)
class Refusal:
    """How a call fails: a status, its text, and what goes into its details."""

    code: grpc.StatusCode
    text: str = "no"
    details: tuple[Message, ...] = ()

    def apply(self, context: Context) -> NoReturn:
        rich = status_pb2.Status(code=self.code.value[0], message=self.text)
        for each in self.details:
            packed = AnyMessage()
            packed.Pack(each)
            rich.details.append(packed)
        if self.details:
            context.set_trailing_metadata((("grpc-status-details-bin", rich.SerializeToString()),))
        context.abort(self.code, self.text)


def info_of(reason: str, **metadata: str) -> Message:
    message: Message = error_details_pb2.ErrorInfo(reason=reason, domain="penstock.dev", metadata=metadata)
    return message


def retry_after(delay_s: float) -> Message:
    delay = duration_pb2.Duration(nanos=round(delay_s * 1e9))
    message: Message = error_details_pb2.RetryInfo(retry_delay=delay)
    return message


@dataclass
class Script:
    """What the server will do, and what it was asked."""

    refusals: deque[Refusal] = field(default_factory=deque[Refusal])
    requests: list[Any] = field(default_factory=list[Any])
    metadata: list[dict[str, str | bytes]] = field(default_factory=list[dict[str, str | bytes]])
    versions: deque[str] = field(default_factory=deque[str])
    vector_format: str = "packed"
    # Offset, size and whether it had a checksum, of every chunk that came.
    chunks: list[tuple[int, int, bool]] = field(default_factory=list[tuple[int, int, bool]])
    job_ends_failed: bool = False
    # The file arrives changed: the upload fails at its end and is gone.
    spoil_upload: bool = False
    # The server has the file already.
    upload_is_known: bool = False
    stored: bytearray = field(default_factory=bytearray)
    upload: bulk_pb2.Upload = field(default_factory=bulk_pb2.Upload)
    cut_upload_at: deque[int] = field(default_factory=deque[int])
    job_rows: int = 10
    cut_results_after: deque[int] = field(default_factory=deque[int])
    # Schedules that are listed; what a run makes and leaves, and why it makes no more.
    schedules: int = 5
    run_jobs: int = 2
    run_files_left: int = 1
    run_fails: str = ""
    stream_left: threading.Event = field(default_factory=threading.Event)

    def enter(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refusals:
            self.refusals.popleft().apply(context)

    def info(self) -> common_pb2.AnswerInfo:
        version = self.versions.popleft() if self.versions else "1"
        timings = common_pb2.Timings(total=duration_pb2.Duration(nanos=2_500_000))
        return common_pb2.AnswerInfo(
            model="m",
            model_version=version,
            served_class=common_pb2.REQUEST_CLASS_LIVE,
            timings=timings,
            tokens=7,
        )


def vector_of(text: str) -> list[float]:
    """The vector that the scripted server gives a text."""
    return [float(len(text)), 0.5, -1.0]


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def _vector(self, text: str) -> common_pb2.Embedding:
        if self._script.vector_format == "packed":
            return common_pb2.Embedding(packed=struct.pack("<3f", *vector_of(text)))
        return common_pb2.Embedding(values=vector_of(text))

    def Embed(self, request: inference_pb2.EmbedRequest, context: Context) -> inference_pb2.EmbedResponse:
        self._script.enter(request, context)
        vectors = [self._vector(each.text) for each in request.inputs]
        return inference_pb2.EmbedResponse(embeddings=vectors, dimensions=3, info=self._script.info())

    def Classify(
        self, request: inference_pb2.ClassifyRequest, context: Context
    ) -> inference_pb2.ClassifyResponse:
        self._script.enter(request, context)
        rows = [
            common_pb2.Classification(
                labels=[
                    common_pb2.LabelScore(
                        label="pair" if each.HasField("text_pair") else "single", score=0.75
                    ),
                    common_pb2.LabelScore(label="other", score=0.25),
                ]
            )
            for each in request.inputs
        ]
        return inference_pb2.ClassifyResponse(classifications=rows, info=self._script.info())

    def Tag(self, request: inference_pb2.TagRequest, context: Context) -> inference_pb2.TagResponse:
        self._script.enter(request, context)
        span = common_pb2.Span(label="PER", score=0.5, start_char=0, end_char=3, end_byte=4)
        rows = [common_pb2.TagList(spans=[span]) for _ in request.inputs]
        return inference_pb2.TagResponse(tags=rows, info=self._script.info())

    def Rerank(self, request: inference_pb2.RerankRequest, context: Context) -> inference_pb2.RerankResponse:
        self._script.enter(request, context)
        rows = [
            inference_pb2.RankedDocument(index=index, score=len(text))
            for index, text in enumerate(request.documents)
        ]
        rows.sort(key=lambda each: -each.score)
        kept = rows[: request.top_k] if request.top_k else rows
        return inference_pb2.RerankResponse(documents=kept, info=self._script.info())

    def Tokenize(
        self, request: inference_pb2.TokenizeRequest, context: Context
    ) -> inference_pb2.TokenizeResponse:
        self._script.enter(request, context)
        rows = [
            inference_pb2.TokenSequence(
                ids=[5, 6],
                tokens=["a", "b"] if request.return_tokens else [],
                start_chars=[0, 1] if request.return_offsets else [],
                end_chars=[1, 2] if request.return_offsets else [],
                type_ids=[0, 0],
            )
            for _ in request.inputs
        ]
        return inference_pb2.TokenizeResponse(sequences=rows, info=self._script.info())

    def Stream(
        self, request_iterator: Iterator[inference_pb2.StreamRequest], context: Context
    ) -> Iterator[inference_pb2.StreamResponse]:
        context.add_callback(self._script.stream_left.set)
        self._script.enter(next(request_iterator), context)
        yield inference_pb2.StreamResponse(opened=inference_pb2.StreamOpened(model="m", max_in_flight=64))
        for request in request_iterator:
            self._script.requests.append(request)
            yield inference_pb2.StreamResponse(result=self._result(request))

    def _result(self, request: inference_pb2.StreamRequest) -> inference_pb2.StreamResult:
        if request.WhichOneof("message") == "append":
            end = inference_pb2.AppendEnd(sentences=3)
            return inference_pb2.StreamResult(id=request.append.id, append_end=end)
        text = request.text
        if text.input.text == "bad":
            error = status_pb2.Status(code=3, message="bad text")
            return inference_pb2.StreamResult(id=text.id, error=error)
        if text.key:
            superseded = inference_pb2.Superseded(by_id=f"after-{text.id}")
            return inference_pb2.StreamResult(id=text.id, superseded=superseded)
        vector = self._vector(text.input.text)
        return inference_pb2.StreamResult(id=text.id, embedding=vector, info=self._script.info())


class Bulk(bulk_pb2_grpc.BulkServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def Upload(
        self, request_iterator: Iterator[bulk_pb2.UploadRequest], context: Context
    ) -> bulk_pb2.UploadResponse:
        script = self._script
        header = next(request_iterator).header
        script.enter(header, context)
        if not header.upload_id:
            script.upload = bulk_pb2.Upload(id="u1", file_name=header.file_name, size_bytes=header.size_bytes)
        if script.upload_is_known:
            script.upload.committed_bytes, script.upload.complete = script.upload.size_bytes, True
            return bulk_pb2.UploadResponse(upload=script.upload)
        for request in request_iterator:
            chunk = request.chunk
            if chunk.offset != len(script.stored):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"offset {chunk.offset}")
            script.chunks.append((chunk.offset, len(chunk.data), chunk.HasField("crc32c")))
            script.stored += chunk.data
            if script.cut_upload_at and len(script.stored) >= script.cut_upload_at[0]:
                script.cut_upload_at.popleft()
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        if script.spoil_upload and header.upload_id:
            Refusal(grpc.StatusCode.DATA_LOSS, "changed", (info_of("CORRUPT_UPLOAD"),)).apply(context)
        script.upload.committed_bytes = len(script.stored)
        script.upload.complete = len(script.stored) == script.upload.size_bytes
        return bulk_pb2.UploadResponse(upload=script.upload)

    def GetUpload(self, request: bulk_pb2.GetUploadRequest, context: Context) -> bulk_pb2.GetUploadResponse:
        self._script.enter(request, context)
        if self._script.spoil_upload:
            Refusal(grpc.StatusCode.NOT_FOUND, "none", (info_of("UNKNOWN_UPLOAD"),)).apply(context)
        self._script.upload.committed_bytes = len(self._script.stored)
        return bulk_pb2.GetUploadResponse(upload=self._script.upload)

    def _job(self, done: int) -> bulk_pb2.Job:
        total = self._script.job_rows
        job = bulk_pb2.Job(id="j1")
        job.spec.model.name = "m"
        job.spec.task = common_pb2.TASK_EMBED
        job.state = bulk_pb2.JOB_STATE_SUCCEEDED if done == total else bulk_pb2.JOB_STATE_RUNNING
        if done == total and self._script.job_ends_failed:
            job.state = bulk_pb2.JOB_STATE_FAILED
            job.error.message = "no column 'text'"
        job.progress.total = total
        job.progress.failed = min(done, 1)
        job.progress.succeeded = done - job.progress.failed
        job.progress.pending = total - done
        job.progress.rows_per_second = 4.0
        job.progress.time_left.seconds = total - done
        job.create_time.FromSeconds(1_700_000_000)
        return job

    def CreateJob(self, request: bulk_pb2.CreateJobRequest, context: Context) -> bulk_pb2.CreateJobResponse:
        self._script.enter(request, context)
        return bulk_pb2.CreateJobResponse(job=self._job(0))

    def GetJob(self, request: bulk_pb2.GetJobRequest, context: Context) -> bulk_pb2.GetJobResponse:
        self._script.enter(request, context)
        return bulk_pb2.GetJobResponse(job=self._job(0))

    def ListJobs(self, request: bulk_pb2.ListJobsRequest, context: Context) -> bulk_pb2.ListJobsResponse:
        self._script.enter(request, context)
        first = int(request.page_token or 0)
        jobs = [bulk_pb2.Job(id=f"j{index}") for index in range(first, min(first + 2, 5))]
        return bulk_pb2.ListJobsResponse(jobs=jobs, next_page_token=str(first + 2) if first + 2 < 5 else "")

    def WatchJob(
        self, request: bulk_pb2.WatchJobRequest, context: Context
    ) -> Iterator[bulk_pb2.WatchJobResponse]:
        self._script.enter(request, context)
        yield bulk_pb2.WatchJobResponse(job=self._job(2))
        if self._script.refusals:
            self._script.refusals.popleft().apply(context)
        yield bulk_pb2.WatchJobResponse(job=self._job(self._script.job_rows))

    def ReadResults(
        self, request: bulk_pb2.ReadResultsRequest, context: Context
    ) -> Iterator[bulk_pb2.ReadResultsResponse]:
        script = self._script
        script.enter(request, context)
        cut_after = script.cut_results_after.popleft() if script.cut_results_after else None
        for sent, row in enumerate(range(request.start_row, script.job_rows)):
            if sent == cut_after:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            if request.format:
                yield bulk_pb2.ReadResultsResponse(data=f'{{"row": {row}}}\n'.encode())
            else:
                yield bulk_pb2.ReadResultsResponse(rows=[self._row(row)], next_row=row + 1)

    def _row(self, row: int) -> bulk_pb2.RowResult:
        if row == 3:
            error = status_pb2.Status(code=3, message="empty text")
            return bulk_pb2.RowResult(row=row, int_key=row, error=error)
        vector = common_pb2.Embedding(packed=struct.pack("<f", row))
        return bulk_pb2.RowResult(row=row, string_key=f"k{row}", embedding=vector)

    def CancelJob(self, request: bulk_pb2.CancelJobRequest, context: Context) -> bulk_pb2.CancelJobResponse:
        self._script.enter(request, context)
        return bulk_pb2.CancelJobResponse(
            job=bulk_pb2.Job(id=request.job_id, state=bulk_pb2.JOB_STATE_CANCELLED)
        )

    def PauseJob(self, request: bulk_pb2.PauseJobRequest, context: Context) -> bulk_pb2.PauseJobResponse:
        Refusal(grpc.StatusCode.UNIMPLEMENTED, "not yet", (info_of("NOT_IN_THIS_RELEASE"),)).apply(context)

    def ResumeJob(self, request: bulk_pb2.ResumeJobRequest, context: Context) -> bulk_pb2.ResumeJobResponse:
        self._script.enter(request, context)
        return bulk_pb2.ResumeJobResponse(job=self._job(1))

    def RetryFailedRows(
        self, request: bulk_pb2.RetryFailedRowsRequest, context: Context
    ) -> bulk_pb2.RetryFailedRowsResponse:
        self._script.enter(request, context)
        return bulk_pb2.RetryFailedRowsResponse()

    def DeleteJob(self, request: bulk_pb2.DeleteJobRequest, context: Context) -> bulk_pb2.DeleteJobResponse:
        self._script.enter(request, context)
        return bulk_pb2.DeleteJobResponse()


class Schedules(schedule_pb2_grpc.ScheduleServiceServicer):
    """One schedule, s1, as it was asked for."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._schedule = schedule_pb2.Schedule(id="s1")
        self._schedule.create_time.FromSeconds(1_700_000_000)
        self._go_on()

    def _go_on(self) -> None:
        self._schedule.paused = False
        # 02:00 in Berlin.
        self._schedule.next_run_time.FromJsonString("2031-05-06T00:00:00Z")

    def CreateSchedule(
        self, request: schedule_pb2.CreateScheduleRequest, context: Context
    ) -> schedule_pb2.CreateScheduleResponse:
        self._script.enter(request, context)
        self._schedule.spec.CopyFrom(request.spec)
        return schedule_pb2.CreateScheduleResponse(schedule=self._schedule)

    def GetSchedule(
        self, request: schedule_pb2.GetScheduleRequest, context: Context
    ) -> schedule_pb2.GetScheduleResponse:
        self._script.enter(request, context)
        if request.schedule_id != "s1":
            unknown = info_of("UNKNOWN_SCHEDULE", schedule_id=request.schedule_id)
            Refusal(grpc.StatusCode.NOT_FOUND, "no such schedule", (unknown,)).apply(context)
        return schedule_pb2.GetScheduleResponse(schedule=self._schedule)

    def ListSchedules(
        self, request: schedule_pb2.ListSchedulesRequest, context: Context
    ) -> schedule_pb2.ListSchedulesResponse:
        self._script.enter(request, context)
        first, total = int(request.page_token or 0), self._script.schedules
        listed = [schedule_pb2.Schedule(id=f"s{index}") for index in range(first, min(first + 2, total))]
        token = str(first + 2) if first + 2 < total else ""
        return schedule_pb2.ListSchedulesResponse(schedules=listed, next_page_token=token)

    def RunSchedule(
        self, request: schedule_pb2.RunScheduleRequest, context: Context
    ) -> schedule_pb2.RunScheduleResponse:
        self._script.enter(request, context)
        run = schedule_pb2.ScheduleRun(jobs=self._script.run_jobs, files_left=self._script.run_files_left)
        run.time.FromSeconds(1_800_000_000)
        if self._script.run_fails:
            run.error.code, run.error.message = grpc.StatusCode.UNAVAILABLE.value[0], self._script.run_fails
        self._schedule.last_run.CopyFrom(run)
        return schedule_pb2.RunScheduleResponse(
            schedule=self._schedule, job_ids=[f"j{index}" for index in range(run.jobs)]
        )

    def PauseSchedule(
        self, request: schedule_pb2.PauseScheduleRequest, context: Context
    ) -> schedule_pb2.PauseScheduleResponse:
        self._script.enter(request, context)
        self._schedule.paused = True
        self._schedule.ClearField("next_run_time")
        return schedule_pb2.PauseScheduleResponse(schedule=self._schedule)

    def ResumeSchedule(
        self, request: schedule_pb2.ResumeScheduleRequest, context: Context
    ) -> schedule_pb2.ResumeScheduleResponse:
        self._script.enter(request, context)
        self._go_on()
        return schedule_pb2.ResumeScheduleResponse(schedule=self._schedule)

    def DeleteSchedule(
        self, request: schedule_pb2.DeleteScheduleRequest, context: Context
    ) -> schedule_pb2.DeleteScheduleResponse:
        self._script.enter(request, context)
        return schedule_pb2.DeleteScheduleResponse()


def cost_table() -> model_pb2.CostTable:
    return model_pb2.CostTable(
        lane=model_pb2.LANE_KIND_BULK,
        rows=[1, 2],
        lengths=[8, 16, 24],
        median_ms=[1.1, 1.2, 1.3, 2.1, 2.2, 2.3],
        upper_ms=[2.1, 2.2, 2.3, 3.1, 3.2, 3.3],
        best_rows=[2, 2, 1],
        observations=1234,
        drift=1.25,
    )


class Models(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        self._script.enter(request, context)
        version = model_pb2.ModelVersion(
            version="1", state=model_pb2.MODEL_STATE_READY, task=common_pb2.TASK_EMBED, dimensions=3
        )
        return model_pb2.ListModelsResponse(models=[model_pb2.Model(name="m", versions=[version])])

    def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.GetModelResponse:
        listed = self.ListModels(model_pb2.ListModelsRequest(), context).models[0]
        if request.name != listed.name:
            Refusal(grpc.StatusCode.NOT_FOUND, "no such model", (info_of("UNKNOWN_MODEL"),)).apply(context)
        listed.versions[0].costs.append(cost_table())
        return model_pb2.GetModelResponse(model=listed)

    def LoadModel(self, request: model_pb2.LoadModelRequest, context: Context) -> NoReturn:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

    def UnloadModel(self, request: model_pb2.UnloadModelRequest, context: Context) -> NoReturn:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

    def SetRoute(self, request: model_pb2.SetRouteRequest, context: Context) -> NoReturn:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "")


def health_handler(script: Script) -> grpc.GenericRpcHandler:
    """grpc.health.v1 without its package: the wrappers have the same bytes."""

    def check(request: wrappers_pb2.StringValue, context: Context) -> wrappers_pb2.Int32Value:
        script.enter(request, context)
        known = {"": 1, "m": 1, "loading": 2}
        if request.value not in known:
            context.abort(grpc.StatusCode.NOT_FOUND, "")
        return wrappers_pb2.Int32Value(value=known[request.value])

    handler = grpc.unary_unary_rpc_method_handler(
        check, wrappers_pb2.StringValue.FromString, wrappers_pb2.Int32Value.SerializeToString
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})


@contextmanager
def scripted_server(script: Script) -> Generator[str]:
    """Runs the server and yields its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(Inference(script), server)
    bulk_pb2_grpc.add_BulkServiceServicer_to_server(Bulk(script), server)
    schedule_pb2_grpc.add_ScheduleServiceServicer_to_server(Schedules(script), server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(Models(script), server)
    server.add_generic_rpc_handlers((health_handler(script),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
