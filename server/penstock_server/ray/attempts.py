"""Counts how often a window was begun: Ray begins one anew for ever when its worker dies under it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from penstock_server.ray.errors import RayJobFailed

# A row that kills its engine is found the second time; losing nodes three times over the same window is rare.
_BEGUN_MAX = 3


class Attempts:
    """How often each window was begun; lives in an actor of its own, as what workers know dies with them."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """Counts that a window is begun; returns how often that was, this time included."""
        self._begun[number] = self._begun.get(number, 0) + 1
        return self._begun[number]


def start_attempts(ray: Any) -> Any:
    """Starts the actor on the node of this process, whose loss ends the job anyway; returns its handle."""
    strategies: Any = import_module("ray.util.scheduling_strategies")
    here = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Attempts).remote()


def begin(ray: Any, attempts: Any, number: int, start_row: int) -> int:
    """Counts that a worker begins a window; returns how often that was, this time included.

    Raises:
        RayJobFailed: It has been begun too often.
    """
    begun: int = ray.get(attempts.begin.remote(number))
    if begun > _BEGUN_MAX:
        raise RayJobFailed(
            f"{_BEGUN_MAX} workers have died over the same rows, from row {start_row:,} on. The nodes may "
            "have too little memory."
        )
    return begun
