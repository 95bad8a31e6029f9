"""Some blows to the server, in the ordinary tests; `make crash` has a hundred kills and more."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.crash.run import Blow, Plan, crash

# Fewer rows would be done before a blow is due.
PLAN = Plan(kills=4, faults=3, rows=1200, seed=3)


@pytest.mark.slow
def test_every_row_is_there_once_whatever_happens_to_the_server(tmp_path: Path) -> None:
    tally = crash(tmp_path, PLAN, click.echo)
    assert tally.count(Blow.KILL) == PLAN.kills
    assert tally.count(Blow.FULL, Blow.SYNC) == PLAN.faults
    assert tally.jobs >= 1
