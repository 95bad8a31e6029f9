"""Times of messages in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration


def seconds_of(duration: Duration) -> float:
    """Returns a duration in seconds."""
    return duration.ToNanoseconds() / 1e9
