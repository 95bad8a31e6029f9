"""The lane of this process packs the next batch while one runs, and keeps their order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_server.domain.model import ModelManifest
from penstock_server.domain.work import Batch, BatchPart, BatchPlan
from penstock_server.runtime import lanes
from penstock_server.runtime.clock import MonotonicClock
from penstock_server.runtime.lanes import LocalLane
from tests.support.reference_model_tiny import tiny_manifest
from tests.support.work import make_work

TIMEOUT_S = 10


class HeldEngine:
    """Returns the first id of each row, its first batch once the test lets it go."""

    ids_dtype = np.dtype(np.int64)

    def __init__(self) -> None:
        self.go = threading.Event()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        assert self.go.wait(TIMEOUT_S)
        return batch.token_ids[:, :1].astype(np.float32)

    def close(self) -> None:
        return


async def test_batches_behind_the_running_one_are_packed_meanwhile_and_run_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, engine, packed = asyncio.get_running_loop(), HeldEngine(), asyncio.Queue[int]()
    really_pack = lanes.pack

    def build(manifest: ModelManifest, *, threads: int, cpus: Sequence[int]) -> HeldEngine:
        return engine

    def pack(plan: BatchPlan, batch: Batch, pad_id: int) -> None:
        really_pack(plan, batch, pad_id)
        loop.call_soon_threadsafe(packed.put_nowait, plan.rows)

    monkeypatch.setattr(lanes, "build_engine", build)
    monkeypatch.setattr(lanes, "pack", pack)
    manifest = tiny_manifest(tmp_path)
    lane = LocalLane("serial-0", threads=1, clock=MonotonicClock(), slots=2)
    await lane.prepare(manifest)
    plans: list[BatchPlan] = []
    for rows in (1, 2, 3):
        work, _ = make_work([4] * rows, model=manifest.key)
        plans.append(BatchPlan(manifest.key, (BatchPart(work, work.rows),), rows, 4, 4 * rows))
    running = asyncio.gather(*(lane.run(plan) for plan in plans))
    async with asyncio.timeout(TIMEOUT_S):
        assert [await packed.get() for _ in plans] == [1, 2, 3]
    assert not running.done()
    engine.go.set()
    results = await running
    await lane.close()
    assert [result.outputs[:, 0].tolist() for result in results] == [
        [1000.0],
        [1000.0, 1001.0],
        [1000.0, 1001.0, 1002.0],
    ]
    for before, after in pairwise(results):
        assert before.times.end_ns <= after.times.start_ns
