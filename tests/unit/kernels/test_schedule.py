"""The native schedule answers what its plain Python twin answers, after any sequence of operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock_kernels import _schedule as native
from penstock_kernels import reference_live_queue, reference_schedule

ROW_POINTS = np.array([1, 2, 4, 8, 16], np.int32)
LENGTH_POINTS = np.array([8, 16, 32, 64], np.int32)
# A batch costs 900 ns, a token 10 and less in larger batches: sharing pays, and costs are not straight.
UPPER_NS = np.ascontiguousarray(900.0 + 10.0 * np.outer(ROW_POINTS**0.95, LENGTH_POINTS))

keys = st.tuples(st.integers(0, 1), st.integers(0, 30), st.integers(0, 5))
tree_steps = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "insert", "erase", "update"]),
        keys,
        st.one_of(st.integers(0, 3000), st.just(native.NEVER)),
        st.integers(0, 200),
    ),
    max_size=60,
)


@given(tree_steps, keys, keys)
def test_tree_equals_its_twin(steps: list[tuple[str, Any, int, int]], low: Any, high: Any) -> None:
    tree, twin = native.DeadlineTree(), reference_schedule.DeadlineTree()
    for name, key, due_ns, cost_ns in steps:
        has_key = key in twin.keys()  # noqa: SIM118 - not a dict
        if (name == "insert") == has_key:
            continue
        for each in (tree, twin):
            arguments = () if name == "erase" else (due_ns, cost_ns)
            getattr(each, name)(key, *arguments)
        assert tree.total_cost() == twin.total_cost()
        assert tree.least_slack_between(low, high) == twin.least_slack_between(low, high)
        assert tree.least_slack_after(low) == twin.least_slack_after(low)
        assert tree.least_slack_before(high) == twin.least_slack_before(high)
        assert tree.cost_before(high) == twin.cost_before(high)
    assert tree.keys() == twin.keys()


@pytest.mark.parametrize("upper_ns", [UPPER_NS, UPPER_NS * 1e9, np.full_like(UPPER_NS, np.nan), -UPPER_NS])
def test_grid_equals_its_twin(upper_ns: NDArray[np.float64]) -> None:
    grid = native.CostGridView(ROW_POINTS, LENGTH_POINTS, upper_ns)
    twin = reference_schedule.CostGridView(ROW_POINTS, LENGTH_POINTS, upper_ns)
    for length in (0, 1, 7, 8, 9, 33, 63, 64, 65, 5000):
        for rows in (*range(1, 19), 100):
            assert grid.upper(rows, length) == twin.upper(rows, length)
            for efficiency in (0.5, 0.97, 1.0):
                most = twin.efficient_rows(length, rows, efficiency)
                assert grid.efficient_rows(length, rows, efficiency) == most
                assert 1 <= most <= rows


def test_costs_lie_between_points_and_go_on_beyond_them() -> None:
    upper_ns = np.array([[10.0, 20.0], [30.0, 60.0]])
    for grid_of in (native.CostGridView, reference_schedule.CostGridView):
        grid = grid_of(np.array([1, 3], np.int32), np.array([10, 20], np.int32), upper_ns)
        assert [grid.upper(1, 10), grid.upper(2, 10), grid.upper(2, 15), grid.upper(5, 10)] == [
            10,
            20,
            30,
            50,
        ]
        assert grid.upper(1, 1) == 10
        upper_ns[0, 0] = 12.5
        assert grid.upper(1, 10) == 13
        upper_ns[0, 0] = 10.0


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("admit"),
            st.lists(st.integers(0, 70), min_size=1, max_size=12),
            st.integers(0, 1),  # model
            st.integers(1, 4),  # class
            st.integers(0, 2),  # tenant
            st.one_of(st.none(), st.integers(500, 30_000)),
            st.sampled_from([0.1, 0.3, 1.0]),
            st.sampled_from([0.0, 0.4, 1.5]),  # what others use
        ),
        st.tuples(st.just("take"), st.integers(0, 1000)),
        st.tuples(st.just("wait"), st.integers(0, 3000)),
        st.tuples(st.just("cancel"), st.integers(0, 40)),
        st.tuples(st.just("reserve"), st.sampled_from([0.0, 0.02, 0.5])),
        st.tuples(st.just("reprice"), st.floats(0.5, 2.0)),
    ),
    max_size=60,
)


@dataclass
class Pair:
    """The native queue and its twin, told the same."""

    upper_ns: NDArray[np.float64]
    queues: tuple[native.LiveQueue, reference_live_queue.LiveQueue] = field(init=False)

    def __post_init__(self) -> None:
        self.queues = (
            native.LiveQueue(
                batch_tokens_max=160, efficiency=0.9, margin_ns=5, quantum_ns=2000, reserve=0.02
            ),
            reference_live_queue.LiveQueue(
                batch_tokens_max=160, efficiency=0.9, margin_ns=5, quantum_ns=2000, reserve=0.02
            ),
        )
        for upper_ns in (self.upper_ns, self.upper_ns * 2):
            self.both("add_model", ROW_POINTS, LENGTH_POINTS, np.ascontiguousarray(upper_ns))
        for weight in (1.0, 2.0, 0.5):
            self.both("add_tenant", weight)

    def both(self, name: str, *arguments: Any) -> Any:
        """Calls a method of both and compares the answers."""
        mine, twins = (plain(getattr(queue, name)(*arguments)) for queue in self.queues)
        assert mine == twins
        return twins


def plain(answer: Any) -> Any:
    """Arrays as lists, so that answers compare."""
    if isinstance(answer, list | tuple):
        return [plain(each) for each in answer]  # pyright: ignore[reportUnknownVariableType]
    return answer.tolist() if isinstance(answer, np.ndarray) else answer  # pyright: ignore


@settings(max_examples=300, deadline=None)
@given(steps, st.sampled_from([native.NEVER, 2000]))
def test_queue_equals_its_twin(commands: list[Any], batch_cost_max_ns: int) -> None:
    upper_ns = UPPER_NS.copy()
    pair = Pair(upper_ns)
    pair.both("set_batch_cost_max", batch_cost_max_ns)
    now_ns = free_ns = 0
    for number, command in enumerate(commands):
        match command:
            case "admit", lengths, model, request_class, tenant, allowed_ns, share, others:
                starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
                rows = np.arange(len(lengths), dtype=np.int32)
                deadline_ns = native.NEVER if allowed_ns is None else now_ns + allowed_ns
                urgency_ns = min(deadline_ns, now_ns + 10_000)
                what = (number, model, request_class, tenant, urgency_ns, deadline_ns, starts, rows)
                pair.both("admit", *what, now_ns, max(now_ns, free_ns), share, others)
            case "take", idle_ns:
                now_ns = max(now_ns, free_ns) + idle_ns
                pair.both("expire", now_ns)
                batch = pair.both("take", now_ns)
                free_ns = now_ns + (batch[4] if batch else 0)
            case "wait", idle_ns:
                now_ns += idle_ns
            case "cancel", chosen:
                pair.both("cancel", chosen)
            case "reserve", reserve:
                pair.both("set_reserve", reserve)
            case _:
                upper_ns[:] = UPPER_NS * command[1]
                pair.both("reprice")
        check_sums(pair, now_ns)


def check_sums(pair: Pair, now_ns: int) -> None:
    pair.both("__len__")
    pair.both("cost")
    pair.both("least_slack", now_ns)
    for request_class in range(1, 5):
        pair.both("waiting_rows", request_class)
        pair.both("waiting_tokens", request_class)
    for tenant in range(3):
        pair.both("virtual_time", tenant)
        pair.both("queued_cost", tenant)
        pair.both("queued_tokens", tenant)


def test_bad_arguments_are_refused_alike() -> None:
    pair = Pair(UPPER_NS)
    starts, rows = np.array([0, 5, 9], np.int64), np.array([0, 1], np.int32)
    sound: list[Any] = [0, 0, 2, 0, 100, native.NEVER, starts, rows, 0, 0, 1.0, 0.0]
    for place, value, message in [
        (1, 2, "no model"),
        (2, 5, "class"),
        (3, 3, "no tenant"),
        (6, np.array([0, 5, 3], np.int64), "ascend"),
        (6, starts.astype(np.int32), "int64"),
        (7, np.array([2], np.int32), "outside"),
        (7, np.array([-1], np.int32), "outside"),
        (7, rows[:0], "at least one row"),
        (7, rows.astype(np.int64), "int32"),
        (10, 0.0, "positive"),
        (11, -0.5, "positive"),
    ]:
        arguments = list(sound)
        arguments[place] = value
        for queue in pair.queues:
            with pytest.raises(ValueError, match=message):
                queue.admit(*arguments)
    for queue in pair.queues:
        queue.admit(*sound)
        with pytest.raises(ValueError, match="waits already"):
            queue.admit(*sound)
        with pytest.raises(ValueError, match="weight"):
            queue.add_tenant(0.0)
        with pytest.raises(ValueError, match="reserve"):
            queue.set_reserve(-0.1)
        with pytest.raises(ValueError, match="ascend"):
            queue.add_model(ROW_POINTS[::-1].copy(), LENGTH_POINTS, UPPER_NS)
        with pytest.raises(ValueError, match="must be"):
            queue.add_model(ROW_POINTS, LENGTH_POINTS, UPPER_NS[1:].copy())


def admit(pair: Pair, owner: int, rows: int, deadline_ns: int, share: float, others: float) -> int:
    """Admits rows of 8 tokens to both queues; returns the verdict."""
    starts = np.arange(0, 8 * rows + 1, 8, dtype=np.int64)
    what = (owner, 0, 2, 0, deadline_ns, deadline_ns, starts, np.arange(rows, dtype=np.int32))
    verdict: int = pair.both("admit", *what, 0, 0, share, others)[0]
    return verdict


def test_share_is_kept_from_a_queue_only_beyond_a_call_and_a_quantum() -> None:
    pair = Pair(UPPER_NS)
    # A row alone costs 980 ns and the quantum is 2,000; others use all there is.
    assert admit(pair, 1, 40, 15_000, 0.01, 1.0) == 0  # a first call, whatever it costs
    assert admit(pair, 2, 1, 15_000, 0.01, 1.0) == 4
    assert admit(pair, 3, 1, 15_000, 0.01, 0.0) == 0  # others use nothing of the time
    pair = Pair(UPPER_NS / 3)
    verdicts = [admit(pair, owner, 1, 15_000, 0.01, 1.0) for owner in range(60)]
    assert verdicts[:5] == [0] * 5
    assert verdicts[-1] == 4


def test_reserve_refuses_nothing_that_an_idle_lane_could_make() -> None:
    for reserve, verdict in ((0.5, 2), (0.0, 0)):
        pair = Pair(UPPER_NS)
        pair.both("set_reserve", reserve)
        assert admit(pair, 1, 1, 1200, 1.0, 0.0) == verdict
