"""Progress bars on stderr; silent where nobody looks at them."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from penstock import Progress

_TITLES = {"upload": "Uploading", "rows": "Computing", "download": "Downloading"}


class Bars:
    """One bar for each phase of long work; give it to the client as a progress callback.

    Args:
        shown: False prints nothing at all; a stderr that is no terminal does so too.
    """

    def __init__(self, *, shown: bool) -> None:
        self._display: RichProgress | None = _display() if shown and sys.stderr.isatty() else None
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self._display is not None:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()

    def __call__(self, progress: Progress) -> None:
        """Moves the bar of the progress's phase."""
        if self._display is None:
            return
        if progress.phase not in self._bars:
            title = _TITLES.get(progress.phase, progress.phase)
            self._bars[progress.phase] = self._display.add_task(title, total=None, told="")
        self._display.update(
            self._bars[progress.phase],
            total=progress.total or None,
            completed=progress.done,
            told=told(progress),
        )


def told(progress: Progress) -> str:
    """Tells counts, rate and time left in words."""
    if progress.phase == "rows":
        parts = [f"{progress.done:,}/{progress.total:,} rows"]
        if progress.job is not None and progress.job.failed:
            parts.append(f"{progress.job.failed:,} failed")
        if progress.per_second:
            parts.append(f"{progress.per_second:,.0f} rows/s")
    else:
        of_total = f"/{_size(progress.total)}" if progress.total else ""
        parts = [f"{_size(progress.done)}{of_total}", f"{_size(progress.per_second)}/s"]
    if progress.time_left_s is not None and progress.done != progress.total:
        parts.append(f"{duration(progress.time_left_s)} left")
    if progress.job is not None and not progress.job.total:
        parts = [progress.job.state.value]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Tells a duration: ``42 s``, ``3 min 10 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _display() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as RichProgress

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
    )
    return RichProgress(*columns, console=Console(stderr=True))
