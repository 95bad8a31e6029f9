"""``python -m tests.crash --kills 100 --seed 1``; exits with 1 if a row is lost, there twice, or wrong."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.crash.owner import CrashFailed
from tests.crash.run import Blow, Plan, Tally, crash

_MOMENTS = ("uploading", "validating", "running", "finalizing")


@click.command(context_settings={"show_default": True})
@click.option("--kills", type=click.IntRange(0, 100_000), default=100, help="How often the server is killed.")
@click.option("--faults", type=click.IntRange(0, 100_000), default=60, help="How often its disk is bad.")
@click.option("--rows", type=click.IntRange(1, 1_000_000), default=1200, help="Rows of each job.")
@click.option("--seed", type=int, default=1, help="Of the moments.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON instead of a table.")
def main(kills: int, faults: int, rows: int, seed: int, *, is_json: bool) -> None:
    """Kill a server and fail its disk during bulk jobs, and compare the results with an undisturbed run's."""
    plan = Plan(kills=kills, faults=faults, rows=rows, seed=seed)
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
    try:
        tally = crash(folder, plan, lambda text: click.echo(text, err=True))
    except (CrashFailed, AssertionError) as err:
        click.echo(f"seed {seed}: {err}; the server's data and log are in {folder}", err=True)
        sys.exit(1)
    shutil.rmtree(folder)
    if is_json:
        click.echo(json.dumps(_figures(tally), indent=2))
    else:
        _print(tally)


def _figures(tally: Tally) -> dict[str, object]:
    blows = {blow.value: {moment: tally.blows[blow, moment] for moment in _MOMENTS} for blow in Blow}
    return {
        **blows,
        "killed while the disk was bad": tally.killed_while_bad,
        "started while the disk was bad": tally.started_while_bad,
        "journals cut": tally.journals_cut,
        "jobs compared": tally.jobs,
    }


def _print(tally: Tally) -> None:
    table = Table("while", *Blow, box=None)
    for moment in _MOMENTS:
        table.add_row(moment, *(str(tally.blows[blow, moment]) for blow in Blow))
    table.add_row("in all", *(str(tally.count(blow)) for blow in Blow))
    console = Console()
    console.print(table)
    console.print(f"killed while the disk was bad: {tally.killed_while_bad}")
    console.print(f"started while the disk was bad: {tally.started_while_bad}")
    console.print(f"killed with the journal's tail cut: {tally.journals_cut}")
    console.print(f"jobs whose rows equal those of an undisturbed run: {tally.jobs}")


if __name__ == "__main__":
    main()
