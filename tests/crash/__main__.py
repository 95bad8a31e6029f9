"""``python -m tests.crash --kills 100 --seed 1``; exits with 1 if a row is lost, there twice, or wrong."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.crash.run import CrashFailed, Tally, crash


@click.command(context_settings={"show_default": True})
@click.option("--kills", type=click.IntRange(1, 100_000), default=100, help="How often the server is killed.")
@click.option("--rows", type=click.IntRange(1, 1_000_000), default=1200, help="Rows of each job.")
@click.option("--seed", type=int, default=1, help="Of the moments.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON instead of a table.")
def main(kills: int, rows: int, seed: int, is_json: bool) -> None:
    """Kill a server at random moments of bulk jobs, and compare what comes out with an undisturbed run."""
    with tempfile.TemporaryDirectory(prefix="crash-") as scratch:
        try:
            tally = crash(Path(scratch), kills, rows, seed, lambda text: click.echo(text, err=True))
        except CrashFailed as err:
            click.echo(f"seed {seed}: {err}", err=True)
            sys.exit(1)
    if is_json:
        figures = {"kills": dict(tally.kills), "journals_cut": tally.journals_cut, "jobs": tally.jobs}
        click.echo(json.dumps(figures, indent=2))
    else:
        _print(tally)


def _print(tally: Tally) -> None:
    table = Table(
        "killed while", "times", title="Each job's rows equal those of an undisturbed run", box=None
    )
    for moment, times in tally.kills.items():
        table.add_row(moment, str(times))
    table.add_row("of these with the journal's tail cut", str(tally.journals_cut))
    table.add_row("jobs compared", str(tally.jobs))
    Console().print(table)


if __name__ == "__main__":
    main()
