"""Ray, typed as Any: its annotations are partial, and reading them takes type checkers minutes."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from penstock_server.ray.errors import RayMissing


def load_ray() -> Any:
    """Imports Ray with Ray Data.

    Raises:
        RayMissing: It is not installed.
    """
    # Read when it is imported and when it starts: nothing is reported to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = import_module("ray")
        import_module("ray.data")
    except ImportError as err:
        raise RayMissing(
            f"This needs Ray, which is not installed ({err}); run: pip install 'penstock-server[ray]'"
        ) from err
    return ray
