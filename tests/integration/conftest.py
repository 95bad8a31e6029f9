from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.server import ServerThread, running_server


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerThread]:
    """One server with the demo models for all tests that do not change its state."""
    with running_server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server
