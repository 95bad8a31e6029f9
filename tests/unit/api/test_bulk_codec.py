"""Specs of jobs: nothing of a later release is ignored, and what was set comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from penstock.v1 import bulk_pb2, common_pb2
from penstock_server.api import bulk_codec
from penstock_server.bulk.limits import BulkLimits
from penstock_server.domain.errors import InvalidRequest, NotBuilt
from penstock_server.domain.job import FileFormat, Job, JobProgress, JobState, TimeWindow
from penstock_server.domain.tasks import RequestClass

LIMITS = BulkLimits()


def minimal() -> bulk_pb2.JobSpec:
    return bulk_pb2.JobSpec(
        model=common_pb2.ModelRef(name="minilm"), task=common_pb2.TASK_EMBED, upload_id="upload-1"
    )


def full() -> bulk_pb2.JobSpec:
    """Every field that this release does."""
    return bulk_pb2.JobSpec(
        model=common_pb2.ModelRef(name="minilm", version="2"),
        task=common_pb2.TASK_CLASSIFY,
        upload_id="upload-1",
        input_format=bulk_pb2.FILE_FORMAT_CSV,
        text_column="review",
        text_pair_column="other",
        key_column="id",
        options=common_pb2.RequestOptions(
            request_class=common_pb2.REQUEST_CLASS_BULK,
            overload_policy=common_pb2.OVERLOAD_POLICY_DEMOTE_TO_FLEX,
            truncation=common_pb2.TRUNCATION_LEFT,
            tokens_max=9,
            tenant="t",
        ),
        embed=common_pb2.EmbedOptions(
            normalize=False, dimensions=64, vector_format=common_pb2.VECTOR_FORMAT_REPEATED_FLOAT
        ),
        classify=common_pb2.ClassifyOptions(top_k=3, score_function=common_pb2.SCORE_FUNCTION_SIGMOID),
        display_name="caf\u00e9",
        weight=1000,
        share_max=0.25,
        expire_time=Timestamp(seconds=1_800_000_000, nanos=123_456_789),
        carry_columns=["stars", "date"],
        output_url="s3://bucket/out",
        not_before=Timestamp(seconds=1_700_000_000),
        windows=[bulk_pb2.TimeWindow(start_cron="0 1 * * *", duration=Duration(seconds=60), time_zone="UTC")],
        failed_rows_max=7,
        output_format=bulk_pb2.FILE_FORMAT_JSONL,
        output_rows_per_file=1000,
    )


def came_back(message: bulk_pb2.JobSpec, file_name: str = "in.csv") -> bulk_pb2.JobSpec:
    spec = bulk_codec.spec_from_proto(message, file_name, LIMITS)
    job = Job("job-1", spec, JobState.RUNNING, JobProgress(), False, None, 1, None, None)
    return bulk_codec.job_to_proto(job).spec


def test_what_a_caller_set_comes_back() -> None:
    assert came_back(full()) == full()


def test_the_other_source_comes_back() -> None:
    message = full()
    message.input_url = "s3://bucket/in.csv"
    assert came_back(message) == message


def test_the_fullest_spec_leaves_out_only_what_is_not_built() -> None:
    unset = {field.name for field in bulk_pb2.JobSpec.DESCRIPTOR.fields} - {
        field.name for field, _ in full().ListFields()
    }
    refused = {name.partition(".")[0] for name in LATER} - {"options"}
    # The other source, and what the server itself says.
    assert unset == refused | {"input_url", "retry_of"}


@pytest.mark.parametrize(
    ("url", "input_format"),
    [
        ("s3://bucket/in/", None),
        ("s3://bucket/day=*/part-*", None),
        ("s3://bucket/day=*/part-*.csv.gz", FileFormat.CSV),
        ("s3://bucket/*.csv/", None),
    ],
)
def test_several_files_have_each_its_own_format_unless_it_is_told(
    url: str, input_format: FileFormat | None
) -> None:
    message = minimal()
    message.input_url = url
    file_name = url.rpartition("/")[2]
    assert bulk_codec.spec_from_proto(message, file_name, LIMITS).input_format is input_format
    assert came_back(message, file_name).input_format == (
        bulk_pb2.FILE_FORMAT_CSV if input_format else bulk_pb2.FILE_FORMAT_UNSPECIFIED
    )
    message.input_format = bulk_pb2.FILE_FORMAT_JSONL
    assert bulk_codec.spec_from_proto(message, file_name, LIMITS).input_format is FileFormat.JSONL


def test_results_are_delivered_as_parquet_in_one_file_unless_it_is_told() -> None:
    message = minimal()
    message.output_url = "s3://bucket/out"
    spec = bulk_codec.spec_from_proto(message, "in.csv", LIMITS)
    assert (spec.output_format, spec.output_rows_per_file) == (FileFormat.PARQUET, 0)
    assert came_back(message).output_format == bulk_pb2.FILE_FORMAT_PARQUET
    assert came_back(minimal()).output_format == bulk_pb2.FILE_FORMAT_UNSPECIFIED


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"output_format": bulk_pb2.FILE_FORMAT_CSV},
            r"output_format: must be JSONL, PARQUET or OPENAI_BATCH",
        ),
        ({"output_format": 99}, r"output_format: 99 is not a known value"),
        ({"output_rows_per_file": -1}, r"output_rows_per_file: must not be negative"),
        ({"output_format": bulk_pb2.FILE_FORMAT_JSONL, "output_url": ""}, r"output_format: has no meaning"),
        ({"output_rows_per_file": 5, "output_url": ""}, r"output_rows_per_file: has no meaning"),
    ],
)
def test_what_cannot_be_delivered_is_refused(fields: dict[str, Any], told: str) -> None:
    message = minimal()
    message.output_url = "s3://bucket/out"
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(InvalidRequest, match=rf"spec\.{told}"):
        bulk_codec.spec_from_proto(message, "in.csv", LIMITS)


@pytest.mark.parametrize("number", common_pb2.OverloadPolicy.values())
def test_every_overload_policy_comes_back_or_its_default(number: common_pb2.OverloadPolicy.ValueType) -> None:
    message = minimal()
    message.options.overload_policy = number
    policy = came_back(message).options.overload_policy
    assert policy == (number or common_pb2.OVERLOAD_POLICY_REJECT)


@pytest.mark.parametrize("number", common_pb2.RequestClass.values())
def test_jobs_are_bulk_whatever_class_was_asked_for(number: common_pb2.RequestClass.ValueType) -> None:
    message = minimal()
    message.options.request_class = number
    spec = bulk_codec.spec_from_proto(message, "in.csv", LIMITS)
    assert spec.options.request_class is RequestClass.BULK


def _explain(spec: bulk_pb2.JobSpec) -> None:
    spec.options.explain = True


def _tag(spec: bulk_pb2.JobSpec) -> None:
    spec.tag.score_min = 0.5


LATER: dict[str, Callable[[bulk_pb2.JobSpec], None]] = {
    "options.explain": _explain,
    "tag": _tag,
}


@pytest.mark.parametrize("name", LATER)
def test_a_field_of_a_later_release_is_refused_by_name(name: str) -> None:
    message = full()
    LATER[name](message)
    with pytest.raises(NotBuilt, match=rf"spec\.{name} ") as caught:
        bulk_codec.spec_from_proto(message, "in.csv", LIMITS)
    assert caught.value.metadata["field"] == f"spec.{name}"


def test_a_largest_share_is_above_nothing_up_to_all_of_it() -> None:
    message = minimal()
    assert came_back(message).share_max == 0
    for share in (0.001, 1):
        message.share_max = share
        assert came_back(message).share_max == share
    for share in (-0.1, 1.1, float("nan")):
        message.share_max = share
        with pytest.raises(InvalidRequest, match=r"spec\.share_max"):
            bulk_codec.spec_from_proto(message, "in.csv", LIMITS)


def test_a_weight_is_from_one_to_a_thousand_and_a_hundred_unless_it_is_set() -> None:
    message = minimal()
    assert came_back(message).weight == 100
    for weight in (1, 1000):
        message.weight = weight
        assert came_back(message).weight == weight
    for weight in (-1, 1001):
        message.weight = weight
        with pytest.raises(InvalidRequest, match=r"spec\.weight: must be from 1 to 1,000"):
            came_back(message)


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(-1, 0), (0, -1), (0, 1_000_000_000), (1 << 60, 0), ((1 << 63) // 1_000_000_000, 0)],
)
def test_an_expire_time_that_is_none_is_refused(seconds: int, nanos: int) -> None:
    message = minimal()
    message.expire_time.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
    with pytest.raises(InvalidRequest, match=r"spec\.expire_time: must be a time"):
        came_back(message)


def test_an_empty_message_of_tag_options_asks_for_nothing() -> None:
    message = minimal()
    message.tag.SetInParent()
    assert bulk_codec.spec_from_proto(message, "in.csv", LIMITS).input_format is FileFormat.CSV


def test_times_and_bounds_of_a_job_come_back() -> None:
    message = minimal()
    message.not_before.CopyFrom(Timestamp(seconds=1_800_000_000, nanos=5))
    message.windows.add(start_cron="0 22 * * *", duration=Duration(seconds=3600), time_zone="Europe/Berlin")
    message.windows.add(start_cron="0 1 * * *", duration=Duration(seconds=60))
    message.failed_rows_max = 0
    spec = bulk_codec.spec_from_proto(message, "in.csv", LIMITS)
    assert spec.not_before_ns == 1_800_000_000_000_000_005
    assert spec.windows[0] == TimeWindow("0 22 * * *", 3600, "Europe/Berlin")
    assert spec.failed_rows_max == 0
    told = came_back(message)
    assert (told.not_before, list(told.windows)) == (message.not_before, list(message.windows))
    assert told.HasField("failed_rows_max")
    message.windows[0].duration.nanos = 1
    with pytest.raises(InvalidRequest, match=r"spec\.windows\[0\]\.duration: must be whole seconds"):
        came_back(message)
    message.windows[0].duration.nanos = 0
    message.failed_rows_max = -1
    with pytest.raises(InvalidRequest, match=r"spec\.failed_rows_max"):
        came_back(message)


@pytest.mark.parametrize(
    ("name", "bytes_max"),
    [
        ("display_name", LIMITS.display_name_bytes_max),
        ("text_column", LIMITS.column_bytes_max),
        ("text_pair_column", LIMITS.column_bytes_max),
        ("key_column", LIMITS.column_bytes_max),
    ],
)
def test_names_are_bounded_in_bytes(name: str, bytes_max: int) -> None:
    message = minimal()
    setattr(message, name, "\u00e9" * (bytes_max // 2))
    bulk_codec.spec_from_proto(message, "in.csv", LIMITS)
    setattr(message, name, "\u00e9" * (bytes_max // 2) + "x")
    with pytest.raises(InvalidRequest, match=rf"spec\.{name}: is longer than {bytes_max} bytes"):
        bulk_codec.spec_from_proto(message, "in.csv", LIMITS)
