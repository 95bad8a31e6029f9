"""When the rows of a job may be computed: not before a time, and within windows that come again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import JobSpec, TimeWindow

_BILLION = 1_000_000_000
_DURATION_S_MIN, _DURATION_S_MAX = 60, 7 * 24 * 3600
_WINDOWS_MAX = 16
# Names come from callers, and become paths below the folder of time zones.
_ZONE_BYTES_MAX = 64
_CRON_BYTES_MAX = 256


def check_times(spec: JobSpec, now_ns: int, ahead_s_max: int) -> None:
    """Refuses times that are wrong or too far ahead, or of which none would come.

    Args:
        spec: Of the job.
        now_ns: Nanoseconds since 1970.
        ahead_s_max: How far ahead a time may be, in seconds.

    Raises:
        InvalidRequest: Names the field.
    """
    check_moments(spec.expire_time_ns, spec.not_before_ns, now_ns, ahead_s_max)
    check_windows(spec.windows, now_ns)


def check_moments(
    expire_time_ns: int | None, not_before_ns: int | None, now_ns: int, ahead_s_max: int
) -> None:
    """Refuses an expire time or a beginning that is wrong or too far ahead. Raises InvalidRequest."""
    for name, time_ns in (("expire_time", expire_time_ns), ("not_before", not_before_ns)):
        if time_ns is not None and (time_ns - now_ns) / _BILLION > ahead_s_max:
            days = ahead_s_max // (24 * 3600)
            raise InvalidRequest.of_field(f"spec.{name}", f"must be at most {days} days from now")
    if expire_time_ns is not None and expire_time_ns <= max(now_ns, not_before_ns or 0):
        why = "has passed" if expire_time_ns <= now_ns else "is before spec.not_before"
        raise InvalidRequest.of_field("spec.expire_time", f"{why}; no row could be computed")


def check_windows(windows: Sequence[TimeWindow], now_ns: int) -> None:
    """Refuses windows of time that are wrong, too many, or never come. Raises InvalidRequest."""
    if len(windows) > _WINDOWS_MAX:
        raise InvalidRequest.of_field("spec.windows", f"must be at most {_WINDOWS_MAX}")
    for number, window in enumerate(windows):
        _check_window(window, f"spec.windows[{number}]", now_ns)


def open_from_ns(spec: JobSpec, now_ns: int) -> int:
    """When the rows of a job may be computed next; the present time if they may now.

    Args:
        spec: Of the job; its times are right.
        now_ns: Nanoseconds since 1970.
    """
    from_ns = max(now_ns, spec.not_before_ns or 0)
    if not spec.windows or any(_opened(window, from_ns) is not None for window in spec.windows):
        return from_ns
    return min(next(_starts_after(window, from_ns)) for window in spec.windows)


def open_until_ns(spec: JobSpec, now_ns: int) -> int | None:
    """When to ask again whether the rows of a job may be computed, if they may now; None for never."""
    opened = [start_ns for window in spec.windows if (start_ns := _opened(window, now_ns)) is not None]
    return max(opened) if opened else None


def next_start_ns(cron: str, time_zone: str, now_ns: int) -> int:
    """The next time that cron fields name, which are right; nanoseconds since 1970."""
    return next(_starts(cron, time_zone, now_ns))


def check_cron(cron: str, time_zone: str, field: str, now_ns: int, cron_name: str = "cron") -> None:
    """Refuses cron fields or a time zone that are none, or of which no time would come.

    Args:
        cron: Five cron fields.
        time_zone: Name of a zone; empty for UTC.
        field: What holds both, for the message.
        now_ns: Nanoseconds since 1970.
        cron_name: What the cron fields are called in it.

    Raises:
        InvalidRequest: Names the field.
    """
    if len(time_zone.encode()) > _ZONE_BYTES_MAX or len(cron.encode()) > _CRON_BYTES_MAX:
        raise InvalidRequest.of_field(field, "is too long")
    try:
        ZoneInfo(time_zone or "UTC")
    except (OSError, ValueError, KeyError) as err:
        told = f"{time_zone!r} is no IANA time zone, such as Europe/Berlin"
        raise InvalidRequest.of_field(f"{field}.time_zone", told) from err
    try:
        next(_starts(cron, time_zone, now_ns))
    except CronSimError as err:
        told = f"{cron!r} is not five cron fields, such as 0 22 * * * ({err})"
        raise InvalidRequest.of_field(f"{field}.{cron_name}", told) from err
    except StopIteration as err:
        raise InvalidRequest.of_field(f"{field}.{cron_name}", "never comes") from err


def _opened(window: TimeWindow, now_ns: int) -> int | None:
    """When a window closes that is open now."""
    duration_ns = window.duration_s * _BILLION
    start_ns = next(_starts_after(window, now_ns - duration_ns))
    return start_ns + duration_ns if start_ns <= now_ns else None


def _starts_after(window: TimeWindow, time_ns: int) -> Iterator[int]:
    """Yields when a window opens after a time, in order."""
    return _starts(window.start_cron, window.time_zone, time_ns)


def _starts(cron: str, time_zone: str, time_ns: int) -> Iterator[int]:
    zone = ZoneInfo(time_zone) if time_zone else UTC
    # Whole seconds, rounded down: cron knows no less, and a start may be at the very time.
    second = time_ns // _BILLION
    for start in CronSim(cron, datetime.fromtimestamp(second, zone)):
        # In an hour that clocks repeat it begins with the first time, which may have passed.
        if (start_s := round(start.timestamp())) > second:
            yield start_s * _BILLION


def _check_window(window: TimeWindow, field: str, now_ns: int) -> None:
    if not _DURATION_S_MIN <= window.duration_s <= _DURATION_S_MAX:
        raise InvalidRequest.of_field(f"{field}.duration", "must be from one minute to seven days")
    check_cron(window.start_cron, window.time_zone, field, now_ns, "start_cron")
