"""Every limit of bulk jobs, by name and unit."""

from __future__ import annotations

from dataclasses import dataclass

_KIB = 1 << 10
_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkLimits:
    """Bounds of uploads, inputs, jobs and results.

    Attributes:
        upload_bytes_max: Largest file.
        input_roots: URLs and paths below which inputs may be that are no uploads.
        output_roots: Likewise for result files.
        output_files_max: Most files in which the results of a job are delivered.
        input_files_max: Most files of an input that a folder or a pattern names.
        input_files_bytes_max: Their largest size in all.
        input_names_max: Most names that are looked at to find them.
        chunk_bytes_max: Largest chunk of an upload.
        upload_commit_bytes: Bytes between two fsyncs of an upload; what a crash can cost at most.
        uploads_max: Uploads kept at once.
        upload_age_s_max: Uploads that no job uses are deleted when nobody has gone on with them for so long.
        disk_free_bytes_min: Uploads are refused when less than this would stay free.
        file_name_bytes_max: Longest name of an upload.
        unpacked_bytes_max: Most that a compressed input may unpack to.
        unpacked_ratio_max: Likewise, over its own size; film reviews become 2.5 times as large.
        unpacked_ratio_from_bytes: What unpacks to no more than this may do so at any ratio.
        text_bytes_max: Largest text of a row; a longer one fails alone.
        line_bytes_max: Longest line of JSONL, and longest field of CSV.
        key_bytes_max: Longest key of a row.
        carried_columns_max: Most further columns that are carried to the results.
        carried_bytes_max: Largest sum of their values in a row, as JSON.
        window_rows: Most rows of a window. Sorted windows of 4,096 rows waste about 1.5 % on padding.
        window_bytes: A window is closed before ``window_rows`` when its texts reach this size.
        windows_in_flight_max: Windows of a job that are tokenised or computed at once.
        jobs_running_max: Jobs of more than one window that compute at once; the others' turn comes by tenant.
        small_jobs_running_max: Jobs of at most one window that compute at once, beside those.
        small_input_bytes: Inputs up to this size are small: read within a second.
        inputs_read_max: Larger inputs that are read at once.
        small_inputs_read_max: Small inputs that are read at once, beside those.
        expire_s_max: How far ahead a job's expire time may lie.
        jobs_max: Jobs kept at once, ended ones included.
        schedules_max: Schedules kept at once.
        schedule_jobs_max: Most jobs that a run of a schedule makes.
        page_jobs_default: Jobs of a page unless the caller says otherwise.
        page_jobs_max: Most jobs of a page.
        display_name_bytes_max: Longest display name.
        id_bytes_max: Longest id or token that a caller may send.
        url_bytes_max: Longest URL.
        column_bytes_max: Longest name of a column that a caller may ask for.
        result_message_bytes: Size at which a message of result rows is sent.
        result_message_rows_max: Most rows of such a message; building it holds the event loop.
        lanes: Lanes that compute bulk batches at once; what a job's largest share is a share of.
        checkpoint_s: A window that takes longer is written as far as it is, this often.
        watch_interval_ms_default: Shortest time between two messages of WatchJob by default.
        watch_interval_ms_min: Shortest interval a caller may ask for.
        watch_interval_ms_max: Longest interval a caller may ask for.
    """

    upload_bytes_max: int = 8 * _GIB
    input_roots: tuple[str, ...] = ()
    output_roots: tuple[str, ...] = ()
    output_files_max: int = 10_000
    input_files_max: int = 10_000
    input_files_bytes_max: int = 64 * _GIB
    input_names_max: int = 100_000
    chunk_bytes_max: int = 2 * _MIB
    upload_commit_bytes: int = 8 * _MIB
    uploads_max: int = 10_000
    upload_age_s_max: int = 7 * 24 * 3600
    disk_free_bytes_min: int = 256 * _MIB
    file_name_bytes_max: int = 255
    unpacked_bytes_max: int = 64 * _GIB
    unpacked_ratio_max: int = 200
    unpacked_ratio_from_bytes: int = 64 * _MIB
    text_bytes_max: int = _MIB
    line_bytes_max: int = 8 * _MIB
    key_bytes_max: int = 4 * _KIB
    carried_columns_max: int = 64
    carried_bytes_max: int = 64 * _KIB
    window_rows: int = 4096
    window_bytes: int = 64 * _MIB
    windows_in_flight_max: int = 2
    jobs_running_max: int = 2
    small_jobs_running_max: int = 8
    small_input_bytes: int = 4 * _MIB
    inputs_read_max: int = 1
    small_inputs_read_max: int = 4
    expire_s_max: int = 366 * 24 * 3600
    jobs_max: int = 100_000
    schedules_max: int = 1000
    schedule_jobs_max: int = 1000
    page_jobs_default: int = 100
    page_jobs_max: int = 1000
    display_name_bytes_max: int = 512
    id_bytes_max: int = 128
    url_bytes_max: int = 2048
    column_bytes_max: int = 512
    result_message_bytes: int = _MIB
    result_message_rows_max: int = 256
    lanes: int = 1
    checkpoint_s: float = 15.0
    watch_interval_ms_default: int = 500
    watch_interval_ms_min: int = 100
    watch_interval_ms_max: int = 60_000
