"""Bulk jobs: what they compute, where they stand, how far they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestOptions, TaskOptions


class FileFormat(Enum):
    """Format of an input or result file."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"
    OPENAI_BATCH = "openai_batch"


# Formats that results are written in.
RESULT_FORMATS = frozenset({FileFormat.JSONL, FileFormat.PARQUET, FileFormat.OPENAI_BATCH})


class RowSelection(Enum):
    """Which rows of a job's results are meant."""

    ALL = "all"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class JobState(Enum):
    """Where a job stands."""

    VALIDATING = "validating"
    RUNNING = "running"
    PAUSED = "paused"
    FINALIZING = "finalizing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def has_ended(self) -> bool:
        """Whether the job stays in this state for good."""
        return self in _ENDED


_ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


@dataclass(frozen=True, slots=True)
class InputColumns:
    """Which columns (or JSON fields) of the input are read. None: there is none of this kind.

    Attributes:
        text: The text.
        pair: The second text of a pair.
        key: What is carried to the results to join by.
        carried: Further columns that are carried to the results, in this order.
    """

    text: str = "text"
    pair: str | None = None
    key: str | None = None
    carried: tuple[str, ...] = ()


# A job's weight against others, unless the caller says otherwise, and the most it can be.
WEIGHT_DEFAULT = 100
WEIGHT_MAX = 1000


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A window of time that comes again, such as a night.

    Attributes:
        start_cron: When it begins, as five cron fields.
        duration_s: How long it lasts, in seconds.
        time_zone: IANA name of the zone that the fields are in; empty for UTC.
    """

    start_cron: str
    duration_s: int
    time_zone: str = ""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job computes.

    Attributes:
        model: The model with its version; the version is never empty once the job exists.
        task: The task with the options of its head.
        upload_id: The complete upload that is the input; empty if a URL names it.
        input_format: Format of the input; None: that of each of its files, by the file's name.
        columns: What is read of the input.
        options: Options of all rows; the class is always BULK.
        vectors_as_numbers: Whether vectors are sent as numbers instead of packed bytes.
        display_name: The caller's own words for the job.
        weight: Its share of the lanes against its tenant's other jobs, from 1 to ``WEIGHT_MAX``.
        expire_time_ns: When its rows stop being of use, in nanoseconds since 1970; None for never.
        not_before_ns: No row is computed before this time, in nanoseconds since 1970; None for at once.
        windows: Rows are computed only within these; none for at any time.
        failed_rows_max: The job fails once more rows than this have; None for never.
        input_url: Where the input is if it is no upload; empty if it is one.
        output_url: Folder for the result files beside those that the server keeps; empty for none.
        output_format: Format of the result files there.
        output_rows_per_file: Most rows of one of them; 0: all rows in one.
        share_max: Largest part of the bulk lanes' time that it may take, above 0 up to 1; None for no bound.
        retry_of: Id of the job whose failed rows are its input; empty if that is the upload.
    """

    model: ModelKey
    task: TaskOptions
    upload_id: str
    input_format: FileFormat | None
    columns: InputColumns
    options: RequestOptions
    vectors_as_numbers: bool = False
    display_name: str = ""
    weight: int = WEIGHT_DEFAULT
    expire_time_ns: int | None = None
    not_before_ns: int | None = None
    windows: tuple[TimeWindow, ...] = ()
    failed_rows_max: int | None = None
    input_url: str = ""
    output_url: str = ""
    output_format: FileFormat = FileFormat.PARQUET
    output_rows_per_file: int = 0
    share_max: float | None = None
    retry_of: str = ""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job as a whole failed: the reason and message of a ``PenstockError``."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is; ``succeeded + failed + pending == total`` by construction.

    Attributes:
        total: Rows of the input; 0 until they are counted.
        succeeded: Rows with an answer.
        failed: Rows that failed, each with its own reason.
        tokens: Tokens computed, without padding.
        rows_per_s: Rows done a second lately; 0 if unknown.
        time_left_s: Predicted time until all rows are done; None if unknown.
        oldest_pending_s: How long the row that was begun first is under way; None if none is.
    """

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    tokens: int = 0
    rows_per_s: float = 0.0
    time_left_s: float | None = None
    oldest_pending_s: float | None = None

    @property
    def done(self) -> int:
        """Rows with an answer or a reason why there is none."""
        return self.succeeded + self.failed

    @property
    def pending(self) -> int:
        """Rows not done yet."""
        return self.total - self.done

    def with_rate(self, rows_per_s: float, expected_rows_per_s: float | None = None) -> JobProgress:
        """The same progress with a rate, and the time left that follows from it or from another one."""
        expected = rows_per_s if expected_rows_per_s is None else expected_rows_per_s
        time_left_s = self.pending / expected if expected > 0 else None
        return replace(self, rows_per_s=rows_per_s, time_left_s=time_left_s)


@dataclass(frozen=True, slots=True)
class Job:
    """A bulk input with its state. Times are nanoseconds since 1970, UTC; None: not yet.

    Attributes:
        id: Names the job.
        spec: What it computes.
        state: Where it stands.
        progress: How far it is.
        is_validated: Whether its rows are counted.
        error: Why it FAILED, or why the server paused it; None otherwise.
        create_time_ns: When it was created.
        start_time_ns: When its first row was computed.
        end_time_ns: When it ended.
    """

    id: str
    spec: JobSpec
    state: JobState
    progress: JobProgress
    is_validated: bool
    error: JobError | None
    create_time_ns: int
    start_time_ns: int | None
    end_time_ns: int | None


@dataclass(frozen=True, slots=True)
class RowFailure:
    """Why one row has no answer: a code in UPPER_SNAKE for programs, a sentence for people."""

    code: str
    message: str
