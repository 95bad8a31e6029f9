"""Some deaths of the server, in the ordinary tests; `make crash` has a hundred."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.crash.run import crash

# Fewer rows would be done before a kill is due.
KILLS, ROWS, SEED = 4, 1200, 3


@pytest.mark.slow
def test_every_row_is_there_once_however_often_the_server_dies(tmp_path: Path) -> None:
    tally = crash(tmp_path, KILLS, ROWS, SEED, click.echo)
    assert sum(tally.kills.values()) == KILLS
    assert tally.jobs >= 1
