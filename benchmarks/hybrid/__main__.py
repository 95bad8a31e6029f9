"""Penstock beside other servers on the same model file: ``python -m benchmarks.hybrid --quick``.

Every contestant has its turn in every round, with a server started for it alone, the same texts and the same
arrivals; figures are medians over the rounds. ``make bench-hybrid`` runs it; docs/benchmarks/README.md tells
how the contestants are set up and how to read the figures.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.hybrid import report
from benchmarks.hybrid.agreement import agreement
from benchmarks.hybrid.clients.calls import MODEL
from benchmarks.hybrid.contestants import BARE, CONTESTANTS, PENSTOCK, Contestant, penstock_with
from benchmarks.hybrid.corpora import Corpora, write_corpora
from benchmarks.hybrid.models import INT8, MODEL_FOLDER, prepare_models
from benchmarks.hybrid.plan import Plan
from benchmarks.hybrid.plot import draw
from benchmarks.hybrid.processes import ROOT, MeasurementFailed
from benchmarks.hybrid.report import Outcome
from benchmarks.hybrid.turn import NO_DEADLINE_S, turn
from benchmarks.hybrid.works import WORKS, Task, bare_throughput
from benchmarks.machine import describe_machine
from benchmarks.texts import TextKind

RESULT = ROOT / "docs" / "benchmarks" / "hybrid.json"
# Works that only say something about servers with tenants, or with classes of work.
_TAKES_PART = {"tenants": (PENSTOCK,), "saturated": (PENSTOCK, "triton", "triton-unbatched")}
_QUICK_SECONDS, _QUICK_ROWS = 6.0, 512


@click.command(context_settings={"show_default": True})
@click.option("--only", multiple=True, help="Only these works and contestants; may be repeated.")
@click.option(
    "--seconds", type=click.FloatRange(1, 3_600), default=30.0, help="Length of each stretch of load."
)
@click.option("--rounds", type=click.IntRange(1, 100), default=3, help="Turns of each contestant.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 10_000), default=25.0, help="Live calls a second beside bulk."
)
@click.option("--rows", type=click.IntRange(1, 100_000), default=4_096, help="Rows of each throughput run.")
@click.option(
    "--texts",
    "kinds",
    multiple=True,
    type=click.Choice([kind.value for kind in TextKind]),
    default=[kind.value for kind in TextKind],
    help="Texts of the throughput runs.",
)
@click.option("--deadline-ms", type=click.FloatRange(1, 60_000), default=500.0, help="Of calls in overload.")
@click.option(
    "--int8/--no-int8", default=True, help="Whether Penstock with an int8 model takes part in throughput."
)
@click.option("--seed", type=int, default=1, help="Of arrivals and texts.")
@click.option("--quick", is_flag=True, help="One round of short stretches: shows that it runs, no more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--write", is_flag=True, help=f"Write {RESULT.relative_to(ROOT)} and the plot beside it.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the result to this file.")
@click.option(
    "--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="Write a plot here."
)
def main(
    only: tuple[str, ...],
    seconds: float,
    rounds: int,
    rate: float,
    rows: int,
    kinds: tuple[str, ...],
    deadline_ms: float,
    int8: bool,
    seed: int,
    quick: bool,
    as_json: bool,
    write: bool,
    out: Path | None,
    plot_path: Path | None,
) -> None:
    """Measure Penstock and its peers by turns."""
    if write and (quick or only):
        raise click.UsageError("--write keeps the whole comparison: leave out --quick and --only")
    # Ended by a signal, it still ends its servers.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    works, contestants = _chosen(only)
    prepare_models()
    if int8 and not only:
        contestants.append(penstock_with(INT8))
    if quick:
        seconds, rounds, rows = min(seconds, _QUICK_SECONDS), 1, min(rows, _QUICK_ROWS)
    texts = (TextKind.MIXED,) if quick else tuple(TextKind(kind) for kind in kinds)
    plan = Plan(seconds, rounds, TextKind.MIXED, rate, deadline_ms, (1.4, 2.8), rows, texts, seed)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    machine = describe_machine()
    absent = _prepare(contestants)
    present = [contestant for contestant in contestants if contestant.name not in absent]
    with TemporaryDirectory(prefix="hybrid-texts-") as name:
        corpora = write_corpora(Path(name), plan.texts, plan.bulk_rows)
        outcomes, is_cut = _until_cut(_measure(works, present, _has_bare(only), plan, corpora, Path(name)))
        agreeing = agreement(penstock_with(INT8), MODEL, corpora) if int8 and not only else None
    result = {
        "started": started,
        "machine": machine,
        "plan": asdict(plan),
        "model_sha256": hashlib.sha256((MODEL_FOLDER / "model.onnx").read_bytes()).hexdigest(),
        "contestants": {contestant.name: contestant.setup for contestant in present},
        "absent": absent,
        "int8_agreement": agreeing,
        "is_cut": is_cut,
        "summary": report.summary(outcomes),
        "turns": [asdict(outcome) for outcome in outcomes],
    }
    _publish(result, as_json, write, out, plot_path)


def _chosen(only: Sequence[str]) -> tuple[list[str], list[Contestant]]:
    """The works and contestants that ``--only`` names; all of a sort of which it names none."""
    names = {contestant.name for contestant in CONTESTANTS} | {BARE}
    for name in only:
        if name not in WORKS and name not in names:
            known = ", ".join([*WORKS, *sorted(names)])
            raise click.BadParameter(f"{name!r} is none of {known}", param_hint="--only")
    works = [name for name in WORKS if name in only] or list(WORKS)
    named = names & set(only)
    return works, [contestant for contestant in CONTESTANTS if not named or contestant.name in named]


def _has_bare(only: Sequence[str]) -> bool:
    names = {contestant.name for contestant in CONTESTANTS}
    return BARE in only or not names & set(only)


def _prepare(contestants: Sequence[Contestant]) -> dict[str, str]:
    """Makes the peers' environments; returns who cannot take part, and why."""
    absent: dict[str, str] = {}
    for contestant in contestants:
        reason = None if contestant.environment is None else contestant.environment.prepare()
        if reason is not None:
            absent[contestant.name] = reason
            _say(f"{contestant.name} cannot be installed here: {reason}")
    return absent


def _measure(
    works: Sequence[str],
    contestants: Sequence[Contestant],
    has_bare: bool,
    plan: Plan,
    corpora: Corpora,
    folder: Path,
) -> Iterator[Outcome]:
    files = {kind: write_corpora(folder, kind, plan.throughput_rows).bulk for kind in plan.throughput_texts}
    for round_ in range(1, plan.rounds + 1):
        task = Task(plan, round_, files)
        for work in works:
            yield from _round(work, _in_turn(work, contestants, round_), corpora, task)
            if work == "throughput" and has_bare:
                _say(f"round {round_} of {plan.rounds}: throughput, {BARE}")
                yield Outcome(work, BARE, round_, bare_throughput(task))


def _until_cut(measuring: Iterator[Outcome]) -> tuple[list[Outcome], bool]:
    """All outcomes, or those that there are when a signal ends it; whether one did. None at all: ends."""
    outcomes: list[Outcome] = []
    try:
        for outcome in measuring:
            outcomes.append(outcome)  # noqa: PERF402 - what there is must stay
    except (SystemExit, KeyboardInterrupt):
        if not outcomes:
            raise
        _say("Ended by a signal: the result has what was measured until now")
        return outcomes, True
    return outcomes, False


def _in_turn(work: str, contestants: Sequence[Contestant], round_: int) -> list[Contestant]:
    """Those who take part in a work, beginning with another one in each round."""
    names = _TAKES_PART.get(work)
    able = [contestant for contestant in contestants if names is None or contestant.name in names]
    if work != "throughput":
        able = [contestant for contestant in able if contestant.model == MODEL]
    first = (round_ - 1) % len(able) if able else 0
    return [*able[first:], *able[:first]]


def _round(work: str, contestants: Sequence[Contestant], corpora: Corpora, task: Task) -> Iterator[Outcome]:
    plan = task.plan
    deadline_s = plan.deadline_ms / 1e3 if work == "overload" else NO_DEADLINE_S
    for contestant in contestants:
        _say(f"round {task.round} of {plan.rounds}: {work}, {contestant.name}")
        try:
            with turn(contestant, corpora, deadline_s) as running:
                figures = WORKS[work](running, task)
        except MeasurementFailed as err:
            _say(f"{contestant.name} failed: {err}")
            yield Outcome(work, contestant.name, task.round, {}, str(err))
            continue
        yield Outcome(work, contestant.name, task.round, figures)


def _publish(
    result: Mapping[str, object], as_json: bool, write: bool, out: Path | None, plot_path: Path | None
) -> None:
    text = json.dumps(result, indent=2) + "\n"
    if as_json:
        print(text, end="")
    else:
        report.print_tables(result)
    for path in (RESULT if write else None, out):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            _say(f"The whole result is in {path}")
    for path in (RESULT.with_suffix(".png") if write else None, plot_path):
        if path is not None:
            draw(result, path)
            _say(f"The plot is in {path}")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
