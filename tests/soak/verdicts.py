"""What a soak must show, each as a verdict that can fail."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.ledger import FORBIDDEN, Finding, Ledger
from tests.soak.plan import DRAIN_GRACE_S, EXIT_MARGIN_S
from tests.soak.watch import SERVER, WORKER, Course, Sample

_MIB = float(1 << 20)
# Memory is judged from this long on: before, caches fill and the engines' arenas see their first shapes.
JUDGED_FROM_S = 240.0
# A leak of 512 bytes for each of the load's 40 requests a second is 1.2 MiB a minute, and would fill a
# gigabyte in fourteen hours. What arenas and allocators move in ten minutes makes half of that at most.
SLOPE_MAX_MIB_PER_MIN = 1.0
# The engines' arenas grow in steps when a batch comes that is larger than any before: ever more rarely.
LEVEL_MAX_SHARE, LEVEL_MAX_MIB = 0.06, 16.0
# Open files and threads come and go with connections, uploads and jobs; the median over minutes does not.
FILES_MAX_MORE, THREADS_MAX_MORE = 8, 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that must hold.

    Attributes:
        name: What it is about.
        holds: Whether it does; None if the run was too short to tell.
        figures: What was found, in a line.
        told: The first cases, where it does not hold.
    """

    name: str
    holds: bool | None
    figures: str
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How the server ended.

    Attributes:
        status: Its exit status; None if it had to be killed.
        seconds: From the signal to its end.
        left_over: Its processes that were still there.
    """

    status: int | None
    seconds: float
    left_over: tuple[int, ...] = ()


def ledger_verdicts(ledger: Ledger) -> list[Verdict]:
    """What clients saw."""
    asked, answered = len(ledger.questions), ledger.answered_rows
    read, ended = sum(ledger.rows_read.values()), sum(ledger.jobs_ended.values())
    statuses = ", ".join(f"{count:,} {status}" for status, count in ledger.statuses.most_common())
    return [
        _of(ledger.once, "each question answered once", f"{asked:,} calls and texts of streams"),
        _of(
            ledger.right,
            "each answer of its own text",
            f"{answered:,} rows compared with the text's reference",
        ),
        _of(ledger.defined, "only statuses that are due", statuses),
        _of(ledger.ordered, "streams in order, drafts superseded by newer", f"{asked:,} places"),
        _of(ledger.sums, "jobs add up throughout", f"{ended:,} jobs"),
        _of(ledger.job_rows, "rows of jobs once, with key and answer", f"{read:,} rows read"),
        _of(ledger.ended, "clients went on", "none ended in the middle but those killed"),
    ]


def load_verdict(ledger: Ledger, wanted: Sequence[str]) -> Verdict:
    """A soak in which something never happened has not shown that it works."""
    missing = tuple(f"{gesture} never happened" for gesture in wanted if not ledger.gestures[gesture])
    made = ", ".join(f"{count:,} {gesture}" for gesture, count in sorted(ledger.gestures.items()))
    return Verdict("every gesture was made", not missing, made, missing)


def health_verdict(course: Course) -> Verdict:
    """SERVING, at every look."""
    figures = f"asked {course.health_checks:,} times"
    holds = not course.unhealthy and course.health_checks > 0
    return Verdict("health SERVING throughout", holds, figures, tuple(course.unhealthy[:20]))


def log_verdict(text: str) -> Verdict:
    """No incident, no error, no traceback."""
    found, lines = Finding(), text.splitlines()
    for line in lines:
        if _is_fault(line):
            found.add(line[:400])
    return _of(found, "no INTERNAL and no traceback in the log", f"{len(lines):,} lines")


def _is_fault(line: str) -> bool:
    if not line.startswith("{"):
        return "Traceback" in line or "Error" in line
    try:
        entry = json.loads(line)
    except ValueError:
        return True
    return (
        entry.get("level") in ("error", "critical") or entry.get("code") in FORBIDDEN or "Traceback" in line
    )


def memory_verdicts(samples: Sequence[Sample]) -> list[Verdict]:
    """Server and worker: neither rising over the last half nor above its level of the second quarter."""
    return [
        _memory(process, [each for each in samples if each.process == process])
        for process in (SERVER, WORKER)
    ]


def _memory(process: str, samples: Sequence[Sample]) -> Verdict:
    name = f"memory of the {process} flat"
    if not samples or samples[-1].at_s < JUDGED_FROM_S:
        return Verdict(name, None, f"judged from {JUDGED_FROM_S:.0f} s on")
    before, last = _second_quarter(samples), _last_half(samples)
    slope = slope_per_s([each.at_s for each in last], [each.memory_bytes for each in last]) * 60 / _MIB
    level_before, level = (
        statistics.median(each.memory_bytes for each in part) / _MIB for part in (before, last)
    )
    rise_max = max(LEVEL_MAX_MIB, LEVEL_MAX_SHARE * level_before)
    holds = slope <= SLOPE_MAX_MIB_PER_MIN and level - level_before <= rise_max
    figures = (
        f"{level_before:.0f} MiB, then {level:.0f} (at most {rise_max:.0f} more); "
        f"{slope:+.2f} MiB a minute (at most {SLOPE_MAX_MIB_PER_MIN:g})"
    )
    return Verdict(name, holds, figures)


def handle_verdict(samples: Sequence[Sample]) -> Verdict:
    """Open files and threads of both processes, against the second quarter."""
    name, told, figures = "open files and threads flat", list[str](), list[str]()
    if not samples or samples[-1].at_s < JUDGED_FROM_S:
        return Verdict(name, None, f"judged from {JUDGED_FROM_S:.0f} s on")
    for process in (SERVER, WORKER):
        own = [each for each in samples if each.process == process]
        for what, more in (("files", FILES_MAX_MORE), ("threads", THREADS_MAX_MORE)):
            before, last = (
                statistics.median(int(getattr(each, what)) for each in part)
                for part in (_second_quarter(own), _last_half(own))
            )
            figures.append(f"{process} {what} {before:g} then {last:g}")
            if last > before + more:
                told.append(f"{process}: {what} rose from {before:g} to {last:g}, more than {more}")
    return Verdict(name, not told, ", ".join(figures), tuple(told))


def queue_verdict(course: Course, is_alive: bool) -> Verdict:
    """Nothing waits once nobody asks."""
    left = tuple(f"{name} is {value:g}" for name, value in sorted(course.waiting.items()) if value)
    holds = is_alive and bool(course.waiting) and not left
    figures = (
        f"{course.requests:,.0f} requests counted by the server, {course.restarts:g} restarts of the worker"
    )
    return Verdict("queues empty at the end", holds, figures, left)


def ending_verdict(ending: Ending) -> Verdict:
    """It drains within its limit, with status 0, and leaves no process behind."""
    limit_s = DRAIN_GRACE_S + EXIT_MARGIN_S
    holds = ending.status == 0 and ending.seconds <= limit_s and not ending.left_over
    told = tuple(f"process {pid} is still there" for pid in ending.left_over)
    figures = f"status {ending.status} after {ending.seconds:.1f} s (limit {limit_s:g})"
    return Verdict("drain within its limit", holds, figures, told)


def slope_per_s(times_s: Sequence[float], values: Sequence[float]) -> float:
    """The least-squares slope."""
    return statistics.linear_regression(times_s, values).slope


def _second_quarter(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[len(samples) // 4 : len(samples) // 2]


def _last_half(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[len(samples) // 2 :]


def _of(finding: Finding, name: str, figures: str) -> Verdict:
    return Verdict(name, not finding.count, f"{finding.count:,} wrong; {figures}", tuple(finding.told))
