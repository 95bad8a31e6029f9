"""What can be asked for, as words. Every option takes a member or its word: ``Task.EMBED`` or ``"embed"``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self, TypedDict


class WireEnum(StrEnum):
    """A word with the number it has in the contract. Unset and unknown numbers are ``UNSPECIFIED``, 0."""

    number: int

    def __new__(cls, word: str, number: int) -> Self:
        """Makes the member ``word`` with its number in the contract."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.number = number
        return member

    @classmethod
    def _missing_(cls, value: object) -> Self:
        """Reads ``"AS-READY"`` as ``"as_ready"``, or says which words there are."""
        if isinstance(value, str):
            word = value.lower().replace("-", "_")
            for member in cls:
                if member.value == word:
                    return member
        words = ", ".join(repr(member.value) for member in cls if member.number)
        raise ValueError(f"{value!r} is no {cls.__name__}: choose one of {words}")

    @classmethod
    def of_number(cls, number: int) -> Self:
        """Returns the member of a received number; a newer server's new words read as unspecified."""
        by_number = {member.number: member for member in cls}
        return by_number.get(number, by_number[0])


class Task(WireEnum):
    """What a model computes from a text."""

    UNSPECIFIED = "unspecified", 0
    EMBED = "embed", 1
    CLASSIFY = "classify", 2
    TAG = "tag", 3
    RERANK = "rerank", 4


class RequestClass(WireEnum):
    """How urgent a request is; unspecified is LIVE for calls and BULK for jobs."""

    UNSPECIFIED = "unspecified", 0
    LIVE_CRITICAL = "live_critical", 1
    LIVE = "live", 2
    FLEX = "flex", 3
    BULK = "bulk", 4


class OverloadPolicy(WireEnum):
    """What may happen to a request that the server cannot compute in time; unspecified is REJECT."""

    UNSPECIFIED = "unspecified", 0
    REJECT = "reject", 1
    DEMOTE_TO_FLEX = "demote_to_flex", 2
    DEMOTE_TO_BULK = "demote_to_bulk", 3


class Truncation(WireEnum):
    """What happens to a text that is too long; unspecified is the model's own setting."""

    UNSPECIFIED = "unspecified", 0
    ERROR = "error", 1
    RIGHT = "right", 2
    LEFT = "left", 3


class ScoreFunction(WireEnum):
    """How scores follow from logits; unspecified is the model's own setting."""

    UNSPECIFIED = "unspecified", 0
    SOFTMAX = "softmax", 1
    SIGMOID = "sigmoid", 2
    NONE = "none", 3


class Aggregation(WireEnum):
    """How the labels of word pieces are joined to spans; unspecified is FIRST."""

    UNSPECIFIED = "unspecified", 0
    NONE = "none", 1
    FIRST = "first", 2
    MAX = "max", 3
    AVERAGE = "average", 4


class StreamOrder(WireEnum):
    """When a stream's answers are sent; unspecified is IN_ORDER."""

    UNSPECIFIED = "unspecified", 0
    IN_ORDER = "in_order", 1
    AS_READY = "as_ready", 2


class FileFormat(WireEnum):
    """Format of a file; unspecified is told by the file name's ending."""

    UNSPECIFIED = "unspecified", 0
    JSONL = "jsonl", 1
    CSV = "csv", 2
    PARQUET = "parquet", 3
    ARROW = "arrow", 4
    OPENAI_BATCH = "openai_batch", 5


class RowSelection(WireEnum):
    """Which rows of a job's results to read; unspecified is all of them."""

    UNSPECIFIED = "unspecified", 0
    SUCCEEDED = "succeeded", 1
    FAILED = "failed", 2


class JobState(WireEnum):
    """Where a job stands."""

    UNSPECIFIED = "unspecified", 0
    VALIDATING = "validating", 1
    RUNNING = "running", 2
    PAUSED = "paused", 3
    FINALIZING = "finalizing", 4
    SUCCEEDED = "succeeded", 5
    FAILED = "failed", 6
    CANCELLING = "cancelling", 7
    CANCELLED = "cancelled", 8
    EXPIRED = "expired", 9

    @property
    def has_ended(self) -> bool:
        """Whether the job will not change any more."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}


class ModelState(WireEnum):
    """Where a version of a model stands."""

    UNSPECIFIED = "unspecified", 0
    LOADING = "loading", 1
    READY = "ready", 2
    FAILED = "failed", 3
    UNLOADING = "unloading", 4


class LaneKind(WireEnum):
    """What computes batches: live lanes with several threads, bulk lanes with one at idle priority."""

    UNSPECIFIED = "unspecified", 0
    LIVE = "live", 1
    BULK = "bulk", 2


class RowOptions(TypedDict, total=False):
    """Options of rows, in calls, streams and jobs.

    Attributes:
        version: Version of the model; unset is the one its route chooses.
        truncation: What happens to texts that are too long.
        tokens_max: Longest token count of a text, special tokens included; unset is the model's limit.
        tenant: Who pays for the request, for fair sharing.
    """

    version: str
    truncation: Truncation | str | None
    tokens_max: int | None
    tenant: str


class CallOptions(RowOptions, total=False):
    """Options of a live call.

    Attributes:
        request_class: How urgent the request is.
        on_overload: What may happen if the request cannot be computed in time.
        timeout_s: Longest time for the whole call, retries included; None is no limit, unset is the
            client's own ``timeout_s``.
        explain: Tell in ``info.explanation`` what happened to the request.
    """

    request_class: RequestClass | str | None
    on_overload: OverloadPolicy | str | None
    timeout_s: float | None
    explain: bool


class TaskOptions(TypedDict, total=False):
    """Options of the tasks, where the task is an argument: streams and jobs.

    Attributes:
        normalize: Whether vectors are scaled to unit length (embed); unset is the model's setting.
        dimensions: Keep only the first dimensions of vectors (embed).
        top_k: Return the best labels only (classify).
        score_function: How scores follow from logits (classify).
        aggregation: How token labels become spans (tag).
        score_min: Drop spans that score below this (tag).
    """

    normalize: bool | None
    dimensions: int | None
    top_k: int | None
    score_function: ScoreFunction | str | None
    aggregation: Aggregation | str | None
    score_min: float | None


class StreamOptions(CallOptions, TaskOptions, total=False):
    """Options of a stream, beside its task.

    Attributes:
        order: When answers are sent.
        max_in_flight: Most texts that the server computes at once; unset is the server's default (64).
        text_timeout_s: Longest time for each text, from its arrival in the server.
    """

    order: StreamOrder | str | None
    max_in_flight: int | None
    text_timeout_s: float | None


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A window of time that comes again, such as a night.

    Attributes:
        start: When it begins, as five cron fields: minute, hour, day of month, month, day of week.
        duration: How long it lasts, from one minute to seven days.
        time_zone: IANA name of the zone that ``start`` is in.
    """

    start: str
    duration: timedelta
    time_zone: str = "UTC"


class RecurringJobOptions(RowOptions, TaskOptions, total=False):
    """Options that a job has also if a schedule makes it, beside its input and task.

    Attributes:
        text_column: Column that holds the text; unset is "text".
        text_pair_column: Column that holds the second text of a pair.
        key_column: Column that is carried to the results to join by.
        carry_columns: Further columns that are carried to the results.
        input_format: Format of the input; unset is told by the file name's ending.
        output_url: A folder that gets the result files, where the server's operator allows that.
        output_format: Format of the files there: Parquet by default, JSON lines or OpenAI's batch lines.
        output_rows_per_file: Most rows of one of them; unset: all rows in one.
        display_name: The caller's own words for the job, shown in lists.
        weight: Its share of the time against the tenant's other jobs, from 1 to 1,000; unset is 100.
        share_max: Largest part of the bulk lanes' time that it may take, above 0 up to 1, though nobody else
            wants them; unset: no bound.
        windows: Rows are computed only within these windows; unset: at any time.
        failed_rows_max: The job fails once more rows than this have; unset: it never does.
    """

    text_column: str
    text_pair_column: str
    key_column: str
    carry_columns: Sequence[str]
    input_format: FileFormat | str | None
    output_url: str
    output_format: FileFormat | str | None
    output_rows_per_file: int | None
    display_name: str
    weight: int | None
    share_max: float | None
    windows: Sequence[TimeWindow]
    failed_rows_max: int | None


class JobOptions(RecurringJobOptions, total=False):
    """Options of a job, beside its input and task.

    Attributes:
        input_url: A file that the server reads instead of an upload, where its operator allows that. One that
            ends in a slash names all files below a folder; ``*`` stands for any part of a name.
        expire_time: When the job ends as EXPIRED unless all its rows are done; finished rows are kept. A time
            without a zone is local.
        not_before: No row is computed before this time. A time without a zone is local.
        request_id: The caller's own id of the submission: a second one with the same id returns the
            first's job. Unset: a random one, which makes the client's own retries safe.
    """

    input_url: str
    expire_time: datetime | None
    not_before: datetime | None
    request_id: str
