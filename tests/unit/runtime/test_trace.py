from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock_server.domain.errors import InvalidRequest, Overloaded
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.runtime.clock import MonotonicClock
from penstock_server.runtime.dispatcher import Dispatcher
from penstock_server.runtime.trace import TraceWriter
from penstock_server.scheduling.scheduler import Scheduler, SchedulerLimits
from penstock_server.simulation.traces import read_trace
from tests.support.costs import FixedCosts
from tests.support.work import make_work


def close(writer: TraceWriter) -> None:
    writer.close()
    writer._executor.shutdown(wait=True)  # pyright: ignore[reportPrivateUsage]


def test_recorded_trace_is_read_back_as_the_same_calls(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "trace.jsonl", 1 << 20)
    first, _ = make_work([3, 40], arrival_ns=5_000, deadline_ns=9_000)
    second, _ = make_work([7], arrival_ns=6_500, request_class=RequestClass.FLEX)
    writer.record(first, OverloadPolicy.REJECT)
    writer.record(second, OverloadPolicy.DEMOTE_TO_BULK)
    close(writer)
    calls = read_trace(writer.path).calls
    assert [call.arrival_ns for call in calls] == [0, 1_500]
    assert [call.lengths.tolist() for call in calls] == [[3, 40], [7]]
    assert [call.deadline_ns for call in calls] == [4_000, None]
    assert [call.request_class for call in calls] == [RequestClass.LIVE, RequestClass.FLEX]
    assert calls[1].overload is OverloadPolicy.DEMOTE_TO_BULK


def test_trace_stops_at_its_bound_and_stays_readable(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "trace.jsonl", 500)
    for index in range(100):
        writer.record(make_work([10], arrival_ns=index)[0], OverloadPolicy.REJECT)
    close(writer)
    size = writer.path.stat().st_size
    assert 300 < size <= 500
    assert len(read_trace(writer.path).calls) == len(writer.path.read_text().splitlines())


def test_trace_never_overwrites_an_earlier_one(tmp_path: Path) -> None:
    paths: list[Path] = []
    for _ in range(3):
        writer = TraceWriter(tmp_path / "trace.jsonl", 1000)
        writer.record(make_work([1])[0], OverloadPolicy.REJECT)
        close(writer)
        paths.append(writer.path)
    assert [path.name for path in paths] == ["trace.jsonl", "trace-1.jsonl", "trace-2.jsonl"]
    assert all(path.stat().st_size for path in paths)


def test_trace_to_a_place_that_cannot_be_written_is_refused_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="missing"):
        TraceWriter(tmp_path / "missing" / "trace.jsonl", 1000)


async def test_a_work_that_is_tried_again_is_recorded_once_as_it_was_asked_for(tmp_path: Path) -> None:
    limits = SchedulerLimits(100, 100, 5, live_batch_tokens_max=100, bulk_batch_tokens=100, lookahead_rows=8)
    writer = TraceWriter(tmp_path / "trace.jsonl", 1 << 20)
    dispatcher = Dispatcher(Scheduler(limits, FixedCosts()), [], MonotonicClock(), trace=writer)
    dispatcher.submit(make_work([5], request_class=RequestClass.BULK)[0])
    window, _ = make_work([3, 2], request_class=RequestClass.BULK)
    for is_again in (False, True, True):
        with pytest.raises(Overloaded):
            dispatcher.submit(window, is_again=is_again)
    close(writer)
    lines = [json.loads(line) for line in writer.path.read_text().splitlines()]
    assert [line["tokens"] for line in lines] == [[5], [3, 2]]


def test_trace_holds_numbers_and_no_names(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "trace.jsonl", 1 << 20)
    for tenant in ("alice@example.org", "bob", "alice@example.org", ""):
        work, _ = make_work([4, 5], request_class=RequestClass.LIVE_CRITICAL)
        work.tenant = tenant
        writer.record(work, OverloadPolicy.REJECT)
    window, _ = make_work([6], request_class=RequestClass.BULK)
    window.flow = "job-of-alice"
    writer.record(window, OverloadPolicy.REJECT)
    close(writer)
    lines = [json.loads(line) for line in writer.path.read_text().splitlines()]
    assert lines[0] == {"arrival_ns": 0, "class": "LIVE_CRITICAL", "tokens": [4, 5], "tenant": "t1"}
    assert [line.get("tenant") for line in lines] == ["t1", "t2", "t1", None, None]
    assert lines[4] == {"arrival_ns": 0, "class": "BULK", "tokens": [6], "flow": "j1"}
