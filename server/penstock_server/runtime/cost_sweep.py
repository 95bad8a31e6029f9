"""Measures what batches cost, shape by shape, within a budget of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from penstock_server.domain.model import ModelManifest
from penstock_server.engines.batches import empty_batch
from penstock_server.engines.protocol import Engine

Shape = tuple[int, int]

# The sweep of a first start: few shapes, far apart, all short enough for a slow machine (record 0008).
START_SHAPES: tuple[Shape, ...] = ((1, 8), (1, 32), (4, 16), (1, 128), (4, 64))
START_BUDGET_S = 0.3
# More runs than this of a shape make its median no better than the noise from minute to minute.
_ROUNDS_MAX = 30


def sweep(
    run: Callable[[int, int], int],
    shapes: Sequence[Shape],
    budget_s: float,
    now_s: Callable[[], float] = time.monotonic,
) -> dict[Shape, list[int]]:
    """Runs the shapes by turns, small ones first, until the time is up; blocking.

    By turns, so that a slow moment of the machine falls on all shapes and medians forget it. A shape's first
    run counts only if there is no other: engines make room for a new shape then. What would not end in time
    is not begun, but for the smallest shape.

    Args:
        run: Runs a batch of so many rows of so many tokens; returns what it cost, in nanoseconds.
        shapes: At least one.
        budget_s: Time for the whole sweep.
        now_s: A clock.

    Returns:
        The runs of each shape that was run, in nanoseconds, by rows and padded length.
    """
    ordered = sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape))
    durations_ns: dict[Shape, list[int]] = {}
    passed_s: dict[Shape, float] = {}
    end_s = now_s() + budget_s
    for number in range(1 + _ROUNDS_MAX):
        for shape in ordered:
            begin_s = now_s()
            if durations_ns and begin_s + _expected_s(passed_s, shape) > end_s:
                return durations_ns
            cost_ns = run(*shape)
            passed_s[shape] = now_s() - begin_s
            if number == 1:
                durations_ns[shape] = []
            durations_ns.setdefault(shape, []).append(cost_ns)
    return durations_ns


def grid(rows: Sequence[int], lengths: Sequence[int], tokens_max: int, batch_tokens_max: int) -> list[Shape]:
    """All shapes of these rows and lengths that a model takes and that are not too large.

    Args:
        rows: Row counts.
        lengths: Padded lengths.
        tokens_max: Longest row of the model.
        batch_tokens_max: Most padded tokens of a batch; a single row may have more.
    """
    return [
        (count, length)
        for count in rows
        for length in lengths
        if length <= tokens_max and (count == 1 or count * length <= batch_tokens_max)
    ]


def runner(
    engine: Engine, manifest: ModelManifest, clock_ns: Callable[[], int] = time.monotonic_ns
) -> Callable[[int, int], int]:
    """Runs batches of a shape on an engine in the calling thread, timed by a clock."""

    def run(rows: int, padded_length: int) -> int:
        batch = empty_batch(engine, manifest, rows, padded_length)
        begin_ns = clock_ns()
        engine.run(batch)
        return clock_ns() - begin_ns

    return run


def _expected_s(passed_s: dict[Shape, float], shape: Shape) -> float:
    """How long a shape takes: as last time, or as the dearest token so far says."""
    if shape in passed_s:
        return passed_s[shape]
    return (
        shape[0] * shape[1] * max(seconds / (rows * length) for (rows, length), seconds in passed_s.items())
    )
