"""Times of messages, as Python has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration


def seconds_of(duration: Duration) -> float:
    """Returns a duration in seconds."""
    return duration.ToNanoseconds() / 1e9


def stamp_of(moment: datetime | None) -> Timestamp | None:
    """Writes a time; one without a zone is local."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone(UTC))
    return stamp


def time_of(stamp: Timestamp) -> datetime:
    """Reads a time, in UTC."""
    return stamp.ToDatetime(tzinfo=UTC)
