"""Compares tokenizers on one core: ``python -m benchmarks.text --quick``, or ``make bench-text``.

Every contender runs in a process of its own on the same core; only one works at a time, in turns, and what
counts is processor time. A warm figure is the median over several rounds in several processes; a cold one is
the first pass of a fresh process over texts that it has not seen. "Tensors" is a padded int32 array of ids
for each batch, by the cheapest way that a library offers; "own result" is the library's own object alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks.machine import describe_machine
from benchmarks.text import contest, report
from benchmarks.text.environment import ROOT, prepare
from benchmarks.text.page import write_page
from benchmarks.text.works import WORKS, Work
from penstock_server.models.pull import PullFailed
from tests.support.packages import Unavailable
from tests.support.vocabularies import vocabulary

RESULT = ROOT / "docs" / "benchmarks" / "text.json"
PAGE = RESULT.with_suffix(".md")
_QUICK_DIVISOR = 8
_QUICK_PROCESSES, _QUICK_ROUNDS = 1, 2


@click.command(context_settings={"show_default": True})
@click.option("--quick", is_flag=True, help="An eighth of the texts, one process, two rounds.")
@click.option("--work", "wanted", help="Only works whose name contains this, whatever its case.")
@click.option("--processes", type=click.IntRange(1, 100), default=3, help="Fresh starts; a cold sample each.")
@click.option("--rounds", type=click.IntRange(1, 1_000), default=4, help="Warm samples in each process.")
@click.option("--core", type=int, help="Core to run on.  [default: the last one]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--write", is_flag=True, help=f"Write {RESULT.relative_to(ROOT)} and the page beside it.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the result to this file.")
def main(
    quick: bool,
    wanted: str | None,
    processes: int,
    rounds: int,
    core: int | None,
    as_json: bool,
    write: bool,
    out: Path | None,
) -> None:
    """Measure tokenizers against each other."""
    if write and (quick or wanted is not None):
        raise click.UsageError("--write keeps the whole comparison: leave out --quick and --work")
    core = max(os.sched_getaffinity(0)) if core is None else core
    plan = contest.Plan(processes, rounds, 1, core)
    if quick:
        plan = contest.Plan(_QUICK_PROCESSES, _QUICK_ROUNDS, _QUICK_DIVISOR, core)
    works = [work for work in WORKS if wanted is None or wanted.lower() in work.name.lower()]
    if not works:
        raise click.BadParameter(f"no work's name contains {wanted!r}", param_hint="--work")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    machine = describe_machine()
    skipped: dict[str, str] = {}
    outcomes = list(_measure(works, plan, as_json, skipped))
    result = {
        "started": started,
        "machine": machine,
        "load_average_after": os.getloadavg(),
        "plan": {"processes": plan.processes, "rounds": plan.rounds, "divisor": plan.divisor},
        "skipped": skipped,
        "works": [report.figures(outcome) for outcome in outcomes],
    }
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    if as_json:
        print(text, end="")
    for path in (RESULT if write else None, out):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"The whole result is in {path}", file=sys.stderr)
    if write:
        write_page(PAGE, outcomes, machine, started)


def _measure(
    works: list[Work], plan: contest.Plan, as_json: bool, skipped: dict[str, str]
) -> Iterator[contest.Outcome]:
    missing = prepare()
    for work in works:
        print(f"{work.name}: {len(work.contenders)} contenders", file=sys.stderr)
        try:
            outcome = contest.run(work, vocabulary(work.vocabulary).path(), plan, missing)
        except (Unavailable, PullFailed) as err:
            skipped[work.name] = str(err)
            print(f"skipped: {err}", file=sys.stderr)
            continue
        if not as_json:
            report.print_table(outcome)
        yield outcome


if __name__ == "__main__":
    main()
