"""How well costs are predicted: real batches of real lengths, recorded once and learnt from in many orders.

    python -m benchmarks.costs --model minilm --seconds 30 --out result.json

Batches are made as the scheduler makes them: live ones of a few texts of any length, bulk ones of texts of
one length up to 256 or 512 tokens. A live table knows what a first start's sweep tells; tables predict each
batch before they learn from it, and every order is another. Once all batches were seen, they come again.
"""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe_machine
from benchmarks.texts import TextKind, live_texts
from penstock_server.config import usable_cores
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.tasks import Truncation
from penstock_server.engines.cpu import own_cpus, staying_on
from penstock_server.engines.factory import build_engine
from penstock_server.models.repository import ModelRepository
from penstock_server.runtime.cost_sweep import START_BUDGET_S, START_SHAPES, Shape, runner, sweep
from penstock_server.scheduling.cost import CostTable
from penstock_server.text.tokenizer import Tokenizer

# By how many batches the table has learnt from.
_STAGES = (0, 20, 100, 250, 1000, 1500)
_ORDERS = 20
_LIVE_TOKENS_MAX = 512
_LIVE_ROWS_P = 0.35
_BULK_TOKENS = (256, 256, 256, 512)

Record = list[tuple[int, int, int]]


@click.command(context_settings={"show_default": True})
@click.option("--model", default="minilm", help="Model to run.")
@click.option("--models", "root", type=click.Path(path_type=Path), default=Path("models"), help="Its folder.")
@click.option("--seconds", type=click.FloatRange(1, 600), default=30.0, help="Time to record each lane.")
@click.option("--seed", type=int, default=1, help="Of batches and orders.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File for the JSON result.")
def main(model: str, root: Path, seconds: float, seed: int, out: Path | None) -> None:
    """Measure how well costs are predicted."""
    repository = ModelRepository(root)
    manifest = repository.manifest(repository.newest(model))
    result: dict[str, object] = {"machine": describe_machine(), "model": model, "seed": seed}
    for lane in LaneKind:
        seen, swept = record(manifest, lane, seconds, random.Random(seed))
        result[lane.value] = figures = replay(lane, manifest.tokens_max, seen, swept, seed)
        print(f"{lane.value}: {len(seen)} batches recorded, {_ORDERS} orders")
        for line in figures:
            print("  " + "  ".join(f"{name} {value}" for name, value in line.items()))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def record(
    manifest: ModelManifest, lane: LaneKind, seconds: float, rng: random.Random
) -> tuple[Record, dict[Shape, list[int]]]:
    """Runs batches for some time; returns rows, length and nanoseconds of each, and a sweep made before."""
    is_live = lane is LaneKind.LIVE
    threads = usable_cores() if is_live else 1
    cpus = own_cpus(threads)
    engine = build_engine(manifest, threads=threads, cpus=cpus)
    run = runner(engine, manifest, time.monotonic_ns if is_live else time.thread_time_ns)
    lengths = _lengths(manifest)
    draw = _live_shape if is_live else _bulk_shape
    seen: Record = []
    with staying_on(cpus):
        swept = sweep(run, START_SHAPES, START_BUDGET_S)
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            rows, length = draw(lengths, rng)
            seen.append((rows, length, run(rows, length)))
    engine.close()
    return seen, swept


def replay(
    lane: LaneKind, tokens_max: int, seen: Record, swept: dict[Shape, list[int]], seed: int
) -> list[dict[str, object]]:
    """Learns from the record in many orders; tells errors by how much had been learnt."""
    rng = np.random.default_rng(seed)
    orders = [_one_life(lane, tokens_max, seen, swept, rng) for _ in range(_ORDERS)]
    errors = np.array([order[0] for order in orders])
    ratios = np.array([order[1] for order in orders])
    exceeded = np.array([order[2] for order in orders])
    figures: list[dict[str, object]] = []
    for first, last in pairwise(_STAGES):
        stage = slice(first, last)
        figures.append(
            {
                "batches": f"{first}-{last}",
                "error_median": round(float(np.median(errors[:, stage])), 4),
                "error_p90": round(float(np.quantile(errors[:, stage], 0.9)), 4),
                "above_upper": round(float(exceeded[:, stage].mean()), 4),
                "upper_over_median": round(float(np.median(ratios[:, stage])), 3),
            }
        )
    return figures


def _one_life(
    lane: LaneKind,
    tokens_max: int,
    seen: Record,
    swept: dict[Shape, list[int]],
    rng: np.random.Generator,
) -> tuple[list[float], list[float], list[bool]]:
    table = CostTable(lane, tokens_max)
    if lane is LaneKind.LIVE:
        table.seed(swept)
    rounds = 1 + _STAGES[-1] // len(seen)
    order = np.concatenate([rng.permutation(len(seen)) for _ in range(rounds)])[: _STAGES[-1]]
    errors: list[float] = []
    ratios: list[float] = []
    exceeded: list[bool] = []
    for index in order:
        rows, length, actual_ns = seen[int(index)]
        cost = table.predict(rows, length)
        errors.append(abs(actual_ns / cost.median_ns - 1))
        ratios.append(cost.upper_ns / cost.median_ns)
        exceeded.append(actual_ns > cost.upper_ns)
        table.observe(rows, length, actual_ns)
    return errors, ratios, exceeded


def _lengths(manifest: ModelManifest) -> NDArray[np.int32]:
    tokenizer = Tokenizer.from_file(manifest.tokenizer_path)
    texts = live_texts(TextKind.MIXED)
    return tokenizer.encode(texts, tokens_max=manifest.tokens_max, truncation=Truncation.RIGHT).lengths


def _live_shape(lengths: NDArray[np.int32], rng: random.Random) -> Shape:
    """Mostly one to four texts that came together, padded to the longest."""
    rows = 1
    while rng.random() > _LIVE_ROWS_P:
        rows += 1
    length = max(int(lengths[rng.randrange(len(lengths))]) for _ in range(rows))
    return max(1, min(rows, _LIVE_TOKENS_MAX // length)), length


def _bulk_shape(lengths: NDArray[np.int32], rng: random.Random) -> Shape:
    """Texts of about one length, as a sorted window gives them."""
    length = int(lengths[rng.randrange(len(lengths))])
    return max(1, rng.choice(_BULK_TOKENS) // length), length


if __name__ == "__main__":
    main()
