"""Connects to a Ray cluster, and sets Ray Data for a job."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from penstock_server.ray.errors import RayUnreachable

_LOCAL = "local"
_SETTINGS = {
    "enable_progress_bars": False,
    "print_on_execution_start": False,
    "raise_original_map_exception": True,
}


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
def data_settings(ray: Any) -> Generator[None]:
    """Has Ray Data hand on what workers raise as it is, and print nothing: what it raises is told here."""
    context = ray.data.DataContext.get_current()
    log = logging.getLogger("ray.data")
    before, level = {name: getattr(context, name) for name in _SETTINGS}, log.level
    _set(context, _SETTINGS)
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        _set(context, before)
        log.setLevel(level)


def _set(context: Any, values: Mapping[str, bool]) -> None:
    for name, value in values.items():
        setattr(context, name, value)


def _cpus(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _first_line(err: Exception) -> str:
    return str(err).strip().partition("\n")[0]
