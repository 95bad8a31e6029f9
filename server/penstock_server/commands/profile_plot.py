"""The picture of a profile: latency and throughput of batches, and the trade-off between the two."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock_server.domain.lane import LaneKind

if TYPE_CHECKING:
    from penstock_server.domain.model import ModelManifest
    from penstock_server.runtime.cost_profile import LaneProfile, ProfilePoint

_PANEL_INCHES = (5.2, 4.4)
_INK = "#333333"
# The part of the colour map that is dark enough on white.
_COLOURS = (0.0, 0.88)
_BEST_SIZE, _EFFICIENT_SIZE, _OTHER_SIZE = 90, 30, 18


def load_matplotlib(path: Path) -> Any:
    """Returns the modules of matplotlib that draw into files, without any window.

    Args:
        path: The file to draw into later.

    Raises:
        click.UsageError: It is not installed, or does not know the file's suffix.
    """
    names = ("matplotlib", "matplotlib.figure", "matplotlib.lines", "matplotlib.ticker")
    try:
        modules: Any = tuple(import_module(name) for name in names)
    except ImportError as err:
        raise click.UsageError(
            "--plot needs matplotlib, which is not installed; run: pip install 'penstock-server[plot]'"
        ) from err
    if path.suffix.removeprefix(".") not in modules[1].Figure().canvas.get_supported_filetypes():
        raise click.UsageError(f"--plot cannot draw {path}; use a name that ends in .png, .svg or .pdf")
    return modules


def draw(modules: Any, path: Path, manifest: ModelManifest, profiles: list[LaneProfile]) -> None:
    """Draws a row of three panels for each lane.

    Args:
        modules: What `load_matplotlib` returned.
        path: The file; its suffix decides the format.
        manifest: The model.
        profiles: One for each lane.
    """
    matplotlib, figures, lines, ticker = modules
    width, height = _PANEL_INCHES
    figure = figures.Figure(figsize=(3 * width, height * len(profiles) + 0.9), layout="constrained")
    figure.suptitle(
        f"{manifest.key}, {manifest.precision}: what a batch costs, and what it brings", fontsize=15
    )
    axes = figure.subplots(len(profiles), 3, squeeze=False)
    lengths = sorted({length for measured in profiles for length in measured.lengths()})
    colours = _colours(matplotlib, lengths)
    for row, measured in zip(axes, profiles, strict=True):
        _draw_lane(row, measured, colours, ticker)
    figure.legend(
        handles=_legend(lines, colours), loc="outside lower center", ncols=len(colours) + 3, frameon=False
    )
    figure.savefig(path, dpi=130)


def _draw_lane(axes: Any, measured: LaneProfile, colours: dict[int, Any], ticker: Any) -> None:
    latency, throughput, trade = axes
    for length in measured.lengths():
        points, colour = measured.points(length), colours[length]
        sizes = measured.sizes(length)
        rows = [point.rows for point in points]
        times = [point.median_ns / 1e6 for point in points]
        rates = [point.tokens_per_s for point in points]
        for axis, x, y in ((latency, rows, times), (throughput, rows, rates), (trade, times, rates)):
            axis.plot(x, y, color=colour, linewidth=1.4, zorder=2)
            _mark(axis, points, x, y, sizes, colour)
    time = "ms a batch" if measured.lane is LaneKind.LIVE else "ms of CPU a batch"
    threads = f"{measured.threads} thread{'s' if measured.threads > 1 else ''}"
    _label(latency, f"Latency — {measured.lane.value} lane, {threads}", "rows in the batch", time)
    _label(throughput, "Throughput", "rows in the batch", "tokens a second")
    _label(trade, "The trade-off: up is bulk, left is real time", time, "tokens a second")
    latency.set_yscale("log")
    for axis in (latency, throughput):
        _count_ticks(axis, measured)
    trade.set_xscale("log")
    for axis in (latency.yaxis, trade.xaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(ticker.NullLocator())
    for axis in (throughput, trade):
        axis.set_ylim(bottom=0)
        axis.margins(y=0.12)
        axis.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    _name_best(trade, measured, colours)


def _name_best(axis: Any, measured: LaneProfile, colours: dict[int, Any]) -> None:
    """Writes the best batches, rows times length, beside the panel: highest throughput on top."""
    best: list[ProfilePoint] = []
    for length in measured.lengths():
        rows = measured.sizes(length).best
        best += [point for point in measured.points(length) if point.rows == rows]
    axis.text(1.02, 0.97, "best", transform=axis.transAxes, fontsize=9, color=_INK)
    for line, point in enumerate(sorted(best, key=lambda each: -each.tokens_per_s), start=1):
        text = f"{point.rows}×{point.length}"
        colour = colours[point.length]
        axis.text(1.02, 0.97 - 0.06 * line, text, transform=axis.transAxes, fontsize=9, color=colour)


def _mark(axis: Any, points: list[ProfilePoint], x: list[Any], y: list[Any], sizes: Any, colour: Any) -> None:
    """Efficient batches are filled, the best is large, the others are hollow."""
    for point, at_x, at_y in zip(points, x, y, strict=True):
        is_best, is_efficient = point.rows == sizes.best, point.rows in sizes.efficient
        size = _BEST_SIZE if is_best else _EFFICIENT_SIZE if is_efficient else _OTHER_SIZE
        face = colour if is_efficient else "white"
        axis.scatter([at_x], [at_y], s=size, facecolors=[face], edgecolors=[colour], linewidths=1.2, zorder=3)


def _label(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=11, loc="left", color=_INK)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _count_ticks(axis: Any, measured: LaneProfile) -> None:
    """Rows on a logarithmic scale, with the powers of two written out."""
    axis.set_xscale("log", base=2)
    most = max(rows for rows, _ in measured.runs_ns)
    ticks = [1 << power for power in range(most.bit_length())]
    axis.set_xticks(ticks, labels=[str(tick) for tick in ticks])


def _colours(matplotlib: Any, lengths: list[int]) -> dict[int, Any]:
    scale = matplotlib.colormaps["viridis"]
    low, high = _COLOURS
    steps = max(1, len(lengths) - 1)
    return {length: scale(low + (high - low) * index / steps) for index, length in enumerate(lengths)}


def _legend(lines: Any, colours: dict[int, Any]) -> list[Any]:
    """Lengths by colour, kinds of batches by mark."""
    entries = [
        lines.Line2D([], [], color=colour, label=f"{length} tokens") for length, colour in colours.items()
    ]
    marks = (
        ("best: smallest within 2 % of the peak", _INK, _BEST_SIZE),
        ("efficient", _INK, _EFFICIENT_SIZE),
        ("not efficient", "white", _OTHER_SIZE),
    )
    for label, face, size in marks:
        entries.append(
            lines.Line2D(
                [], [], linestyle="none", marker="o", markersize=size**0.5, markerfacecolor=face,
                markeredgecolor=_INK, label=label,
            )
        )  # fmt: skip
    return entries
