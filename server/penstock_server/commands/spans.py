"""Spans and windows of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from penstock import TimeWindow

_SPAN = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])")
_CRON_FIELDS = 5
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


def _span(value: str) -> timedelta:
    match = _SPAN.fullmatch(value)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{value!r} is no span of time; write 90s, 30m, 12h or 7d")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})
