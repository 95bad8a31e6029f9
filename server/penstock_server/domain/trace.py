"""The format of recorded traces: what arrived when, without a word of any text.

One JSON object a line (JSON Lines), or a Parquet file with columns of the same names. Times are nanoseconds
since the trace began.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ClassName = Literal["LIVE_CRITICAL", "LIVE", "FLEX", "BULK"]
OverloadName = Literal["reject", "demote_to_flex", "demote_to_bulk"]


class TraceRecord(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"class_name": "class"}
):
    """One request, or one window of a job, as it was submitted; also if it was refused.

    Attributes:
        arrival_ns: When it came.
        class_name: The class it asked for; ``class`` in the file.
        tokens: Tokens of each row.
        tenant: Who asked, as an anonymous name.
        flow: Which job a BULK record is a window of, as an anonymous name.
        deadline_ns: When its answer stops being of use, on the same clock; None for never.
        overload: What may happen to it if it cannot be computed in time.
    """

    arrival_ns: int
    class_name: ClassName
    tokens: list[int]
    tenant: str = ""
    flow: str = ""
    deadline_ns: int | None = None
    overload: OverloadName = "reject"
