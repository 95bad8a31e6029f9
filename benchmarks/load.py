"""Open-loop load on a server: live calls alone, beside a saturating bulk job, and bulk alone, by turns.

    python -m benchmarks.load --rate 25 --rounds 2 --phase-s 20 --out result.json

Live calls arrive as a Poisson process whatever the server does, and latency counts from the time at which a
call was due, so a stall is paid for by every call that should have been sent during it. Within a round the
live phases repeat the very same arrivals and texts. Without ``--address`` a server is started here.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks.bulk import BulkLoad
from benchmarks.generator import Generators, LiveLoad, Samples
from benchmarks.machine import describe_machine, read_cpu_time
from benchmarks.report import Phase, phase_figures, pooled, print_table
from benchmarks.texts import TextKind
from tests.support.server import server_process

LIVE, BOTH, BULK = "live", "live+bulk", "bulk"
_WARM_UP_S = 3.0
# Between the order and the first arrival, so that all processes have it in time.
_LEAD_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a measurement, as they go into the result."""

    model: str
    task: str
    texts: TextKind
    rows: int
    rate: float
    phases: tuple[str, ...]
    phase_s: float
    rounds: int
    processes: int
    bulk_rows: int
    timeout_s: float
    goal_ms: float
    seed: int


@click.command(context_settings={"show_default": True})
@click.option("--address", help="Server to load.  [default: one is started here]")
@click.option("--model", default="minilm", help="Model that answers.")
@click.option("--task", type=click.Choice(["embed", "classify"]), default="embed", help="What it computes.")
@click.option("--texts", type=click.Choice([kind.value for kind in TextKind]), default="mixed", help="Texts.")
@click.option("--rows", type=click.IntRange(1, 1024), default=1, help="Texts in each live call.")
@click.option("--rate", type=click.FloatRange(0.1, 100_000), default=25.0, help="Live calls a second.")
@click.option("--phases", default=f"{LIVE},{BOTH},{BULK}", help="Phases of a round, in this order.")
@click.option("--phase-s", type=click.FloatRange(1, 3_600), default=20.0, help="Seconds of each phase.")
@click.option("--rounds", type=click.IntRange(1, 100), default=2, help="How often the phases are repeated.")
@click.option("--processes", type=click.IntRange(1, 64), default=2, help="Client processes.")
@click.option("--bulk-rows", type=click.IntRange(1, 400_000), default=40_000, help="Rows of each bulk job.")
@click.option("--timeout-s", type=click.FloatRange(0.001, 600), default=10.0, help="Deadline of live calls.")
@click.option("--goal-ms", type=click.FloatRange(0.1), default=100.0, help="Goodput: answers within this.")
@click.option("--seed", type=int, default=1, help="Of arrivals and texts.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File for the JSON result.")
def main(address: str | None, texts: str, phases: str, out: Path | None, **options: object) -> None:
    """Measure latency and throughput of live calls and bulk jobs."""
    plan = Plan(texts=TextKind(texts), phases=_phases(phases), **options)  # type: ignore[arg-type]
    started = datetime.now(UTC)
    machine = describe_machine()
    with _server(address) as (at, pid):
        measured = measure(plan, at, pid)
    result = {
        "started": started.isoformat(timespec="seconds"),
        "machine": machine,
        "plan": {**asdict(plan), "texts": plan.texts.value},
        "summary": [phase_figures(phase, plan.rows, plan.goal_ms) for phase in pooled(measured)],
        "phases": [phase_figures(phase, plan.rows, plan.goal_ms) for phase in measured],
    }
    print_table(pooled(measured), plan.rows, plan.goal_ms)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"The whole result is in {out}")


def measure(plan: Plan, address: str, server_pid: int | None) -> list[Phase]:
    """Runs all phases of all rounds."""
    load = LiveLoad(address, plan.model, plan.task, plan.texts, plan.rows, plan.timeout_s)
    bulk = None
    if any(phase != LIVE for phase in plan.phases):
        bulk = BulkLoad(address, plan.model, plan.task, plan.texts, plan.bulk_rows)
    measured: list[Phase] = []
    with Generators(load, plan.processes) as generators:
        generators.begin(time.monotonic() + _LEAD_S, _WARM_UP_S, plan.rate, f"{plan.seed}/warm-up")
        _check(generators.collect(_LEAD_S + _WARM_UP_S + plan.timeout_s + 5.0), plan)
        for round_ in range(1, plan.rounds + 1):
            for name in plan.phases:
                print(f"round {round_} of {plan.rounds}: {name}, {plan.phase_s:g} s", file=sys.stderr)
                measured.append(_run_phase(plan, name, round_, generators, bulk, server_pid))
    if bulk is not None:
        bulk.close()
    return measured


def _check(warm_up: Samples, plan: Plan) -> None:
    """Ends a measurement that would measure errors only."""
    if warm_up.statuses and "OK" not in warm_up.statuses:
        raise click.ClickException(
            f"No call of the warm-up was answered: {warm_up.statuses}. Does the server have the model "
            f"{plan.model!r} (`make build` fetches the demo models), and does it do {plan.task}?"
        )


def _run_phase(
    plan: Plan,
    name: str,
    round_: int,
    generators: Generators,
    bulk: BulkLoad | None,
    server_pid: int | None,
) -> Phase:
    phase = Phase(name, round_, plan.phase_s)
    run = bulk.begin() if bulk is not None and name != LIVE else None
    start_s = time.monotonic() + _LEAD_S
    if name != BULK:
        generators.begin(start_s, plan.phase_s, plan.rate, f"{plan.seed}/{round_}")
    time.sleep(max(0.0, start_s - time.monotonic()))
    before = read_cpu_time(time.monotonic(), server_pid, generators.pids)
    if run is not None:
        run.mark()
    time.sleep(max(0.0, start_s + plan.phase_s - time.monotonic()))
    phase.cores = read_cpu_time(time.monotonic(), server_pid, generators.pids).cores_since(before)
    if run is not None:
        phase.bulk = run.end()
    if name != BULK:
        phase.samples = generators.collect(plan.timeout_s + 5.0)
    return phase


@contextmanager
def _server(address: str | None) -> Generator[tuple[str, int | None]]:
    """The server under load and, if it was started here, its process id."""
    if address is not None:
        yield address, None
        return
    with tempfile.TemporaryDirectory() as folder, server_process(Path(folder) / "data") as server:
        yield server.address, server.process.pid
        server.terminate()


def _phases(names: str) -> tuple[str, ...]:
    phases = tuple(name.strip() for name in names.split(","))
    wrong = [name for name in phases if name not in (LIVE, BOTH, BULK)]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not one of {LIVE}, {BOTH}, {BULK}", param_hint="--phases")
    return phases


if __name__ == "__main__":
    main()
