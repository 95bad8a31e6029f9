from __future__ import annotations

from typing import cast

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan
from penstock_server.runtime.intrusions import Intrusions
from penstock_server.runtime.lanes import Lane
from tests.support.work import MODEL, make_work


class NamedLane:
    slots = 1

    def __init__(self, name: str, kind: LaneKind = LaneKind.LIVE) -> None:
        self.name = name
        self.kind = kind


def lane(name: str, kind: LaneKind = LaneKind.LIVE) -> Lane:
    return cast("Lane", NamedLane(name, kind))


def plan(*classes: RequestClass) -> BatchPlan:
    works = [make_work([5], request_class=request_class)[0] for request_class in classes]
    return BatchPlan(
        MODEL, tuple(BatchPart(work, work.rows) for work in works), len(works), 5, 5 * len(works)
    )


def test_live_work_that_comes_while_bulk_runs_waits_for_its_end() -> None:
    only = lane("live-0")
    intrusions = Intrusions([only, lane("bulk-0", LaneKind.BULK)])
    intrusions.batch_starts(only, plan(RequestClass.BULK, RequestClass.FLEX))
    intrusions.live_arrived(10)
    intrusions.live_arrived(30)
    assert intrusions.batch_ended(only, 50) == [40, 20]
    intrusions.live_arrived(60)
    assert intrusions.batch_ended(only, 70) == []


def test_a_batch_with_live_rows_is_no_intrusion() -> None:
    only = lane("live-0")
    intrusions = Intrusions([only])
    intrusions.batch_starts(only, plan(RequestClass.BULK, RequestClass.LIVE))
    intrusions.live_arrived(10)
    assert intrusions.batch_ended(only, 50) == []


def test_nobody_waits_while_another_live_lane_is_free_of_bulk() -> None:
    first, second = lane("live-0"), lane("live-1")
    intrusions = Intrusions([first, second])
    intrusions.batch_starts(first, plan(RequestClass.BULK))
    intrusions.live_arrived(10)
    intrusions.batch_starts(second, plan(RequestClass.BULK))
    intrusions.live_arrived(20)
    assert intrusions.batch_ended(second, 50) == [30]
    assert intrusions.batch_ended(first, 60) == []


def test_a_batch_that_failed_leaves_nothing_behind() -> None:
    only = lane("live-0")
    intrusions = Intrusions([only])
    intrusions.batch_starts(only, plan(RequestClass.BULK))
    intrusions.live_arrived(10)
    intrusions.batch_ended(only, 20)
    intrusions.batch_starts(only, plan(RequestClass.LIVE))
    intrusions.live_arrived(30)
    assert intrusions.batch_ended(only, 50) == []


def test_a_batch_behind_the_one_that_runs_makes_nobody_wait_yet() -> None:
    only = lane("serial-0")
    intrusions = Intrusions([only])
    intrusions.batch_starts(only, plan(RequestClass.BULK))
    intrusions.live_arrived(10)
    intrusions.batch_starts(only, plan(RequestClass.LIVE))
    intrusions.batch_starts(only, plan(RequestClass.BULK))
    intrusions.live_arrived(20)
    assert intrusions.batch_ended(only, 50) == [40, 30]
    intrusions.live_arrived(60)
    assert intrusions.batch_ended(only, 70) == []
    intrusions.live_arrived(80)
    assert intrusions.batch_ended(only, 90) == [10]
