"""``penstock profile``: what batches of a model cost on this machine, as a table and a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock_server.commands.output import print_json, print_table

if TYPE_CHECKING:
    from penstock_server.domain.lane import LaneKind
    from penstock_server.domain.model import ModelManifest
    from penstock_server.runtime.cost_profile import LaneProfile, ProfilePoint

_ROWS = "1,2,4,6,8,12,16,24,32,48,64"
_LENGTHS = "8,16,32,64,128,256,512,1024"
# The largest batch of a sweep: beyond it CPUs gain nothing, and a round of all shapes takes seconds.
_BATCH_TOKENS_MAX = 2048
_CAPTION = (
    "● best: the smallest batch within 2 % of the best throughput   · efficient: no smaller one is better"
)


def _counts(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Reads counts separated by commas: each once, increasing."""
    try:
        counts = sorted({int(part) for part in value.split(",")})
    except ValueError as err:
        raise click.BadParameter(f"{value!r} is not a list of counts such as 1,2,4", ctx, param) from err
    if counts[0] < 1:
        raise click.BadParameter(f"{value!r} holds a count below 1", ctx, param)
    return tuple(counts)


@click.command()
@click.argument("model")
@click.option(
    "--models",
    "--models-dir",
    "root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models"),
    show_default=True,
    help="Folder of the models.",
)
@click.option(
    "--lane",
    type=click.Choice(["live", "bulk", "both"]),
    default="both",
    show_default=True,
    help="Measure as live lanes run (all threads), as bulk lanes do (one thread), or both.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Threads of the live lane.  [default: one for each core]"
)
@click.option("--rows", default=_ROWS, show_default=True, callback=_counts, help="Row counts.")
@click.option("--lengths", default=_LENGTHS, show_default=True, callback=_counts, help="Lengths in tokens.")
@click.option(
    "--batch-tokens",
    type=click.IntRange(1, 1 << 20),
    default=_BATCH_TOKENS_MAX,
    show_default=True,
    help="Largest batch, in rows times length; a single row may be longer.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=20.0,
    show_default=True,
    help="Time for each lane; large batches that do not fit are left out.",
)
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw a picture: png, svg or pdf."
)
@click.option("--save", is_flag=True, help="Store the costs for the server's next start.")
@click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    show_default=True,
    help="The server's data folder, for --save.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def profile(
    *,
    model: str,
    root: Path,
    lane: str,
    threads: int | None,
    rows: tuple[int, ...],
    lengths: tuple[int, ...],
    batch_tokens: int,
    seconds: float,
    plot: Path | None,
    save: bool,
    data_dir: Path,
    as_json: bool,
) -> None:
    """Measure what batches of MODEL cost here: latency and throughput over rows and length.

    MODEL is a name or name@version. No server is needed, and none should compute meanwhile.
    """
    from penstock_server.commands.profile_plot import load_matplotlib
    from penstock_server.config import usable_cores
    from penstock_server.runtime.cost_profile import profile_lane
    from penstock_server.runtime.cost_sweep import grid

    drawing = None if plot is None else load_matplotlib(plot)
    manifest = _manifest(root, model)
    shapes = grid(rows, lengths, manifest.tokens_max, batch_tokens)
    if not shapes:
        raise click.UsageError(
            f"{manifest.key} takes at most {manifest.tokens_max} tokens; all lengths are above"
        )
    profiles: list[LaneProfile] = []
    for kind in _lanes(lane):
        count = (threads or usable_cores()) if kind.value == "live" else 1
        click.echo(f"measuring {kind.value} batches for {seconds:g} s, {_threads(count)}", err=True)
        profiles.append(profile_lane(manifest, kind, count, shapes, seconds))
    if as_json:
        print_json(_document(manifest, profiles))
    else:
        for measured in profiles:
            _print(measured, len(shapes))
    if plot is not None and drawing is not None:
        from penstock_server.commands.profile_plot import draw

        draw(drawing, plot, manifest, profiles)
        click.echo(f"the picture is in {plot}", err=True)
    if save:
        _save(data_dir, manifest, profiles)


def _manifest(root: Path, model: str) -> ModelManifest:
    from penstock_server.domain.model import ModelKey
    from penstock_server.models.repository import ModelRepository

    repository = ModelRepository(root)
    name, _, version = model.partition("@")
    return repository.manifest(ModelKey(name, version) if version else repository.newest(name))


def _lanes(lane: str) -> list[LaneKind]:
    from penstock_server.domain.lane import LaneKind

    return list(LaneKind) if lane == "both" else [LaneKind(lane)]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _print(measured: LaneProfile, shapes: int) -> None:
    """Prints latency and throughput, rows down and lengths across."""
    lengths = measured.lengths()
    columns = ["rows", *(f"{length} tokens" for length in lengths)]
    sizes = {length: measured.sizes(length) for length in lengths}
    points = {(point.rows, length): point for length in lengths for point in measured.points(length)}
    counts = sorted({rows for rows, _ in points})

    def mark(rows: int, length: int) -> str:
        return "●" if rows == sizes[length].best else "·" if rows in sizes[length].efficient else " "

    def print_matrix(title: str, text: Callable[[ProfilePoint], str], caption: str = "") -> None:
        lines: list[list[str]] = []
        for rows in counts:
            found = ((points.get((rows, length)), mark(rows, length)) for length in lengths)
            lines.append([str(rows), *("" if p is None else f"{text(p):>8} {sign}" for p, sign in found)])
        click.echo(f"\n{title}")
        print_table(columns, lines, caption)

    runs = sorted(len(each) for each in measured.runs_ns.values())
    title = f"{measured.lane.value} lane, {_threads(measured.threads)}"
    click.echo(f"\n{title}: {len(points)} of {shapes} shapes, each run {runs[0]} to {runs[-1]} times")
    print_matrix("milliseconds a batch", lambda point: f"{point.median_ns / 1e6:,.2f}")
    print_matrix("tokens a second", lambda point: f"{point.tokens_per_s:,.0f}", _CAPTION)


def _document(manifest: ModelManifest, profiles: list[LaneProfile]) -> dict[str, Any]:
    return {
        "model": manifest.key.name,
        "version": manifest.key.version,
        "precision": manifest.precision,
        "lanes": [
            {
                "lane": measured.lane.value,
                "threads": measured.threads,
                "points": [
                    {
                        "rows": point.rows,
                        "length": point.length,
                        "runs": point.runs,
                        "median_ms": round(point.median_ns / 1e6, 4),
                        "worst_ms": round(point.worst_ns / 1e6, 4),
                        "tokens_per_s": round(point.tokens_per_s, 1),
                        "efficient": point.rows in measured.sizes(length).efficient,
                        "best": point.rows == measured.sizes(length).best,
                    }
                    for length in measured.lengths()
                    for point in measured.points(length)
                ],
            }
            for measured in profiles
        ],
    }


def _save(data_dir: Path, manifest: ModelManifest, profiles: list[LaneProfile]) -> None:
    from penstock_server.runtime.cost_store import CostStore, cost_key
    from penstock_server.runtime.data_folder import lock_folder

    # A running server would write its own costs over these when it stops.
    with lock_folder(data_dir):
        store = CostStore(data_dir / "costs")
        for measured in profiles:
            key = cost_key(manifest, measured.lane, measured.threads)
            if not store.save(key, measured.table(manifest.tokens_max).state()):
                raise click.ClickException(f"the costs could not be written to {data_dir / 'costs'}")
            click.echo(f"saved {data_dir / 'costs' / key.file_name}", err=True)
