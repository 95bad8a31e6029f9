"""Identical rows are computed once, and each work still gets each of its rows once."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_kernels import TokenRows
from penstock_server.domain.errors import DeadlineUnmeetable, EngineFailed, Overloaded, PenstockError
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.tasks import OverloadPolicy, RequestClass
from penstock_server.domain.work import BatchPart, BatchTimes, Work
from penstock_server.runtime.row_sharing import ROWS_MAX, Follower, RowSharing
from tests.support.work import RecordingSink, make_work

TIMES = BatchTimes(1, 2, 1)


class Queue:
    """Takes works up to a number of rows, in order of arrival; the scheduler's part in these tests."""

    def __init__(self, rows_max: int = 1 << 30) -> None:
        self.rows_max = rows_max
        self.waiting: list[tuple[Work, int]] = []

    def admit(self, work: Work, now_ns: int, overload: OverloadPolicy = OverloadPolicy.REJECT) -> None:
        if work.deadline_ns is not None and work.deadline_ns <= now_ns:
            raise DeadlineUnmeetable("late")
        if len(self.waiting) + len(work.rows) > self.rows_max:
            raise Overloaded("full", retry_after_s=1.0)
        self.waiting += [(work, row) for row in work.rows.tolist()]

    def cancel(self, work: Work) -> None:
        work.cancelled = True
        self.waiting = [entry for entry in self.waiting if entry[0] is not work]


def work_of(rows: list[list[int]], type_id: int = 0, **fields: Any) -> tuple[Work, RecordingSink]:
    """Work of rows with these token ids."""
    work, sink = make_work([len(ids) for ids in rows], **fields)
    ids = np.array([each for row in rows for each in row], np.int32)
    type_ids = np.full(len(ids), type_id, np.uint8)
    none = np.zeros(len(rows), np.bool_)
    work.tokens = TokenRows(ids, type_ids, work.tokens.starts, none, ~none)
    return work, sink


def part_of(work: Work, *rows: int) -> BatchPart:
    return BatchPart(work, np.array(rows or work.rows, np.int32))


def same(count: int, **fields: Any) -> list[tuple[Work, RecordingSink]]:
    """Works of one row each, all of the same tokens."""
    return [make_work([5], **fields) for _ in range(count)]


def admit(sharing: RowSharing, *works: Work, now_ns: int = 0) -> list[int]:
    return [sharing.admit(work, now_ns, OverloadPolicy.REJECT) for work in works]


def test_an_identical_row_is_not_queued_but_gets_the_outputs() -> None:
    queue = Queue()
    sharing = RowSharing(queue)
    (first, _), (second, _) = same(2)
    assert admit(sharing, first, second) == [0, 1]
    assert queue.waiting == [(first, 0)]
    assert sharing.settled(part_of(first)) == [Follower(second, 0, 0)]
    assert sharing.is_empty


def test_rows_that_differ_in_anything_are_not_shared() -> None:
    sharing = RowSharing(Queue())
    first, _ = work_of([[1, 2]])
    longer, _ = work_of([[1, 2, 3]])
    pair, _ = work_of([[1, 2]], type_id=1)
    other_ids, _ = work_of([[1, 3]])
    assert admit(sharing, first, longer, pair, other_ids) == [0, 0, 0, 0]


def test_rows_within_one_work_are_shared() -> None:
    queue = Queue()
    sharing = RowSharing(queue)
    work, _ = work_of([[9, 9], [9, 9], [9, 9, 9]])
    assert admit(sharing, work) == [1]
    assert queue.waiting == [(work, 0), (work, 2)]
    assert sharing.settled(part_of(work, 2, 0)) == [Follower(work, 1, 1)]
    assert sharing.is_empty


@pytest.mark.parametrize(
    ("leader", "follower", "follows"),
    [
        ({}, {"deadline_ns": 100}, False),
        ({"deadline_ns": 100}, {}, True),
        ({"deadline_ns": 100}, {"deadline_ns": 100}, True),
        ({"deadline_ns": 101}, {"deadline_ns": 100}, False),
        ({"request_class": RequestClass.FLEX}, {"request_class": RequestClass.LIVE}, False),
        ({"request_class": RequestClass.LIVE}, {"request_class": RequestClass.FLEX}, True),
        ({"request_class": RequestClass.LIVE}, {"request_class": RequestClass.BULK}, False),
    ],
)
def test_a_row_follows_only_what_is_no_worse_for_it(
    leader: dict[str, Any], follower: dict[str, Any], follows: bool
) -> None:
    sharing = RowSharing(Queue())
    ((first, _),), ((second, _),) = same(1, **leader), same(1, **follower)
    assert admit(sharing, first, second) == [0, int(follows)]


def test_a_row_of_another_tenant_is_followed_once_the_live_lane_has_it() -> None:
    sharing = RowSharing(Queue())
    works = [work for work, _ in same(4)]
    for work, tenant in zip(works, "abbb", strict=True):
        work.tenant = tenant
    assert admit(sharing, works[0], works[1]) == [0, 0]
    sharing.started([part_of(works[1])], LaneKind.BULK)
    works[2].tenant = "c"
    assert admit(sharing, works[2]) == [0]
    sharing.started([part_of(works[2])], LaneKind.LIVE)
    works[3].deadline_ns = 1
    assert admit(sharing, works[3]) == [1]


def test_the_first_follower_takes_the_place_of_a_cancelled_row() -> None:
    queue = Queue()
    queued: list[int] = []
    sharing = RowSharing(queue, on_queued=lambda: queued.append(1))
    (first, _), (second, second_sink), (third, _) = same(3)
    admit(sharing, first, second, third)
    assert sharing.cancel(first, 0) == []
    ((substitute, row),) = queue.waiting
    assert (substitute.sink, row, queued) == (second_sink, 0, [1])
    assert sharing.settled(part_of(substitute)) == [Follower(third, 0, 0)]
    assert sharing.is_empty


def test_cancelling_a_follower_that_took_over_hands_on_to_the_next() -> None:
    queue = Queue()
    sharing = RowSharing(queue)
    (first, _), (second, _), (third, third_sink) = same(3)
    admit(sharing, first, second, third)
    sharing.cancel(first, 0)
    sharing.cancel(second, 0)
    ((substitute, _),) = queue.waiting
    assert substitute.sink is third_sink
    sharing.cancel(third, 0)
    assert queue.waiting == []
    assert sharing.is_empty


def test_a_cancelled_row_in_a_batch_still_serves_its_followers() -> None:
    queue = Queue()
    sharing = RowSharing(queue)
    (first, _), (second, _) = same(2)
    admit(sharing, first, second)
    queue.waiting.clear()
    sharing.started([part_of(first)], LaneKind.LIVE)
    assert sharing.cancel(first, 0) == []
    assert queue.waiting == []
    assert sharing.settled(part_of(first)) == [Follower(second, 0, 0)]
    assert sharing.is_empty


def test_an_expired_row_is_followed_by_one_with_more_time() -> None:
    queue = Queue()
    sharing = RowSharing(queue)
    ((first, _),), ((second, _),), ((third, third_sink),) = (
        same(1, deadline_ns=10),
        same(1, deadline_ns=20),
        same(1, deadline_ns=99),
    )
    admit(sharing, first, second, third)
    queue.waiting.clear()
    ((refused, error),) = sharing.dropped(part_of(first), 50)
    assert refused == Follower(second, 0)
    assert isinstance(error, DeadlineUnmeetable)
    assert [work.sink for work, _ in queue.waiting] == [third_sink]


def test_a_refused_work_leaves_nothing_behind() -> None:
    queue = Queue(rows_max=1)
    sharing = RowSharing(queue)
    first, _ = make_work([5])
    second, _ = make_work([5, 6])
    admit(sharing, first)
    with pytest.raises(Overloaded):
        admit(sharing, second)
    assert second.rows.tolist() == [0, 1]
    assert sharing.settled(part_of(first)) == []
    assert sharing.is_empty


def test_a_late_follower_is_refused_like_any_work() -> None:
    sharing = RowSharing(Queue())
    ((first, _),), ((second, _),) = same(1, deadline_ns=10), same(1, deadline_ns=10)
    admit(sharing, first)
    with pytest.raises(DeadlineUnmeetable):
        admit(sharing, second, now_ns=10)


def test_sharing_can_be_switched_off_and_leaves_large_works_alone() -> None:
    off = RowSharing(Queue(), is_on=False)
    assert admit(off, *(work for work, _ in same(2))) == [0, 0]
    large = RowSharing(Queue())
    works = [make_work([3] * (ROWS_MAX + 1))[0] for _ in range(2)]
    assert admit(large, *works) == [0, 0]


class Machine:
    """Random works, batches, failures and cancels over a queue that is sometimes full."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.queue = Queue(rows_max=self.random.choice([3, 8, 1000]))
        self.sharing = RowSharing(self.queue)
        self.now_ns = 0
        self.live: list[tuple[Work, RecordingSink, int]] = []
        self.running: list[tuple[Work, int]] = []
        self.admitted: list[tuple[Work, RecordingSink, int]] = []

    def run(self, steps: int) -> None:
        actions = [self.arrive, self.arrive, self.start, self.end, self.cancel, self.expire, self.fail]
        for _ in range(steps):
            self.now_ns += 1
            self.random.choice(actions)()
        while self.queue.waiting or self.running:
            self.now_ns += 1
            self.start()
            self.end()

    def arrive(self) -> None:
        lengths = [self.random.randint(1, 3) for _ in range(self.random.randint(1, 3))]
        deadline_ns = self.random.choice([None, self.now_ns + self.random.randint(0, 30)])
        request_class = self.random.choice([RequestClass.LIVE, RequestClass.FLEX])
        work, sink = work_of(
            [[7] * length for length in lengths], deadline_ns=deadline_ns, request_class=request_class
        )
        work.tenant = self.random.choice("ab")
        try:
            self.sharing.admit(work, self.now_ns, OverloadPolicy.REJECT)
        except PenstockError:
            return
        self.live.append((work, sink, len(lengths)))
        self.admitted.append((work, sink, len(lengths)))

    def start(self) -> None:
        count = self.random.randint(0, 3)
        batch, self.queue.waiting = self.queue.waiting[:count], self.queue.waiting[count:]
        lane = self.random.choice([LaneKind.LIVE, LaneKind.BULK])
        self.sharing.started([part_of(work, row) for work, row in batch], lane)
        self.running += batch

    def end(self) -> None:
        for work, row in self._taken():
            output = float(work.tokens.lengths[row])
            followers = self.sharing.settled(part_of(work, row))
            for owner, own_row in [(work, row), *((each.work, each.row) for each in followers)]:
                if not owner.cancelled:
                    rows = np.array([own_row], np.int32)
                    owner.sink.deliver(rows, np.array([[output]], np.float32), TIMES)

    def fail(self) -> None:
        """Some rows fail for good; those of cancelled works are left out when their batch runs again."""
        for work, row in self._taken():
            part = part_of(work, row)
            if work.cancelled:
                self._refuse(self.sharing.dropped(part, self.now_ns))
                continue
            error = EngineFailed("poison")
            followers = self.sharing.settled(part)
            work.sink.fail(part.rows, error)
            self._refuse([(follower, error) for follower in followers])

    def expire(self) -> None:
        late = [
            (work, row)
            for work, row in self.queue.waiting
            if work.deadline_ns is not None and work.deadline_ns <= self.now_ns
        ]
        self.queue.waiting = [entry for entry in self.queue.waiting if entry not in late]
        for work, row in late:
            part = part_of(work, row)
            refused = self.sharing.dropped(part, self.now_ns)
            work.sink.fail(part.rows, DeadlineUnmeetable("late"))
            self._refuse(refused)

    def cancel(self) -> None:
        if self.live:
            work, _, _ = self.live.pop(self.random.randrange(len(self.live)))
            self._refuse(self.sharing.cancel(work, self.now_ns))

    def _taken(self) -> list[tuple[Work, int]]:
        count = self.random.randint(0, len(self.running))
        taken, self.running = self.running[:count], self.running[count:]
        return taken

    @staticmethod
    def _refuse(refused: list[tuple[Follower, PenstockError]]) -> None:
        for follower, error in refused:
            if not follower.work.cancelled:
                follower.work.sink.fail(np.array([follower.row], np.int32), error)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(5, 120))
def test_every_row_is_answered_once_whatever_happens(seed: int, steps: int) -> None:
    machine = Machine(seed)
    machine.run(steps)
    for work, sink, rows in machine.admitted:
        answered = {*sink.outputs, *sink.errors}
        if not work.cancelled:
            assert answered == set(range(rows)), f"seed {seed}, steps {steps}"
        for row, output in sink.outputs.items():
            assert output == [float(work.tokens.lengths[row])]
    assert machine.sharing.is_empty, f"seed {seed}, steps {steps}"
