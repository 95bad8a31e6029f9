"""``penstock models``: what the server has, and how models get into its folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock_server.commands.output import print_json, print_table, short
from penstock_server.commands.session import Session, calls_server

if TYPE_CHECKING:
    from penstock import CostTable, Model


@click.group()
def models() -> None:
    """Show the server's models, or fetch models for it."""


@models.command("list")
@calls_server
def list_(session: Session) -> None:
    """List the server's models and their versions."""
    with session.connect() as client:
        found = client.models.list()
    if session.as_json:
        print_json([_fields(model) for model in found])
    elif found:
        _print(found)
    else:
        click.echo("no models; fetch some with `penstock models pull demo` and start the server again")


@models.command()
@click.argument("name")
@calls_server
def show(session: Session, name: str) -> None:
    """Describe one model, with its labels and what its batches cost."""
    with session.connect() as client:
        model = client.models.get(name)
    if session.as_json:
        print_json(_fields(model))
        return
    _print([model])
    for version in model.versions:
        if version.labels:
            click.echo(f"labels of version {version.version}: {', '.join(version.labels)}")
        for table in version.costs:
            _print_costs(version.version, table)


@models.command()
@click.argument("name")
@click.option("--from-hub", is_flag=True, help="NAME is a repository of the Hugging Face hub.")
@click.option("--revision", help="Branch, tag or commit of the repository.")
@click.option(
    "--models",
    "root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models"),
    show_default=True,
    help="The server's models folder.",
)
def pull(name: str, from_hub: bool, revision: str | None, root: Path) -> None:
    """Fetch models into a folder: `demo` for the demo models, or NAME --from-hub."""

    def tell(line: str) -> None:
        click.echo(line, err=True)

    if from_hub:
        from penstock_server.models.hub import pull_from_hub

        click.echo(str(pull_from_hub(name, root, revision, tell)))
        return
    if revision is not None:
        raise click.UsageError("--revision goes with --from-hub")
    if name != "demo":
        raise click.UsageError(f"only `demo` has a recipe; for a hub repository: pull {name} --from-hub")
    from penstock_server.models.pull import pull_demo

    for folder in pull_demo(root, tell):
        click.echo(str(folder))


def _print_costs(version: str, table: CostTable) -> None:
    """Prints every other point of a cost table; neighbours differ by half an octave."""
    columns = [index for index, length in enumerate(table.lengths) if length & (length - 1) == 0]
    rows: list[list[str]] = []
    for index, count in enumerate(table.rows):
        if count & (count - 1) == 0:
            cells = [f"{table.median_ms[index][c]:,.2f} ≤ {table.upper_ms[index][c]:,.2f}" for c in columns]
            rows.append([str(count), *cells])
    rows.append(["best", *(f"{table.best_rows[c]} rows" for c in columns)])
    kind = "CPU milliseconds" if table.lane.value == "bulk" else "milliseconds"
    click.echo(
        f"\nversion {version}, {table.lane.value} lane: {kind} a batch, median ≤ upper; "
        f"{table.observations:,} batches seen, drift {table.drift:.2f}"
    )
    print_table(["rows", *(f"{table.lengths[c]} tokens" for c in columns)], rows)


def _fields(model: Model) -> dict[str, Any]:
    return asdict(model)


def _print(found: list[Model]) -> None:
    columns = ("model", "version", "state", "task", "output", "tokens", "precision", "engine")
    rows: list[tuple[str, ...]] = []
    for model in found:
        for version in model.versions:
            labels = f"{len(version.labels)} labels"
            width = f"{version.dimensions} dimensions" if version.dimensions else labels
            state = f"{version.state.value}: {short(version.error)}" if version.error else version.state.value
            rows.append(
                (
                    model.name,
                    version.version,
                    state,
                    version.task.value,
                    width,
                    f"{version.tokens_max} at most",
                    version.precision,
                    version.engine,
                )
            )
    print_table(columns, rows)
