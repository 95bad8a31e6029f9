"""Kinds of lanes."""

from __future__ import annotations

from enum import Enum


class LaneKind(Enum):
    """What a lane computes."""

    LIVE = "live"
    BULK = "bulk"
