"""Lanes: serial executors of engines, in this process (live) or in the worker process (bulk)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import pack_rows
from penstock_server.domain.errors import EngineFailed
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey, ModelManifest
from penstock_server.domain.work import Batch, BatchPlan, BatchTimes, IdArray
from penstock_server.engines.batches import empty_batch
from penstock_server.engines.cpu import stay_on
from penstock_server.engines.factory import build_engine
from penstock_server.engines.protocol import Engine
from penstock_server.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Outputs of a batch, float32 ``[rows, width]``, and when it ran."""

    outputs: NDArray[np.float32]
    times: BatchTimes


class LaneLost(Exception):
    """The lane's process died; it starts anew by itself.

    Args:
        message: What happened.
        is_suspect: Whether the batch was in the process, and may have killed it.
    """

    def __init__(self, message: str, *, is_suspect: bool = True) -> None:
        super().__init__(message)
        self.is_suspect = is_suspect


class Lane(Protocol):
    """A serial executor: ``slots`` calls of ``run`` may be under way; one computes, the others wait."""

    name: str
    kind: LaneKind
    slots: int

    async def prepare(self, manifest: ModelManifest) -> None:
        """Makes the lane able to run a model version. Raises ModelBroken."""
        ...

    async def run(self, plan: BatchPlan, *, alone: bool = False) -> BatchResult:
        """Runs a batch.

        Args:
            plan: The batch.
            alone: Nothing else may run in the lane's process meanwhile, so that its death has one cause.

        Raises:
            EngineFailed: The engine refuses the batch.
            LaneLost: The lane died under the batch, under another one beside it, or before it was sent.
        """
        ...

    async def close(self) -> None:
        """Frees the lane; idempotent."""
        ...


def pack(plan: BatchPlan, batch: Batch, pad_id: int) -> None:
    """Writes a plan's rows into a batch of its shape; the interpreter lock is released meanwhile."""
    parts = [(part.work.tokens, part.rows) for part in plan.parts]
    pack_rows(parts, plan.padded_length, pad_id, batch.token_ids, batch.attention_mask, batch.type_ids)


class LocalLane:
    """Runs batches on a thread of this process, at normal priority, on an engine with several threads.

    Args:
        name: Its name.
        threads: Of the engine.
        clock: The time.
        slots: Batches that it may be given at once; those that wait are packed beside the one that runs.
        cpus: Where each of the engine's threads stays, the lane's own the first; empty for anywhere.
    """

    kind = LaneKind.LIVE

    def __init__(
        self, name: str, *, threads: int, clock: Clock, slots: int = 1, cpus: Sequence[int] = ()
    ) -> None:
        self.name = name
        self.slots = slots
        self._threads = threads
        self._cpus = cpus
        self._clock = clock
        self._engines: dict[ModelKey, tuple[Engine, ModelManifest]] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=stay_on, initargs=(cpus,))
        self._packer = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{name}-pack")
        self._in_lane = 0

    async def prepare(self, manifest: ModelManifest) -> None:
        """Builds the model version's engine, beside running batches."""
        engine = await asyncio.to_thread(build_engine, manifest, threads=self._threads, cpus=self._cpus)
        self._engines[manifest.key] = (engine, manifest)

    async def run(self, plan: BatchPlan, *, alone: bool = False) -> BatchResult:
        """Packs and runs a batch on the lane's thread; packs it on another one while that is busy."""
        loop = asyncio.get_running_loop()
        self._in_lane += 1
        try:
            if self._in_lane == 1:
                return await loop.run_in_executor(self._executor, self._run, plan)
            # One packing thread, so that batches keep their order.
            batch = await loop.run_in_executor(self._packer, self._pack, plan)
            return await loop.run_in_executor(self._executor, self._compute, plan, batch)
        finally:
            self._in_lane -= 1

    def prober(self, model: ModelKey) -> Callable[[int, int], int]:
        """Returns what measures batches of a shape on the lane, between others.

        The function takes rows and padded length, blocks until its batch has run and returns what it cost, in
        nanoseconds; for any thread but the event loop's. It raises EngineFailed, or RuntimeError if the lane
        is closed.
        """
        engine, manifest = self._engines[model]

        def probe(rows: int, padded_length: int) -> int:
            return self._executor.submit(self._probe, engine, manifest, rows, padded_length).result()

        return probe

    async def close(self) -> None:
        """Waits for a running batch and frees the engines."""
        await asyncio.to_thread(self._packer.shutdown)
        await asyncio.to_thread(self._executor.shutdown)
        for engine, _ in self._engines.values():
            engine.close()
        self._engines.clear()

    def _probe(self, engine: Engine, manifest: ModelManifest, rows: int, padded_length: int) -> int:
        batch = empty_batch(engine, manifest, rows, padded_length)
        start_ns = self._clock.now_ns()
        engine.run(batch)
        return self._clock.now_ns() - start_ns

    def _run(self, plan: BatchPlan) -> BatchResult:
        start_ns = self._clock.now_ns()
        return self._compute(plan, self._pack(plan), start_ns)

    def _pack(self, plan: BatchPlan) -> Batch:
        engine, manifest = self._engines[plan.model]
        shape = (plan.rows, plan.padded_length)
        batch = Batch(*(cast("IdArray", np.empty(shape, engine.ids_dtype)) for _ in range(3)))
        pack(plan, batch, manifest.pad_id)
        return batch

    def _compute(self, plan: BatchPlan, batch: Batch, start_ns: int | None = None) -> BatchResult:
        if start_ns is None:
            start_ns = self._clock.now_ns()
        engine, _ = self._engines[plan.model]
        try:
            outputs = engine.run(batch)
        except EngineFailed:
            raise
        except Exception as err:
            # Whatever an engine raises fails its rows, not the lane.
            raise EngineFailed("The engine failed on this batch.") from err
        end_ns = self._clock.now_ns()
        return BatchResult(outputs, BatchTimes(start_ns, end_ns, end_ns - start_ns))
