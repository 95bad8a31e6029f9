"""``penstock simulate``: the scheduler on a virtual clock, beside other servers' policies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock_server.commands.output import print_json, print_table

if TYPE_CHECKING:
    from penstock_server.simulation.report import Comparison
    from penstock_server.simulation.scenario import Scenario

POLICIES = ("ours", "live-only", "bulk-only", "fifo", "triton", "tf-serving")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _takes_scenario(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that change a scenario; None means as the file or the defaults have it."""
    for option in (
        click.option("--live-rate", type=click.FloatRange(min=0, min_open=True), help="Live calls a second."),
        click.option(
            "--overload", type=click.FloatRange(min=0, min_open=True), help="Live load over capacity."
        ),
        click.option("--arrivals", help="`poisson`, `mmpp`, or the file of a recorded trace."),
        click.option("--deadline-ms", type=click.FloatRange(min=0), help="Of live calls; 0 for none."),
        click.option("--lengths", help="`sentences`, `reviews`, `mixed`, or a file of numbers of tokens."),
        click.option("--rows", type=click.IntRange(1, 1024), help="Texts of a live call."),
        click.option("--tenant", "tenants", multiple=True, help="NAME[:SHARE[:WEIGHT]]; repeat it."),
        click.option(
            "--bulk", "has_bulk", is_flag=True, help="Beside a bulk job that never runs out of rows."
        ),
        click.option("--cores", type=click.IntRange(1, 1024), help="Cores of the machine."),
        click.option("--serial", is_flag=True, help="One lane that nothing preempts, as on a GPU."),
        click.option(
            "--cost-table",
            type=click.Path(exists=True, path_type=Path),
            help="True durations: a JSON file, or the folder `costs` of a server's data.",
        ),
        click.option("--model", help="Whose costs, if --cost-table is a folder."),
        click.option(
            "--duration",
            "duration_s",
            type=click.FloatRange(min=0, min_open=True),
            help="Seconds of arrivals.",
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Of all that is random."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("scenario_path", metavar="[SCENARIO]", type=_FILE, required=False)
@click.option(
    "--policy", "policies", type=click.Choice(POLICIES), multiple=True, help="Repeat it.  [default: all]"
)
@click.option(
    "--check", "checked", is_flag=True, help="Check every promise; the exit status is 1 if one is broken."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@_takes_scenario
def simulate(
    scenario_path: Path | None,
    policies: tuple[str, ...],
    checked: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Simulate the scheduler, live calls beside bulk jobs, on a virtual clock.

    SCENARIO is a TOML file with more settings (docs/simulation.md); options here win.
    """
    from penstock_server.simulation.report import compare
    from penstock_server.simulation.runner import prepare
    from penstock_server.simulation.scenario import LiveTraffic, Scenario
    from penstock_server.simulation.settings import changed, load_scenario

    base = Scenario(live=LiveTraffic()) if scenario_path is None else load_scenario(scenario_path)
    scenario = changed(base, **settings)
    with _progress(shown=not as_json) as tick:
        comparison = compare(prepare(scenario), policies or _fitting(scenario), checked=checked, tick=tick)
    if as_json:
        from penstock_server.simulation.report import as_json as fields

        print_json(fields(comparison))
    else:
        _print(comparison)
    if checked and not comparison.holds:
        raise click.exceptions.Exit(1)


def _fitting(scenario: Scenario) -> tuple[str, ...]:
    """All policies that the scenario has work for."""
    is_mixed = scenario.live is not None and bool(scenario.bulk.jobs)
    return POLICIES if is_mixed else tuple(policy for policy in POLICIES if not policy.endswith("-only"))


def _print(comparison: Comparison) -> None:
    from penstock_server.simulation.report import BULK_COLUMNS, LIVE_COLUMNS, bulk_rows, caption, live_rows

    for columns, rows in ((LIVE_COLUMNS, live_rows(comparison)), (BULK_COLUMNS, bulk_rows(comparison))):
        if rows:
            print_table(columns, rows)
            click.echo()
    click.echo(caption(comparison))
    for outcome in comparison.outcomes:
        broken = [verdict for verdict in outcome.verdicts if verdict.count]
        if outcome.verdicts and not broken:
            names = ", ".join(verdict.checker for verdict in outcome.verdicts)
            click.echo(f"{outcome.figures.policy} holds: {names}")
        for verdict in broken:
            click.echo(f"{outcome.figures.policy} BREAKS {verdict.checker}, {verdict.count:,} times:")
            for finding in verdict.told:
                click.echo(f"  at {finding.at_ns / 1e9:.6f} s: {finding.text}")


@contextmanager
def _progress(*, shown: bool) -> Generator[Callable[[float], None]]:
    """A bar on stderr for the part that is done; silent where nobody looks at it."""
    if not shown or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("Simulating", total=1.0)
        yield lambda done: bars.update(bar, completed=done)
