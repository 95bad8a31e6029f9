"""Uploads that expire while the server runs, and those that jobs need."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.uploads import UploadStore
from penstock_server.domain.errors import UnknownUpload
from tests.support.bulk_jobs import Bench, TurnedTime, settle

HOUR_S = 3600
LIMITS = BulkLimits(window_rows=4, disk_free_bytes_min=0, upload_age_s_max=24 * HOUR_S)
ROWS = b'{"id": 1, "text": "a"}\n'


async def test_an_idle_upload_is_deleted_within_an_hour_of_its_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LIMITS)
    time = TurnedTime(bench)
    await bench.start()
    idle = bench.upload("idle.jsonl", ROWS)
    used = bench.upload("used.jsonl", ROWS)
    job = await bench.runner.create(bench.spec(used))
    for _ in range(24):
        assert bench.uploads.path(idle).exists()
        await time.pass_s(HOUR_S)
    await time.pass_s(HOUR_S)
    with pytest.raises(UnknownUpload):
        bench.uploads.get(idle)
    assert bench.uploads.get(used).is_complete
    await bench.finish(job.id)
    await bench.runner.delete(job.id)
    with pytest.raises(UnknownUpload):
        bench.uploads.get(used)
    await bench.stop()


async def test_a_look_that_fails_is_not_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, LIMITS)
    time = TurnedTime(bench)
    await bench.start()
    idle = bench.upload("idle.jsonl", ROWS)
    with monkeypatch.context() as broken:

        def fails(_: UploadStore) -> int:
            raise OSError("The disk is away.")

        broken.setattr(UploadStore, "expire", fails)
        await time.pass_s(25 * HOUR_S)
    assert bench.uploads.get(idle).is_complete
    await time.pass_s(HOUR_S)
    with pytest.raises(UnknownUpload):
        bench.uploads.get(idle)
    await bench.stop()


async def test_an_old_upload_that_a_job_is_being_made_of_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LIMITS)
    await bench.start()
    upload_id = bench.upload("rows.jsonl", ROWS)
    bench.clock.time_ns += 25 * HOUR_S * 1_000_000_000
    bench.uploads.claim(upload_id)
    assert bench.uploads.expire() == 0
    job = await bench.runner.create(bench.spec(upload_id))
    await settle()
    await bench.finish(job.id)
    await bench.runner.delete(job.id)
    with pytest.raises(UnknownUpload):
        bench.uploads.get(upload_id)
    await bench.stop()
