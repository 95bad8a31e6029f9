"""Spans and windows of time as people write them."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from penstock import TimeWindow

_SPAN = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])")
_CRON_FIELDS = 5
_OPTIONS = {
    "spec.expire_time": "--expire-in",
    "spec.not_before": "--not-before",
    "spec.windows": "--window",
}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span_of(_context: click.Context, _option: click.Parameter, value: str | None) -> timedelta | None:
    """Reads an option that is a number with its unit, such as 90s, 30m, 1.5h or 7d; above zero."""
    return None if value is None else _span(value)


def windows_of(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[TimeWindow, ...]:
    """Reads options that are five cron fields, a span and perhaps a time zone, such as ``0 22 * * * 8h``."""
    from penstock import TimeWindow

    windows: list[TimeWindow] = []
    for value in values:
        words = value.split()
        if len(words) not in (_CRON_FIELDS + 1, _CRON_FIELDS + 2):
            raise click.BadParameter(f"{value!r} is no window; write '0 22 * * * 8h Europe/Berlin'")
        start, (span, *zone) = " ".join(words[:_CRON_FIELDS]), words[_CRON_FIELDS:]
        windows.append(TimeWindow(start, _span(span), *zone))
    return tuple(windows)


def check_times(
    expire_time: datetime | None, not_before: datetime | None, windows: tuple[TimeWindow, ...]
) -> None:
    """Refuses what the server would refuse, before a file is uploaded for it.

    Raises:
        click.BadParameter: Names the option.
    """
    # Loaded only by the command that needs it.
    from penstock_server.bulk.limits import BulkLimits
    from penstock_server.domain import job
    from penstock_server.domain.errors import InvalidRequest
    from penstock_server.runtime import job_times

    if any(window.duration.microseconds for window in windows):
        raise click.BadParameter("must last whole seconds", param_hint="--window")
    now_ns = time.time_ns()
    asked = [
        job.TimeWindow(window.start, int(window.duration.total_seconds()), window.time_zone)
        for window in windows
    ]
    try:
        job_times.check_moments(
            _nanoseconds(expire_time), _nanoseconds(not_before), now_ns, BulkLimits().expire_s_max
        )
        job_times.check_windows(asked, now_ns)
    except InvalidRequest as error:
        (wrong,) = error.violations
        option = next(option for field, option in _OPTIONS.items() if wrong.field.startswith(field))
        told = wrong.description.replace("spec.not_before", "--not-before")
        raise click.BadParameter(told, param_hint=option) from error


def _nanoseconds(moment: datetime | None) -> int | None:
    """Nanoseconds since 1970 of a time; one without a zone is local."""
    return None if moment is None else round(moment.timestamp() * 1e6) * 1000


def _span(value: str) -> timedelta:
    match = _SPAN.fullmatch(value)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{value!r} is no span of time; write 90s, 30m, 12h or 7d")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})
