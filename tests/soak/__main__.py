"""``python -m tests.soak --minutes 20 --seed 1``; the exit status is 1 if a verdict fails."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import click

from tests.soak.plan import Plan
from tests.soak.report import as_json, print_outcome
from tests.soak.run import soak


@click.command(context_settings={"show_default": True})
@click.option("--minutes", type=click.FloatRange(0.2, 24 * 60), default=20.0, help="How long there is load.")
@click.option("--seed", type=int, default=1, help="Of all that is random.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Empty folder for notes and logs."
)
def main(minutes: float, seed: int, is_json: bool, keep: Path | None) -> None:
    """Put a real server under random, rude load, and count every answer."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    plan = Plan(seconds=minutes * 60, seed=seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = soak(plan, folder.resolve(), lambda text: click.echo(text, err=True))
    if is_json:
        click.echo(json.dumps(as_json(outcome), indent=2))
    else:
        print_outcome(outcome)
    sys.exit(0 if outcome.holds else 1)


def _stop(number: int, _: FrameType | None) -> None:
    """Ends as by Ctrl-C, so that all processes are ended."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
