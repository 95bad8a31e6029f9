"""Draws a result: live latency, bulk speed, mixed lengths and overload, each contestant a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

_Figures: TypeAlias = Mapping[str, float | None]
_Contestants: TypeAlias = Mapping[str, _Figures]

_OURS, _PEER, _CEILING = "#0b6e4f", "#8a94a0", "#c9ced6"
_ALONE, _TEXT, _GRID = "#3b4252", "#222831", "#e6e9ee"
# Behind figures that may lie on a line.
_PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
_SIZE_INCHES = (12.5, 8.0)
_DPI = 150
_PENSTOCK, _BARE = "penstock", "bare loop"
# Longer than any live call is waited for: a point there means that answers did not come.
_UNANSWERED_MS = 10_000.0


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draws the four panels and writes them."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    plt: Any = import_module("matplotlib.pyplot")
    plt.rcParams.update(
        {"font.family": "DejaVu Sans", "font.size": 10, "text.color": _TEXT, "axes.edgecolor": _GRID}
    )
    figure, axes = plt.subplots(2, 2, figsize=_SIZE_INCHES)
    summary: Mapping[str, _Contestants] = result["summary"]
    _latency(axes[0][0], summary.get("hybrid", {}))
    _bulk(axes[0][1], summary.get("hybrid", {}))
    _throughput(axes[1][0], summary.get("throughput", {}))
    _overload(axes[1][1], summary.get("overload", {}))
    plan, machine = result["plan"], result["machine"]
    figure.suptitle(
        "Live calls and bulk work on one machine", x=0.02, y=0.985, ha="left", size=16, weight="bold"
    )
    figure.text(
        0.02,
        0.935,
        f"The same ONNX file, texts and arrivals: {plan['rate']:g} live calls a second, mixed review texts. "
        f"Medians of {plan['rounds']} rounds of {plan['seconds']:g} s.\n"
        f"{machine['cores_usable']} cores, {machine['cpu']}; {str(result['started'])[:10]}.",
        size=9.5,
        color=_ALONE,
        va="top",
    )
    figure.tight_layout(rect=(0.0, 0.0, 1.0, 0.905), h_pad=2.2, w_pad=2.5)
    figure.savefig(path, dpi=_DPI, facecolor="white")


def _count(value: float, _: int) -> str:
    return f"{value:,.0f}"


def _percent(value: float, _: int) -> str:
    return f"{value:.0%}"


def _colour(name: str) -> str:
    return {_PENSTOCK: _OURS, _BARE: _CEILING}.get(name, _PEER)


def _panel(axis: Any, title: str, subtitle: str, names: Sequence[str]) -> None:
    """Headings, one line for each contestant with the first on top, and no frame."""
    axis.set_title(title, loc="left", size=12, weight="bold", pad=22)
    axis.text(0.0, 1.03, subtitle, transform=axis.transAxes, size=9, color=_ALONE, va="bottom")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(length=0)
    axis.grid(axis="x", color=_GRID)
    axis.set_axisbelow(True)
    axis.minorticks_off()
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)
    for label in axis.get_yticklabels():
        label.set_weight("bold" if label.get_text() == _PENSTOCK else "normal")
    if not names:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=_PEER)
        axis.set_xticks([])


def _having(contestants: _Contestants, *keys: str) -> dict[str, list[float]]:
    """The contestants of which all these figures are known."""
    found = {name: [figures.get(key) for key in keys] for name, figures in contestants.items()}
    return {
        name: [value for value in values if value is not None]
        for name, values in found.items()
        if None not in values
    }


def _latency(axis: Any, contestants: _Contestants) -> None:
    shown = _having(contestants, "live_p99_ms", "beside_p99_ms")
    _panel(axis, "Live p99 latency, ms", "○ live calls alone   ● beside a saturating bulk load", list(shown))
    if not shown:
        return
    axis.set_xscale("log")
    axis.minorticks_off()
    for line, (name, (alone, beside)) in enumerate(shown.items()):
        axis.plot(
            [alone, beside], [line, line], color=_colour(name), lw=3, alpha=0.45, solid_capstyle="round"
        )
        axis.scatter([alone], [line], s=70, facecolor="white", edgecolor=_colour(name), lw=2, zorder=3)
        axis.scatter([beside], [line], s=80, color=_colour(name), zorder=4)
        timed_out = " (no answer in 10 s)" if beside >= _UNANSWERED_MS else ""
        text = f"{alone:,.0f} → {beside:,.0f}{timed_out}   {beside / alone:.2f}×"
        axis.annotate(text, (alone * 1.02, line - 0.17), va="bottom", size=9, color=_TEXT)
    low = min(min(values) for values in shown.values())
    high = max(max(values) for values in shown.values())
    axis.set_xlim(low / 1.6, high * max(1.6, (high / low) ** 0.25))
    axis.xaxis.set_major_formatter(_count)


def _bulk(axis: Any, contestants: _Contestants) -> None:
    shown = _having(contestants, "bulk_alone_tokens_per_s", "bulk_beside_tokens_per_s", "harvest")
    _panel(axis, "Bulk, tokens a second", "pale: alone   full: beside live calls", list(shown))
    longest = max((max(values[:2]) for values in shown.values()), default=1.0)
    for line, (name, (alone, beside, harvest)) in enumerate(shown.items()):
        axis.barh(line, alone, height=0.5, color=_colour(name), alpha=0.25)
        axis.barh(line, beside, height=0.5, color=_colour(name))
        text = f"{beside:,.0f}: {harvest:.0%} of what live leaves"
        axis.annotate(
            text, (max(alone, beside) + longest * 0.02, line), va="center", size=9, color=_TEXT, bbox=_PLATE
        )
    axis.set_xlim(0, longest * 1.5)
    axis.xaxis.set_major_formatter(_count)


def _throughput(axis: Any, contestants: _Contestants) -> None:
    shown = _having(contestants, "mixed_rows_per_s")
    _panel(
        axis, "Mixed lengths, rows a second", "bulk alone: nine sentences for each whole review", list(shown)
    )
    longest = max((values[0] for values in shown.values()), default=1.0)
    ours = shown.get(_PENSTOCK, [None])[0]
    for line, (name, (rows,)) in enumerate(shown.items()):
        axis.barh(line, rows, height=0.5, color=_colour(name))
        times = f"   Penstock has {ours / rows:.2f}×" if ours is not None and name != _PENSTOCK else ""
        axis.annotate(f"{rows:,.0f}{times}", (rows + longest * 0.02, line), va="center", size=9, color=_TEXT)
    axis.set_xlim(0, longest * 1.45)


def _overload(axis: Any, contestants: _Contestants) -> None:
    keys = [f"x{factor}_{name}" for factor in ("1.4", "2.8") for name in ("goodput", "late_of_admitted")]
    # Where nothing was answered in time, nothing that was admitted was late either, or all of it.
    known = {
        name: {key: 0.0 if value is None else value for key, value in figures.items()}
        for name, figures in contestants.items()
    }
    shown = _having(known, *keys)
    subtitle = "goodput as part of capacity, 500 ms deadlines   pale: load 1.4×   full: 2.8×"
    _panel(axis, "Overload", subtitle, list(shown))
    for line, (name, (some, some_late, much, much_late)) in enumerate(shown.items()):
        axis.barh(line - 0.17, some, height=0.3, color=_colour(name), alpha=0.45)
        axis.barh(line + 0.17, much, height=0.3, color=_colour(name))
        for shift, good, late in ((-0.17, some, some_late), (0.17, much, much_late)):
            text = f"{good:.0%}, late {late:.1%}" if good else "nothing in time"
            place = (good + 0.02, line + shift)
            axis.annotate(text, place, va="center", size=8.5, color=_TEXT, bbox=_PLATE)
    if shown:
        axis.axvline(1.0, color=_ALONE, lw=1, ls=":", zorder=0.9)
    axis.set_xlim(0, 1.45)
    axis.xaxis.set_major_formatter(_percent)
