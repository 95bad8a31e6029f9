"""Spans of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

import click

_SPAN = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span_of(_context: click.Context, _option: click.Parameter, value: str | None) -> timedelta | None:
    """Reads an option that is a number with its unit, such as 90s, 30m, 1.5h or 7d; above zero."""
    if value is None:
        return None
    match = _SPAN.fullmatch(value)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{value!r} is no span of time; write 90s, 30m, 12h or 7d")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})
