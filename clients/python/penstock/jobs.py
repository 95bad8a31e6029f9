"""Bulk jobs: what they are, what they have done, and the exchanges about them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from penstock.answers import Classification, Span
from penstock.errors import PenstockError, of_status
from penstock.exchange import Deadline, Exchange, Method, ask
from penstock.inputs import (
    classify_options_of,
    embed_options_of,
    model_of,
    number_of,
    row_options_of,
    tag_options_of,
)
from penstock.methods import CREATE_JOB, DELETE_JOB, LIST_JOBS, RETRY_FAILED_ROWS
from penstock.options import FileFormat, JobOptions, JobState, RowSelection, Task, TimeWindow
from penstock.outcomes import Answer, answer_of
from penstock.times import seconds_of, stamp_of, time_of
from penstock.v1 import bulk_pb2, common_pb2
from penstock.vectors import Embedding

LIST_PAGE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """A bulk input with its state. Once rows are counted, succeeded + failed + pending = total.

    Attributes:
        id: Id of the job.
        state: Where it stands.
        total: Rows of the input; 0 until they are counted.
        succeeded: Rows with an answer.
        failed: Rows that failed, each with a reason of its own.
        pending: Rows not done yet.
        model: The model that computes.
        version: Its version, fixed when the job was created.
        task: What is computed.
        tokens: Tokens computed, padding not counted.
        rows_per_second: Rows done a second lately; 0 if unknown.
        time_left_s: Predicted time until all rows are done; None if unknown.
        oldest_pending_s: How long the row that was begun first is under way; None if none is.
        display_name: The caller's own words for the job.
        upload_id: The input; empty if a URL names it.
        input_url: The input, if it is no upload.
        output_url: Folder that gets the result files; empty for none.
        output_format: Format of the files there; unspecified without it.
        output_rows_per_file: Most rows of one of them; 0 for all in one.
        weight: Its share of the time against the tenant's other jobs; 100 unless the caller said otherwise.
        share_max: Largest part of the bulk lanes' time that it may take; None for no bound of its own.
        expire_time: When it ends as EXPIRED unless all its rows are done; None for never.
        not_before: No row is computed before; None for at once.
        windows: Rows are computed only within these; none for at any time.
        failed_rows_max: The job fails once more rows than this have; None for never.
        retry_of: The job whose failed rows are its input; empty if the upload is.
        error: Why the job failed, or why the server paused it; None otherwise.
        create_time: When it was created.
        start_time: When its first row was computed; None before.
        end_time: When it ended; None before.
    """

    id: str
    state: JobState
    total: int
    succeeded: int
    failed: int
    pending: int
    model: str
    version: str
    task: Task
    tokens: int
    rows_per_second: float
    time_left_s: float | None
    oldest_pending_s: float | None
    display_name: str
    upload_id: str
    input_url: str
    output_url: str
    output_format: FileFormat
    output_rows_per_file: int
    weight: int
    share_max: float | None
    expire_time: datetime | None
    not_before: datetime | None
    windows: tuple[TimeWindow, ...]
    failed_rows_max: int | None
    retry_of: str
    error: PenstockError | None
    create_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None

    @property
    def done(self) -> int:
        """Rows that are done, well or not."""
        return self.succeeded + self.failed

    @property
    def has_ended(self) -> bool:
        """Whether the job will not change any more."""
        return self.state.has_ended

    @classmethod
    def of(cls, message: bulk_pb2.Job) -> Job:
        """Reads the server's message."""
        spec, progress = message.spec, message.progress
        return cls(
            id=message.id,
            state=JobState.of_number(message.state),
            total=progress.total,
            succeeded=progress.succeeded,
            failed=progress.failed,
            pending=progress.pending,
            model=spec.model.name,
            version=spec.model.version,
            task=Task.of_number(spec.task),
            tokens=progress.tokens,
            rows_per_second=progress.rows_per_second,
            time_left_s=seconds_of(progress.time_left) if progress.HasField("time_left") else None,
            oldest_pending_s=seconds_of(progress.oldest_pending_age)
            if progress.HasField("oldest_pending_age")
            else None,
            display_name=spec.display_name,
            upload_id=spec.upload_id,
            input_url=spec.input_url,
            output_url=spec.output_url,
            output_format=FileFormat.of_number(spec.output_format),
            output_rows_per_file=spec.output_rows_per_file,
            weight=spec.weight,
            share_max=spec.share_max or None,
            expire_time=time_of(spec.expire_time) if spec.HasField("expire_time") else None,
            not_before=time_of(spec.not_before) if spec.HasField("not_before") else None,
            windows=windows_of(spec.windows),
            failed_rows_max=spec.failed_rows_max if spec.HasField("failed_rows_max") else None,
            retry_of=spec.retry_of,
            error=of_status(message.error) if message.HasField("error") else None,
            create_time=time_of(message.create_time) if message.HasField("create_time") else None,
            start_time=time_of(message.start_time) if message.HasField("start_time") else None,
            end_time=time_of(message.end_time) if message.HasField("end_time") else None,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far long work is; what progress callbacks get.

    Attributes:
        phase: "upload" (counts bytes), "rows" (counts rows) or "download" (counts bytes).
        done: Bytes or rows done.
        total: Bytes or rows in all; 0 if not known yet.
        per_second: Bytes or rows done a second; 0 if not known yet.
        time_left_s: Predicted time left; None if unknown.
        job: The job as it stands; None while its input is uploaded.
    """

    phase: str
    done: int
    total: int
    per_second: float = 0.0
    time_left_s: float | None = None
    job: Job | None = None

    @classmethod
    def of_job(cls, job: Job) -> Progress:
        """Tells a job's progress in rows."""
        return cls("rows", job.done, job.total, job.rows_per_second, job.time_left_s, job)

    @classmethod
    def of_bytes(cls, phase: str, done: int, total: int, elapsed_s: float) -> Progress:
        """Tells the progress of a transfer, with its mean rate since it began."""
        per_second = done / elapsed_s if elapsed_s > 0 else 0.0
        time_left_s = (total - done) / per_second if per_second and total else None
        return cls(phase, done, total, per_second, time_left_s)


ProgressCallback = Callable[[Progress], object]


@dataclass(frozen=True, slots=True)
class RowResult:
    """What became of one row of a job: either an answer or an error.

    Attributes:
        row: Number of the row in the input, from 0.
        key: The row's value in the key column; None without one, or where it is null.
        answer: The row's vector, labels or spans.
        error: Why the row failed.
        carried: The row's carried columns; empty without any.
    """

    row: int
    key: str | int | None
    answer: Answer | None
    error: PenstockError | None
    carried: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def embedding(self) -> Embedding | None:
        """The answer, if it is a vector."""
        return self.answer if isinstance(self.answer, Embedding) else None

    @property
    def classification(self) -> Classification | None:
        """The answer, if it is labels."""
        return self.answer if isinstance(self.answer, Classification) else None

    @property
    def tags(self) -> tuple[Span, ...] | None:
        """The answer, if it is spans."""
        return self.answer if isinstance(self.answer, tuple) else None

    @classmethod
    def of(cls, message: bulk_pb2.RowResult) -> RowResult:
        """Reads the server's message."""
        keyed = message.WhichOneof("key")
        key = None if keyed is None else message.string_key if keyed == "string_key" else message.int_key
        outcome = message.WhichOneof("outcome")
        error = of_status(message.error) if outcome == "error" else None
        carried: dict[str, Any] = json.loads(message.carried) if message.carried else {}
        return cls(message.row, key, answer_of(message), error, carried)


def spec_of(upload_id: str, model: str, task: Task | str, options: JobOptions) -> bulk_pb2.JobSpec:
    """Builds the message that says what a job computes."""
    spec = bulk_pb2.JobSpec(
        model=model_of(model, options.get("version", "")),
        task=cast(common_pb2.Task.ValueType, number_of(Task, task)),
        input_format=cast(bulk_pb2.FileFormat.ValueType, number_of(FileFormat, options.get("input_format"))),
        text_column=options.get("text_column") or "",
        text_pair_column=options.get("text_pair_column") or "",
        key_column=options.get("key_column") or "",
        carry_columns=options.get("carry_columns", ()),
        options=row_options_of(options),
        embed=embed_options_of(options),
        classify=classify_options_of(options),
        tag=tag_options_of(options),
        display_name=options.get("display_name", ""),
        weight=options.get("weight") or 0,
        share_max=options.get("share_max") or 0,
        not_before=stamp_of(options.get("not_before")),
        windows=[_window_of(window) for window in options.get("windows", ())],
        failed_rows_max=options.get("failed_rows_max"),
        expire_time=stamp_of(options.get("expire_time")),
        output_url=options.get("output_url", ""),
        output_format=cast(
            bulk_pb2.FileFormat.ValueType, number_of(FileFormat, options.get("output_format"))
        ),
        output_rows_per_file=options.get("output_rows_per_file") or 0,
    )
    if options.get("input_url"):
        spec.input_url = options.get("input_url", "")
    else:
        spec.upload_id = upload_id
    return spec


def create_job(spec: bulk_pb2.JobSpec, request_id: str, timeout_s: float | None) -> Exchange[Job]:
    """Starts a job; the request id lets gRPC repeat the call without starting two."""
    request = bulk_pb2.CreateJobRequest(spec=spec, request_id=request_id or uuid.uuid4().hex)
    response = yield from ask(CREATE_JOB, request, Deadline(timeout_s))
    return Job.of(response.job)


def job_call(method: Method[Any, Any], job_id: str, timeout_s: float | None) -> Exchange[Job]:
    """Makes one of the calls that name a job and answer with it."""
    response = yield from ask(method, method.request(job_id=job_id), Deadline(timeout_s))
    return Job.of(response.job)


def retry_job(job_id: str, request_id: str, timeout_s: float | None) -> Exchange[Job]:
    """Starts a job over another one's failed rows; the request id is as in `create_job`."""
    request = bulk_pb2.RetryFailedRowsRequest(job_id=job_id, request_id=request_id or uuid.uuid4().hex)
    response = yield from ask(RETRY_FAILED_ROWS, request, Deadline(timeout_s))
    return Job.of(response.job)


def delete_job(job_id: str, timeout_s: float | None) -> Exchange[None]:
    """Removes a job that has ended, with its input and results."""
    yield from ask(DELETE_JOB, bulk_pb2.DeleteJobRequest(job_id=job_id), Deadline(timeout_s))


def list_jobs(
    states: Iterable[JobState | str], jobs_max: int | None, timeout_s: float | None
) -> Exchange[list[Job]]:
    """Asks for jobs, newest first, page by page."""
    deadline = Deadline(timeout_s)
    numbers = [cast(bulk_pb2.JobState.ValueType, number_of(JobState, state)) for state in states]
    jobs: list[Job] = []
    token = ""
    while True:
        page_rows = LIST_PAGE_ROWS if jobs_max is None else min(LIST_PAGE_ROWS, jobs_max - len(jobs))
        request = bulk_pb2.ListJobsRequest(page_size=page_rows, page_token=token, states=numbers)
        response = yield from ask(LIST_JOBS, request, deadline)
        jobs += [Job.of(each) for each in response.jobs]
        token = response.next_page_token
        if not token or (jobs_max is not None and len(jobs) >= jobs_max):
            return jobs[:jobs_max]


def rows_of(response: bulk_pb2.ReadResultsResponse) -> Iterator[RowResult]:
    """Reads the rows of a message."""
    return (RowResult.of(each) for each in response.rows)


def results_request(
    job_id: str, start_row: int, selection: RowSelection | str
) -> bulk_pb2.ReadResultsRequest:
    """Builds the message that asks for finished rows."""
    number = number_of(RowSelection, selection)
    return bulk_pb2.ReadResultsRequest(
        job_id=job_id, start_row=start_row, selection=cast(bulk_pb2.RowSelection.ValueType, number)
    )


def file_request(
    job_id: str, file_format: FileFormat | str, selection: RowSelection | str
) -> bulk_pb2.ReadResultsRequest:
    """Builds the message that asks for a result file."""
    request = results_request(job_id, 0, selection)
    request.format = cast(bulk_pb2.FileFormat.ValueType, number_of(FileFormat, file_format))
    return request


def windows_of(messages: Iterable[bulk_pb2.TimeWindow]) -> tuple[TimeWindow, ...]:
    """Reads windows of time."""
    return tuple(
        TimeWindow(each.start_cron, each.duration.ToTimedelta(), each.time_zone or "UTC") for each in messages
    )


def _window_of(window: TimeWindow) -> bulk_pb2.TimeWindow:
    message = bulk_pb2.TimeWindow(start_cron=window.start, time_zone=window.time_zone)
    message.duration.FromTimedelta(window.duration)
    return message
