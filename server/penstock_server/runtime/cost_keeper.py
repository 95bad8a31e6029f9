"""Fills the cost tables at start, from files or by a quick sweep, and saves them from time to time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from penstock_server.domain.errors import EngineFailed
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelManifest
from penstock_server.runtime.cost_store import CostKey, CostStore, cost_key
from penstock_server.runtime.cost_sweep import START_BUDGET_S, START_SHAPES, sweep
from penstock_server.runtime.lanes import LocalLane
from penstock_server.scheduling.cost import CostModels, CostTable

# What a crash may cost: a few minutes of learning.
_SAVE_PERIOD_S = 180.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _KeptTable:
    """A table with its file, and how much it had learnt when it was saved."""

    key: CostKey
    table: CostTable
    saved_observations: int = 0


class CostKeeper:
    """Owns the files of the cost tables; the tables belong to the scheduler, on the same event loop.

    Args:
        costs: The tables.
        store: Their files.
        live_lane: Runs the sweep of models that are not known yet.
        threads: Threads that compute on each kind of lane.
    """

    def __init__(
        self, costs: CostModels, store: CostStore, live_lane: LocalLane, threads: Mapping[LaneKind, int]
    ) -> None:
        self._costs = costs
        self._store = store
        self._live_lane = live_lane
        self._threads = threads
        self._kept: list[_KeptTable] = []
        self._saver: asyncio.Task[None] | None = None

    async def start(self, manifests: Sequence[ModelManifest]) -> None:
        """Loads the tables of models whose live engines are built, and sweeps those that are not known.

        Bulk tables are not swept: their first batches scale the prior, and no deadline hangs on them.
        """
        unknown: list[ModelManifest] = []
        for manifest in manifests:
            self._costs.add(manifest.key, manifest.tokens_max)
            for lane in LaneKind:
                is_known = await self._load(manifest, lane)
                if lane is LaneKind.LIVE and not is_known:
                    unknown.append(manifest)
        for manifest in unknown:
            await self._sweep(manifest, START_BUDGET_S / len(unknown))
        self._saver = asyncio.create_task(self._save_now_and_then(), name="cost-keeper")

    async def close(self) -> None:
        """Saves what is new; idempotent."""
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
            self._saver = None
        await self._save()

    async def _load(self, manifest: ModelManifest, lane: LaneKind) -> bool:
        table = self._costs.table(manifest.key, lane)
        try:
            key = await asyncio.to_thread(cost_key, manifest, lane, self._threads[lane])
        except OSError as err:
            # The engine is built, so the graph was there; without it there is nothing to name a file by.
            _log.warning("cost_table_without_file", model=str(manifest.key), why=str(err))
            return False
        state = await asyncio.to_thread(self._store.load, key)
        self._kept.append(_KeptTable(key, table))
        if state is None:
            return False
        if not table.restore(state):
            _log.warning("cost_table_ignored", model=str(manifest.key), why="it does not fit the model")
            return False
        return True

    async def _sweep(self, manifest: ModelManifest, budget_s: float) -> None:
        shapes = [shape for shape in START_SHAPES if shape[1] <= manifest.tokens_max] or [
            (1, manifest.tokens_max)
        ]
        run = self._live_lane.prober(manifest.key)
        try:
            measured = await asyncio.to_thread(sweep, run, shapes, budget_s)
        except EngineFailed as err:
            # Its first batches will tell the same, and fail; that is no reason not to start.
            _log.warning("costs_not_measured", model=str(manifest.key), why=err.message)
            return
        self._costs.table(manifest.key, LaneKind.LIVE).seed(measured)
        runs = sum(map(len, measured.values()))
        _log.info("costs_measured", model=str(manifest.key), shapes=len(measured), runs=runs)

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_PERIOD_S)
            await self._save()

    async def _save(self) -> None:
        """Saves the tables that have learnt since they were saved."""
        for kept in self._kept:
            observations = kept.table.observations
            if observations == kept.saved_observations:
                continue
            if await asyncio.to_thread(self._store.save, kept.key, kept.table.state()):
                kept.saved_observations = observations
