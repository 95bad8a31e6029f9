from __future__ import annotations

from pathlib import Path

import pytest

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelManifest
from penstock_server.runtime.clock import MonotonicClock
from penstock_server.runtime.cost_keeper import CostKeeper
from penstock_server.runtime.cost_store import CostStore
from penstock_server.runtime.lanes import LocalLane
from penstock_server.scheduling.cost import CostModels, CostTable
from tests.support.reference_model_tiny import tiny_manifest

THREADS = {LaneKind.LIVE: 1, LaneKind.BULK: 1}


class Life:
    """One life of a server, as far as costs go."""

    def __init__(self, folder: Path, manifest: ModelManifest) -> None:
        self.manifest = manifest
        self.costs = CostModels()
        self.lane = LocalLane("live-0", threads=1, clock=MonotonicClock())
        self.keeper = CostKeeper(self.costs, CostStore(folder), self.lane, THREADS)

    async def start(self) -> None:
        await self.lane.prepare(self.manifest)
        await self.keeper.start([self.manifest])

    async def stop(self) -> None:
        await self.keeper.close()
        await self.lane.close()

    def table(self, lane: LaneKind) -> CostTable:
        return self.costs.table(self.manifest.key, lane)


async def test_first_start_measures_and_the_second_one_remembers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tiny_manifest(tmp_path)
    first = Life(tmp_path / "costs", manifest)
    await first.start()
    prior = CostTable(LaneKind.LIVE, manifest.tokens_max)
    # A table lookup is no transformer: far below any prior.
    assert first.table(LaneKind.LIVE).predict(1, 8).median_ns < prior.predict(1, 8).median_ns / 2
    for _ in range(30):
        first.table(LaneKind.LIVE).observe(2, 8, 5_000_000)
        first.table(LaneKind.BULK).observe(4, 8, 7_000_000)
    await first.stop()
    assert "costs_measured" in capsys.readouterr().out

    second = Life(tmp_path / "costs", manifest)
    await second.start()
    assert second.table(LaneKind.LIVE).predict(2, 8).median_ns == pytest.approx(5e6, rel=0.05)
    assert second.table(LaneKind.BULK).predict(4, 8).median_ns == pytest.approx(7e6, rel=0.05)
    assert second.table(LaneKind.LIVE).length_points[-1] >= manifest.tokens_max
    await second.stop()
    assert "costs_measured" not in capsys.readouterr().out


async def test_stopping_twice_and_learning_nothing_writes_nothing(tmp_path: Path) -> None:
    life = Life(tmp_path / "costs", tiny_manifest(tmp_path))
    await life.start()
    await life.stop()
    await life.keeper.close()
    # What a sweep found is found again as fast as read, and may have been a bad moment.
    assert not (tmp_path / "costs").exists()


async def test_broken_file_is_measured_anew(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path)
    first = Life(tmp_path / "costs", manifest)
    await first.start()
    first.table(LaneKind.LIVE).observe(2, 8, 5_000_000)
    await first.stop()
    (path,) = (tmp_path / "costs").iterdir()
    path.write_text("{")
    second = Life(tmp_path / "costs", manifest)
    await second.start()
    assert second.table(LaneKind.LIVE).predict(2, 8).median_ns < 5_000_000
    await second.stop()


async def test_graph_that_has_gone_costs_the_file_and_not_the_start(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path)
    life = Life(tmp_path / "costs", manifest)
    await life.lane.prepare(manifest)
    manifest.onnx_path.unlink()
    await life.keeper.start([manifest])
    life.table(LaneKind.LIVE).observe(2, 8, 5_000_000)
    await life.stop()
    assert not (tmp_path / "costs").exists()
