"""Half a minute of the soak, in the ordinary tests: gates on what was answered, never on how fast."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.soak.plan import Plan
from tests.soak.report import print_outcome
from tests.soak.run import soak

SECONDS, SEED = 20.0, 1
# What is done within the first seconds on the slowest machine; the others depend on how fast jobs end.
SURELY_DONE = ("malformed", "client killed", "in order")


@pytest.mark.slow
def test_nothing_is_lost_or_answered_twice(tmp_path: Path) -> None:
    outcome = soak(Plan.short(SECONDS, SEED), tmp_path, click.echo, gestures=SURELY_DONE)
    click.echo(f"seed {SEED}, notes in {tmp_path}")
    print_outcome(outcome)
    assert outcome.ledger.answered_rows > 0
    assert outcome.holds
