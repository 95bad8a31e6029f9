"""Connects to a Ray cluster, and keeps Ray from talking where nobody asked."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from penstock_server.ray.errors import RayUnreachable

_LOCAL = "local"


@contextmanager
def connected(ray: Any, address: str | None, workers: int | None) -> Generator[int]:
    """Connects this process to a cluster while the context lasts; yields the cluster's CPUs.

    A process that is connected already stays so, and the address is not looked at.

    Args:
        ray: Ray.
        address: Of a cluster, as ``ray.init`` takes it; None starts one on this machine.
        workers: CPUs that a started cluster is to offer; None for those that there are.

    Raises:
        RayUnreachable: There is no such cluster.
    """
    if ray.is_initialized():
        yield _cpus(ray)
        return
    # A cluster that is there has the CPUs that it has; Ray refuses to be told.
    own: dict[str, Any] = {"num_cpus": workers} if address in (None, _LOCAL) else {}
    try:
        ray.init(
            address=address or _LOCAL,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except (ConnectionError, ValueError, RuntimeError) as err:
        where = address or "this machine"
        raise RayUnreachable(f"No Ray cluster answers at {where}: {_first_line(err)}") from err
    try:
        yield _cpus(ray)
    finally:
        ray.shutdown()


@contextmanager
def quiet(ray: Any) -> Generator[None]:
    """Keeps Ray Data's progress bars and plans off the console for a while; errors still show."""
    context = ray.data.DataContext.get_current()
    log = logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, log.level
    context.enable_progress_bars, context.print_on_execution_start = False, False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start, level = before
        log.setLevel(level)


def _cpus(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _first_line(err: Exception) -> str:
    return str(err).strip().partition("\n")[0]
