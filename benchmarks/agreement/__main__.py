"""Simulator and server on the same arrivals: ``python -m benchmarks.agreement --seconds 15 --rounds 3``.

A server with a trace is loaded by turns, drained, and what it recorded is replayed in the simulator with the
costs that it has learnt. docs/benchmarks/README.md tells how to read the figures.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import click

from benchmarks.agreement.figures import Figures, medians, percentile
from benchmarks.agreement.replay import Speed, cut, over_table, read_records, simulate
from benchmarks.agreement.report import Agreement, as_json, print_agreements
from benchmarks.agreement.stretches import (
    CONDITIONS,
    Condition,
    Stretch,
    costs_of,
    running_bench,
    trace_of,
)
from benchmarks.machine import describe_machine
from benchmarks.texts import TextKind
from penstock_server.domain.trace import TraceRecord


@click.command(context_settings={"show_default": True})
@click.option("--seconds", type=click.FloatRange(2, 600), default=18.0, help="Length of each stretch.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, help="Turns of each condition.")
@click.option("--rate", type=click.FloatRange(0.5, 1_000), default=20.0, help="Live calls a second.")
@click.option("--settle", type=click.FloatRange(2, 600), default=30.0, help="Seconds to learn costs before.")
@click.option("--texts", type=click.Choice([kind.value for kind in TextKind]), default="mixed", help="Texts.")
@click.option("--seed", type=int, default=1, help="Of arrivals, texts and simulated noise.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON to this file.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="New folder for trace and costs."
)
def main(
    seconds: float,
    rounds: int,
    rate: float,
    settle: float,
    texts: str,
    seed: int,
    is_json: bool,
    out: Path | None,
    keep: Path | None,
) -> None:
    """Compare the simulator with a server on what the server recorded."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="agreement-") as scratch:
        folder = (keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        stretches = _measure(folder, TextKind(texts), seconds, rounds, rate, settle, seed)
        agreements = _compare(folder, stretches, seed)
    result = {
        "started": started,
        "machine": describe_machine(),
        "plan": {"seconds": seconds, "rounds": rounds, "rate": rate, "texts": texts, "seed": seed},
        "latency": "server: answer's timings, total less tokenise; simulator: submission to delivery",
        "conditions": as_json(agreements),
    }
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if is_json:
        click.echo(json.dumps(result, indent=2))
    else:
        print_agreements(agreements)


def _measure(
    folder: Path, kind: TextKind, seconds: float, rounds: int, rate: float, settle: float, seed: int
) -> list[Stretch]:
    """All stretches, by turns; what is learnt before them counts for costs only."""
    stretches: list[Stretch] = []
    with running_bench(folder, kind, seed) as bench:
        click.echo(f"settling, {settle:g} s", err=True)
        bench.measure(Condition("poisson", has_bulk=True), rate, settle, 0)
        for round_ in range(1, rounds + 1):
            turn = round_ % len(CONDITIONS)
            for condition in (*CONDITIONS[turn:], *CONDITIONS[:turn]):
                click.echo(f"round {round_} of {rounds}: {condition.name}, {seconds:g} s", err=True)
                stretches.append(bench.measure(condition, rate, seconds, round_))
    return stretches


def _compare(folder: Path, stretches: Sequence[Stretch], seed: int) -> dict[str, Agreement]:
    """Replays each stretch, and takes medians over rounds."""
    records = read_records(trace_of(folder))
    agreements: dict[str, Agreement] = {}
    for condition in CONDITIONS:
        own = [stretch for stretch in stretches if stretch.condition == condition]
        agreements[condition.name] = _agreement(folder, records, own, seed)
    return agreements


def _agreement(folder: Path, records: Sequence[TraceRecord], own: Sequence[Stretch], seed: int) -> Agreement:
    """One condition: as the simulator is, and with the machine as fast as it was in each stretch."""
    costs = costs_of(folder)
    calls = [call for stretch in own for call in stretch.calls]
    clients, ratios = [call.client for call in calls], over_table(calls, costs)
    cuts = [
        cut(records, each.tenant, each.flow, each.calls, each.start_s, folder / f"{each.tenant}.jsonl")
        for each in own
    ]

    speeds = [Speed.measured(each.calls, costs, folder / f"{each.tenant}.residuals") for each in own]

    def simulated(speeds: Sequence[Speed]) -> Figures:
        runs = enumerate(zip(cuts, own, speeds, strict=True))
        return medians(
            [simulate(replay, costs, each.seconds, speed, seed + n) for n, (replay, each, speed) in runs]
        )

    return Agreement(
        served=medians([stretch.figures for stretch in own]),
        simulated=simulated([Speed.supposed()] * len(own)),
        adjusted=simulated(speeds),
        client_p50_ms=percentile(clients, 50),
        client_p99_ms=percentile(clients, 99),
        over_table=(percentile(ratios, 50), percentile(ratios, 90)),
        gap_ms=percentile([speed.gap_ms for speed in speeds], 50),
        rest_ms=percentile([speed.rest_ms for speed in speeds], 50),
        others=max(stretch.others for stretch in own),
        client=max(stretch.client for stretch in own),
    )


def _stop(number: int, _: FrameType | None) -> None:
    """Ends as by Ctrl-C, so that server and client are ended."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
