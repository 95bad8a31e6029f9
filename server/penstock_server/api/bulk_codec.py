"""Messages to domain values and back, for uploads, jobs and results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import grpc
from google.protobuf import any_pb2, duration_pb2, timestamp_pb2
from google.rpc import error_details_pb2, status_pb2

from penstock.v1 import bulk_pb2, common_pb2
from penstock_server.api import codec
from penstock_server.api.status import DOMAIN, STATUS_BY_ERROR
from penstock_server.bulk.carried import check_carried
from penstock_server.bulk.file_sets import names_many
from penstock_server.bulk.formats import format_of_name, known_format
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.openai_input import batch_columns
from penstock_server.bulk.parts import RowStatus
from penstock_server.bulk.results import ResultRows
from penstock_server.bulk.uploads import Upload
from penstock_server.domain.answer import Classifications, Vectors
from penstock_server.domain.errors import InvalidRequest, NotBuilt
from penstock_server.domain.job import (
    RESULT_FORMATS,
    WEIGHT_DEFAULT,
    WEIGHT_MAX,
    FileFormat,
    InputColumns,
    Job,
    JobProgress,
    JobSpec,
    JobState,
    RowFailure,
    RowSelection,
    TimeWindow,
)
from penstock_server.domain.tasks import (
    OverloadPolicy,
    RequestClass,
    RequestOptions,
    ScoreFunction,
    TaskOptions,
    Truncation,
)

_FORMATS: dict[int, FileFormat] = {
    bulk_pb2.FILE_FORMAT_JSONL: FileFormat.JSONL,
    bulk_pb2.FILE_FORMAT_CSV: FileFormat.CSV,
    bulk_pb2.FILE_FORMAT_PARQUET: FileFormat.PARQUET,
    bulk_pb2.FILE_FORMAT_ARROW: FileFormat.ARROW,
    bulk_pb2.FILE_FORMAT_OPENAI_BATCH: FileFormat.OPENAI_BATCH,
}
_FORMAT_NUMBERS: dict[FileFormat, bulk_pb2.FileFormat.ValueType] = {
    FileFormat.JSONL: bulk_pb2.FILE_FORMAT_JSONL,
    FileFormat.CSV: bulk_pb2.FILE_FORMAT_CSV,
    FileFormat.PARQUET: bulk_pb2.FILE_FORMAT_PARQUET,
    FileFormat.ARROW: bulk_pb2.FILE_FORMAT_ARROW,
    FileFormat.OPENAI_BATCH: bulk_pb2.FILE_FORMAT_OPENAI_BATCH,
}
_SELECTIONS: dict[int, RowSelection] = {
    bulk_pb2.ROW_SELECTION_UNSPECIFIED: RowSelection.ALL,
    bulk_pb2.ROW_SELECTION_SUCCEEDED: RowSelection.SUCCEEDED,
    bulk_pb2.ROW_SELECTION_FAILED: RowSelection.FAILED,
}
_STATE_NUMBERS: dict[JobState, bulk_pb2.JobState.ValueType] = {
    JobState.VALIDATING: bulk_pb2.JOB_STATE_VALIDATING,
    JobState.RUNNING: bulk_pb2.JOB_STATE_RUNNING,
    JobState.PAUSED: bulk_pb2.JOB_STATE_PAUSED,
    JobState.FINALIZING: bulk_pb2.JOB_STATE_FINALIZING,
    JobState.SUCCEEDED: bulk_pb2.JOB_STATE_SUCCEEDED,
    JobState.FAILED: bulk_pb2.JOB_STATE_FAILED,
    JobState.CANCELLING: bulk_pb2.JOB_STATE_CANCELLING,
    JobState.CANCELLED: bulk_pb2.JOB_STATE_CANCELLED,
    JobState.EXPIRED: bulk_pb2.JOB_STATE_EXPIRED,
}
_STATES: dict[int, JobState] = {number: state for state, number in _STATE_NUMBERS.items()}
_POLICY_NUMBERS: dict[OverloadPolicy, common_pb2.OverloadPolicy.ValueType] = {
    OverloadPolicy.REJECT: common_pb2.OVERLOAD_POLICY_REJECT,
    OverloadPolicy.DEMOTE_TO_FLEX: common_pb2.OVERLOAD_POLICY_DEMOTE_TO_FLEX,
    OverloadPolicy.DEMOTE_TO_BULK: common_pb2.OVERLOAD_POLICY_DEMOTE_TO_BULK,
}
_TRUNCATION_NUMBERS: dict[Truncation | None, common_pb2.Truncation.ValueType] = {
    None: common_pb2.TRUNCATION_UNSPECIFIED,
    Truncation.ERROR: common_pb2.TRUNCATION_ERROR,
    Truncation.RIGHT: common_pb2.TRUNCATION_RIGHT,
    Truncation.LEFT: common_pb2.TRUNCATION_LEFT,
}
_SCORE_NUMBERS: dict[ScoreFunction | None, common_pb2.ScoreFunction.ValueType] = {
    None: common_pb2.SCORE_FUNCTION_UNSPECIFIED,
    ScoreFunction.SOFTMAX: common_pb2.SCORE_FUNCTION_SOFTMAX,
    ScoreFunction.SIGMOID: common_pb2.SCORE_FUNCTION_SIGMOID,
    ScoreFunction.NONE: common_pb2.SCORE_FUNCTION_NONE,
}
_STATUS_BY_REASON = {error.reason: code for error, code in STATUS_BY_ERROR.items()}
_STATUS_BY_REASON["INTERNAL"] = grpc.StatusCode.INTERNAL
_DEFAULT_TEXT_COLUMN = "text"
_SHA256_BYTES = 32
_BILLION = 1_000_000_000
# Seconds since 1970 whose nanoseconds 64 bits hold.
_SECONDS_MAX = (1 << 63) // _BILLION - 1


def spec_from_proto(message: bulk_pb2.JobSpec, file_name: str, limits: BulkLimits) -> JobSpec:
    """Reads what a job computes; what depends on the model is checked later.

    Args:
        message: The message.
        file_name: Name of the upload; tells the format if the message does not.
        limits: Bounds the names.

    Raises:
        InvalidRequest: A field is missing or wrong.
        NotBuilt: A field is of a later release.
    """
    check_built(message)
    if not message.model.name:
        raise InvalidRequest.of_field("spec.model.name", "is required; ListModels tells the names")
    options = codec.options_from_proto(message.options)
    return JobSpec(
        model=codec.model_from_proto(message.model),
        task=TaskOptions(
            task=codec.task_from_proto(message.task, "spec.task"),
            embed=codec.embed_options_from_proto(message.embed),
            classify=codec.classify_options_from_proto(message.classify),
        ),
        upload_id=message.upload_id,
        input_url=bounded(message.input_url, "spec.input_url", limits.url_bytes_max),
        output_url=bounded(message.output_url, "spec.output_url", limits.url_bytes_max),
        output_format=_output_format(message),
        output_rows_per_file=_output_rows_per_file(message),
        input_format=_input_format(message, file_name),
        columns=_columns(message, limits),
        options=replace(options, request_class=RequestClass.BULK),
        vectors_as_numbers=codec.vector_format_from_proto(message.embed)
        == common_pb2.VECTOR_FORMAT_REPEATED_FLOAT,
        display_name=bounded(message.display_name, "spec.display_name", limits.display_name_bytes_max),
        weight=_weight(message.weight),
        not_before_ns=_nanoseconds(message.not_before, "spec.not_before")
        if message.HasField("not_before")
        else None,
        windows=tuple(_window(window, number) for number, window in enumerate(message.windows)),
        failed_rows_max=_failed_rows_max(message),
        share_max=_share_max(message.share_max),
        expire_time_ns=_nanoseconds(message.expire_time, "spec.expire_time")
        if message.HasField("expire_time")
        else None,
    )


def _columns(message: bulk_pb2.JobSpec, limits: BulkLimits) -> InputColumns:
    if message.input_format == bulk_pb2.FILE_FORMAT_OPENAI_BATCH:
        for name in ("text_column", "text_pair_column", "key_column", "carry_columns"):
            if getattr(message, name):
                raise InvalidRequest.of_field(
                    f"spec.{name}", "must be empty: a batch file has its own fields"
                )
        return batch_columns()
    return InputColumns(
        text=_column(message.text_column, "spec.text_column", limits) or _DEFAULT_TEXT_COLUMN,
        pair=_column(message.text_pair_column, "spec.text_pair_column", limits) or None,
        key=_column(message.key_column, "spec.key_column", limits) or None,
        carried=_carried(message.carry_columns, limits),
    )


def _carried(names: Sequence[str], limits: BulkLimits) -> tuple[str, ...]:
    check_carried(names, limits)
    return tuple(_column(name, "spec.carry_columns", limits) for name in names)


def _weight(number: int) -> int:
    if not 0 <= number <= WEIGHT_MAX:
        raise InvalidRequest.of_field(
            "spec.weight", f"must be from 1 to {WEIGHT_MAX:,} (0: {WEIGHT_DEFAULT})"
        )
    return number or WEIGHT_DEFAULT


def _window(message: bulk_pb2.TimeWindow, number: int) -> TimeWindow:
    if message.duration.nanos:
        raise InvalidRequest.of_field(f"spec.windows[{number}].duration", "must be whole seconds")
    return TimeWindow(message.start_cron, message.duration.seconds, message.time_zone)


def _share_max(number: float) -> float | None:
    # Written so that it refuses what is no number, too.
    if not 0 <= number <= 1:
        raise InvalidRequest.of_field("spec.share_max", "must be above 0, up to 1 (0: no bound)")
    return number or None


def _failed_rows_max(message: bulk_pb2.JobSpec) -> int | None:
    if not message.HasField("failed_rows_max"):
        return None
    if message.failed_rows_max < 0:
        raise InvalidRequest.of_field("spec.failed_rows_max", "must not be negative")
    return message.failed_rows_max


def _output_format(message: bulk_pb2.JobSpec) -> FileFormat:
    if message.output_format == bulk_pb2.FILE_FORMAT_UNSPECIFIED:
        return FileFormat.PARQUET
    output_format = _format(message.output_format, "spec.output_format")
    if output_format not in RESULT_FORMATS:
        raise InvalidRequest.of_field("spec.output_format", "must be JSONL, PARQUET or OPENAI_BATCH")
    _check_output_url(message, "spec.output_format")
    return output_format


def _output_rows_per_file(message: bulk_pb2.JobSpec) -> int:
    if message.output_rows_per_file < 0:
        raise InvalidRequest.of_field("spec.output_rows_per_file", "must not be negative")
    if message.output_rows_per_file:
        _check_output_url(message, "spec.output_rows_per_file")
    return message.output_rows_per_file


def _check_output_url(message: bulk_pb2.JobSpec, field: str) -> None:
    if not message.output_url:
        raise InvalidRequest.of_field(field, "has no meaning without spec.output_url")


def _nanoseconds(timestamp: timestamp_pb2.Timestamp, field: str) -> int:
    """Reads a time, which a caller may have filled with any numbers."""
    if not (0 <= timestamp.seconds <= _SECONDS_MAX and 0 <= timestamp.nanos < _BILLION):
        raise InvalidRequest.of_field(
            field, "must be a time from 1970 to 2261 with nanos from 0 to 999,999,999"
        )
    return timestamp.seconds * _BILLION + timestamp.nanos


def check_built(spec: bulk_pb2.JobSpec) -> None:
    """Refuses what the contract has and this release has not, so that nobody believes it is done.

    Raises:
        NotBuilt: Names the field.
    """
    present = {
        "options.explain": spec.options.explain,
        # Clients that send an empty message ask for nothing; the task itself is refused by the model.
        "tag": spec.tag.ByteSize() > 0 and spec.task != common_pb2.TASK_TAG,
    }
    for name, is_set in present.items():
        if is_set:
            raise NotBuilt(f"spec.{name} is not in this release; leave it out.", field=f"spec.{name}")


def required(value: str, field: str, bytes_max: int) -> str:
    """Reads an id that must be there."""
    if not value:
        raise InvalidRequest.of_field(field, "is required")
    return bounded(value, field, bytes_max)


def bounded(value: str, field: str, bytes_max: int) -> str:
    """Reads a text of bounded length: it may be kept, and repeated in logs and errors."""
    if len(value.encode()) > bytes_max:
        raise InvalidRequest.of_field(field, f"is longer than {bytes_max} bytes")
    return value


def own_request_id(request_id: str, tenant: str | None, limits: BulkLimits) -> str:
    """Reads a caller's id of a request as journals keep it: tenants do not meet in them.

    Args:
        request_id: As the caller wrote it; may be empty.
        tenant: The caller's, if certificates prove it.
        limits: Bounds it.
    """
    bounded(request_id, "request_id", limits.id_bytes_max)
    # No tenant's name has this character, so no two of them make the same.
    return request_id if tenant is None or not request_id else f"{tenant}\0{request_id}"


def page_size_from_proto(number: int, limits: BulkLimits) -> int:
    """Reads how many entries a page has at most."""
    if not 0 <= number <= limits.page_jobs_max:
        raise InvalidRequest.of_field(
            "page_size", f"must be from 1 to {limits.page_jobs_max} (0: the default)"
        )
    return number or limits.page_jobs_default


def _column(name: str, field: str, limits: BulkLimits) -> str:
    return bounded(name, field, limits.column_bytes_max)


def _input_format(message: bulk_pb2.JobSpec, file_name: str) -> FileFormat | None:
    """Reads the format of an input; unset, the file's name tells it, or the name of each of several files."""
    if message.input_format != bulk_pb2.FILE_FORMAT_UNSPECIFIED:
        return _format(message.input_format, "spec.input_format")
    return known_format(file_name) if names_many(message.input_url) else format_of_name(file_name)


def result_format_from_proto(number: int) -> FileFormat | None:
    """Reads the format of a result file; None: rows are wanted."""
    if number == bulk_pb2.FILE_FORMAT_UNSPECIFIED:
        return None
    return _format(number, "format")


def _format(number: int, field: str) -> FileFormat:
    if number not in _FORMATS:
        raise InvalidRequest.of_field(field, f"{number} is not a known value")
    return _FORMATS[number]


def selection_from_proto(number: int) -> RowSelection:
    """Reads which rows are wanted."""
    if number not in _SELECTIONS:
        raise InvalidRequest.of_field("selection", f"{number} is not a known value")
    return _SELECTIONS[number]


def state_from_proto(number: int) -> JobState:
    """Reads a job's state, which must be set."""
    if number not in _STATES:
        raise InvalidRequest.of_field("states", f"{number} is not a known state")
    return _STATES[number]


def sha256_from_proto(header: bulk_pb2.UploadHeader) -> bytes:
    """Reads the hash of a file."""
    if len(header.sha256) != _SHA256_BYTES:
        raise InvalidRequest.of_field("header.sha256", f"must have {_SHA256_BYTES} bytes")
    return header.sha256


def upload_to_proto(upload: Upload) -> bulk_pb2.Upload:
    """Writes the state of an upload."""
    return bulk_pb2.Upload(
        id=upload.id,
        file_name=upload.file_name,
        size_bytes=upload.size_bytes,
        committed_bytes=upload.committed_bytes,
        complete=upload.is_complete,
        create_time=timestamp_to_proto(upload.create_time_ns),
        expire_time=timestamp_to_proto(upload.expire_time_ns),
    )


def job_to_proto(job: Job) -> bulk_pb2.Job:
    """Writes a job."""
    message = bulk_pb2.Job(
        id=job.id,
        spec=spec_to_proto(job.spec),
        state=_STATE_NUMBERS[job.state],
        progress=_progress_to_proto(job.progress),
        create_time=timestamp_to_proto(job.create_time_ns),
    )
    if job.error is not None:
        message.error.CopyFrom(status_to_proto(job.error.reason, job.error.message))
    if job.start_time_ns is not None:
        message.start_time.CopyFrom(timestamp_to_proto(job.start_time_ns))
    if job.end_time_ns is not None:
        message.end_time.CopyFrom(timestamp_to_proto(job.end_time_ns))
    return message


def results_to_proto(
    rows: ResultRows, vector_format: common_pb2.VectorFormat.ValueType, limits: BulkLimits
) -> Iterator[bulk_pb2.ReadResultsResponse]:
    """Writes finished rows of a window as messages of bounded size."""
    step = _rows_per_message(rows, limits)
    for first in range(0, len(rows.indices), step):
        indices = rows.indices[first : first + step]
        part = rows.some(indices)
        yield bulk_pb2.ReadResultsResponse(
            rows=_rows_to_proto(part, vector_format),
            next_row=rows.start_row + int(indices[-1]) + 1,
        )


def _rows_per_message(rows: ResultRows, limits: BulkLimits) -> int:
    answers = rows.part.answers
    row_bytes = 64
    if isinstance(answers, Vectors):
        row_bytes += 4 * answers.values.shape[1]
    elif isinstance(answers, Classifications):
        longest = max((len(label) for label in answers.labels), default=0)
        row_bytes += answers.scores.shape[1] * (longest + 10)
    return max(1, min(limits.result_message_rows_max, limits.result_message_bytes // row_bytes))


def _rows_to_proto(
    rows: ResultRows, vector_format: common_pb2.VectorFormat.ValueType
) -> list[bulk_pb2.RowResult]:
    answers = rows.part.answers
    done = rows.indices[rows.part.status[rows.indices] == RowStatus.SUCCEEDED]
    embeddings: Iterator[common_pb2.Embedding] = iter(())
    labels: Iterator[common_pb2.Classification] = iter(())
    if isinstance(answers, Vectors):
        embeddings = iter(codec.embeddings_to_proto(Vectors(answers.values[done]), vector_format))
    elif isinstance(answers, Classifications):
        chosen = Classifications(answers.label_ids[done], answers.scores[done], answers.labels)
        labels = iter(codec.classifications_to_proto(chosen))
    messages: list[bulk_pb2.RowResult] = []
    indices: list[int] = rows.indices.tolist()
    for index in indices:
        key = rows.keys[index]
        message = bulk_pb2.RowResult(row=rows.start_row + index)
        if isinstance(key, str):
            message.string_key = key
        elif key is not None:
            message.int_key = key
        message.carried = (rows.carried[index] or b"").decode()
        failure = rows.part.failures.get(index)
        if failure is not None:
            message.error.CopyFrom(_failure_to_proto(failure))
        elif isinstance(answers, Vectors):
            message.embedding.CopyFrom(next(embeddings))
        else:
            message.classification.CopyFrom(next(labels))
        messages.append(message)
    return messages


def _failure_to_proto(failure: RowFailure) -> status_pb2.Status:
    return status_to_proto(failure.code, failure.message, grpc.StatusCode.INVALID_ARGUMENT)


def status_to_proto(
    reason: str, message: str, default: grpc.StatusCode = grpc.StatusCode.INTERNAL
) -> status_pb2.Status:
    """Writes an error by its reason; ``default`` is the code of reasons that are no error's of ours."""
    code: int = _STATUS_BY_REASON.get(reason, default).value[0]
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    return status_pb2.Status(code=code, message=message, details=[detail])


def spec_to_proto(spec: JobSpec) -> bulk_pb2.JobSpec:
    """Writes what a job computes."""
    message = bulk_pb2.JobSpec(
        model=common_pb2.ModelRef(name=spec.model.name, version=spec.model.version),
        task=codec.TASK_NUMBERS[spec.task.task],
        output_url=spec.output_url,
        output_format=_FORMAT_NUMBERS[spec.output_format]
        if spec.output_url
        else bulk_pb2.FILE_FORMAT_UNSPECIFIED,
        output_rows_per_file=spec.output_rows_per_file,
        input_format=bulk_pb2.FILE_FORMAT_UNSPECIFIED
        if spec.input_format is None
        else _FORMAT_NUMBERS[spec.input_format],
        text_column=spec.columns.text,
        text_pair_column=spec.columns.pair or "",
        key_column=spec.columns.key or "",
        carry_columns=spec.columns.carried,
        options=_options_to_proto(spec.options),
        embed=_embed_to_proto(spec),
        classify=common_pb2.ClassifyOptions(
            top_k=spec.task.classify.top_k or 0,
            score_function=_SCORE_NUMBERS[spec.task.classify.score_function],
        ),
        display_name=spec.display_name,
        weight=spec.weight,
        share_max=spec.share_max or 0,
        not_before=None if spec.not_before_ns is None else timestamp_to_proto(spec.not_before_ns),
        windows=[
            bulk_pb2.TimeWindow(
                start_cron=window.start_cron,
                duration=duration_pb2.Duration(seconds=window.duration_s),
                time_zone=window.time_zone,
            )
            for window in spec.windows
        ],
        failed_rows_max=spec.failed_rows_max,
        retry_of=spec.retry_of,
        expire_time=None if spec.expire_time_ns is None else timestamp_to_proto(spec.expire_time_ns),
    )
    if spec.input_url:
        message.input_url = spec.input_url
    else:
        message.upload_id = spec.upload_id
    return message


def _options_to_proto(options: RequestOptions) -> common_pb2.RequestOptions:
    return common_pb2.RequestOptions(
        request_class=common_pb2.REQUEST_CLASS_BULK,
        overload_policy=_POLICY_NUMBERS[options.overload_policy or OverloadPolicy.REJECT],
        truncation=_TRUNCATION_NUMBERS[options.truncation],
        tokens_max=options.tokens_max or 0,
        tenant=options.tenant,
    )


def _embed_to_proto(spec: JobSpec) -> common_pb2.EmbedOptions:
    return common_pb2.EmbedOptions(
        normalize=spec.task.embed.normalize,
        dimensions=spec.task.embed.dimensions or 0,
        vector_format=vector_format_of(spec),
    )


def vector_format_of(spec: JobSpec) -> common_pb2.VectorFormat.ValueType:
    """How a job's vectors travel."""
    if spec.vectors_as_numbers:
        return common_pb2.VECTOR_FORMAT_REPEATED_FLOAT
    return common_pb2.VECTOR_FORMAT_FLOAT32_LE


def _progress_to_proto(progress: JobProgress) -> bulk_pb2.JobProgress:
    message = bulk_pb2.JobProgress(
        total=progress.total,
        succeeded=progress.succeeded,
        failed=progress.failed,
        pending=progress.pending,
        tokens=progress.tokens,
        rows_per_second=progress.rows_per_s,
    )
    if progress.time_left_s is not None:
        time_left = duration_pb2.Duration()
        time_left.FromMilliseconds(int(progress.time_left_s * 1000))
        message.time_left.CopyFrom(time_left)
    if progress.oldest_pending_s is not None:
        oldest = duration_pb2.Duration()
        oldest.FromMilliseconds(int(progress.oldest_pending_s * 1000))
        message.oldest_pending_age.CopyFrom(oldest)
    return message


def timestamp_to_proto(time_ns: int) -> timestamp_pb2.Timestamp:
    """Writes a time, in nanoseconds since 1970."""
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromNanoseconds(time_ns)
    return timestamp
