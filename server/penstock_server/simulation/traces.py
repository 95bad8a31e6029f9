"""Reads recorded traces: JSON Lines as the server writes them, or Parquet with the same columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.model import TOKENS_MAX
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.trace import TraceRecord
from penstock_server.simulation.arrivals import Call
from penstock_server.simulation.scenario import TenantMix


@dataclass(frozen=True, slots=True)
class Trace:
    """A recorded trace: calls in order of arrival, and the windows of each job."""

    calls: tuple[Call, ...]
    windows: dict[str, tuple[Call, ...]]

    @property
    def duration_ns(self) -> int:
        """From the start to the last arrival."""
        last = [calls[-1].arrival_ns for calls in (self.calls, *self.windows.values()) if calls]
        return max(last, default=0) + 1


def read_trace(path: Path, tenants: Iterable[TenantMix] = ()) -> Trace:
    """Reads a trace.

    Args:
        path: ``.parquet``, or JSON Lines.
        tenants: Weights of tenants, by name; others weigh 1.

    Raises:
        InvalidRequest: It cannot be read or a record is wrong; the message names it.
    """
    weights = {tenant.name: tenant.weight for tenant in tenants}
    try:
        records = _parquet(path) if path.suffix == ".parquet" else _lines(path)
        calls = [_call(record, weights) for record in records]
    except OSError as err:
        raise InvalidRequest(f"Cannot read the trace {path}: {err.strerror or err}.") from err
    except (msgspec.DecodeError, ValueError) as err:
        raise InvalidRequest(f"Wrong record in the trace {path}: {err}") from err
    if not calls:
        raise InvalidRequest(f"The trace {path} is empty.")
    calls.sort(key=lambda call: call.arrival_ns)
    windows: dict[str, list[Call]] = {}
    for call in calls:
        if call.request_class is RequestClass.BULK and call.flow:
            windows.setdefault(call.flow, []).append(call)
    return Trace(
        tuple(call for call in calls if call.request_class is not RequestClass.BULK or not call.flow),
        {flow: tuple(found) for flow, found in windows.items()},
    )


def _lines(path: Path) -> Iterator[TraceRecord]:
    decoder = msgspec.json.Decoder(TraceRecord)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield decoder.decode(line)
                except msgspec.DecodeError as err:
                    raise ValueError(f"line {number}: {err}") from err


def _parquet(path: Path) -> Iterator[TraceRecord]:
    # Imported here: it takes a tenth of a second, and most traces are JSON Lines.
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)  # pyright: ignore[reportUnknownMemberType]
    except pyarrow.ArrowException as err:
        raise ValueError(f"no Parquet file: {err}") from err
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        yield msgspec.convert({name: value for name, value in row.items() if value is not None}, TraceRecord)


def _call(record: TraceRecord, weights: dict[str, float]) -> Call:
    tokens = np.asarray(record.tokens, dtype=np.int64)
    if not len(tokens) or tokens.min() < 1 or tokens.max() > TOKENS_MAX:
        raise ValueError(f"tokens at {record.arrival_ns} ns must be from 1 to {TOKENS_MAX:,} each")
    if record.arrival_ns < 0:
        raise ValueError(f"arrival_ns must not be negative, but is {record.arrival_ns}")
    return Call(
        arrival_ns=record.arrival_ns,
        request_class=RequestClass[record.class_name],
        lengths=tokens.astype(np.int32),
        tenant=record.tenant,
        weight=weights.get(record.tenant, 1.0),
        deadline_ns=record.deadline_ns,
        overload=OverloadPolicy(record.overload),
        flow=record.flow,
    )
