"""Recurring jobs: one for each file that is new, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.schedules import FileVersion, ScheduleStore
from penstock_server.domain.errors import Draining, InvalidRequest, UnknownModel, UnknownSchedule
from penstock_server.domain.job import Job
from penstock_server.domain.model import ModelKey
from penstock_server.domain.schedule import Schedule, ScheduleSpec
from penstock_server.runtime.schedules import ScheduleRunner
from tests.support.bulk_jobs import SECOND_NS, Bench, TurnedTime, running_bench, settle

# The clock begins one second after 1970 began.
EVERY_HOUR = "0 * * * *"
HOUR_S = 3600


class ScheduleBench:
    """A bench with a folder of inputs and schedules."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.folder = folder
        self.time = TurnedTime(bench)
        self.jobs_max = 100
        self.start()

    def start(self) -> None:
        bench = self.bench
        assert bench.database is not None
        self.store = ScheduleStore(bench.database, bench.limits, bench.clock.now_ns)
        self.schedules = ScheduleRunner(
            self.store,
            bench.runner,
            day_ns=bench.clock.now_ns,
            jobs_max=self.jobs_max,
            expire_s_max=bench.limits.expire_s_max,
            sleep=lambda seconds: bench.sleep(seconds),
        )
        self.schedules.start()

    def put(self, name: str, text: str, *, age_s: float = 100.0) -> None:
        """Writes a file of one row, so many seconds ago."""
        path = self.folder / name
        path.write_text(f'{{"id": "k", "text": "{text}"}}\n', encoding="utf-8")
        time_ns = self.bench.clock.time_ns - round(age_s * SECOND_NS)
        os.utime(path, ns=(time_ns, time_ns))

    async def create(self, pattern: str = "", **changes: Any) -> Schedule:
        spec = self.bench.spec("", input_url=f"{self.folder}/{pattern}")
        return await self.schedules.create(
            replace(ScheduleSpec(spec, EVERY_HOUR, "", quiet_s=10, expire_after_s=None), **changes)
        )

    async def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        return list(reversed((await self.bench.runner.page(1000, "", ())).jobs))

    async def inputs(self) -> list[str]:
        return [Path(job.spec.input_url).name for job in await self.jobs()]


@pytest.fixture
async def target(tmp_path: Path) -> AsyncGenerator[ScheduleBench]:
    folder = tmp_path / "in"
    folder.mkdir()
    limits = BulkLimits(disk_free_bytes_min=0, input_roots=(str(tmp_path),), schedules_max=3)
    async with running_bench(tmp_path / "data", limits) as bench:
        bench.clock.time_ns += 1000 * SECOND_NS
        found = ScheduleBench(bench, folder)
        yield found
        await found.schedules.close()


async def test_each_time_has_a_job_for_each_new_file(target: ScheduleBench) -> None:
    target.put("a.jsonl", "a")
    target.put("b.jsonl", "b")
    schedule = await target.create()
    await settle()
    assert await target.jobs() == []
    await target.time.pass_s(HOUR_S)
    assert await target.inputs() == ["a.jsonl", "b.jsonl"]
    target.put("c.jsonl", "c")
    await target.time.pass_s(HOUR_S)
    assert await target.inputs() == ["a.jsonl", "b.jsonl", "c.jsonl"]
    await target.time.pass_s(HOUR_S)
    after = await target.schedules.get(schedule.id)
    assert after.last_run is not None
    assert (after.last_run.jobs, after.last_run.files_left, after.last_run.error) == (0, 0, None)
    for job, text in zip(await target.jobs(), "abc", strict=True):
        assert (await target.bench.finish(job.id)).progress.succeeded == 1
        assert [row.answer for row in await target.bench.read(job.id)] == target.bench.expected([text])


async def test_a_file_that_has_changed_is_new_again(target: ScheduleBench) -> None:
    target.put("a.jsonl", "a")
    schedule = await target.create()
    _, first = await target.schedules.run(schedule.id)
    target.put("a.jsonl", "b", age_s=50)
    _, second = await target.schedules.run(schedule.id)
    _, third = await target.schedules.run(schedule.id)
    assert (len(first), len(second), len(third)) == (1, 1, 0)


async def test_one_file_may_be_watched(target: ScheduleBench) -> None:
    target.put("today.jsonl", "a")
    target.put("other.jsonl", "b")
    schedule = await target.create("today.jsonl")
    await target.schedules.run(schedule.id)
    target.put("today.jsonl", "c", age_s=50)
    await target.schedules.run(schedule.id)
    assert await target.inputs() == ["today.jsonl", "today.jsonl"]


async def test_a_file_that_may_still_be_written_is_left(target: ScheduleBench) -> None:
    target.put("old.jsonl", "a", age_s=10)
    target.put("young.jsonl", "b", age_s=9)
    schedule = await target.create()
    after, _ = await target.schedules.run(schedule.id)
    assert after.last_run is not None
    assert (after.last_run.jobs, after.last_run.files_left) == (1, 1)
    await target.time.pass_s(1)
    await target.schedules.run(schedule.id)
    assert await target.inputs() == ["old.jsonl", "young.jsonl"]


async def test_a_run_makes_so_many_jobs_and_leaves_the_rest(target: ScheduleBench) -> None:
    await target.schedules.close()
    target.jobs_max = 2
    target.start()
    for name in "abcde":
        target.put(f"{name}.jsonl", name)
    schedule = await target.create()
    left: list[int] = []
    for _ in range(3):
        after, _ = await target.schedules.run(schedule.id)
        assert after.last_run is not None
        left.append(after.last_run.files_left)
    assert left == [3, 1, 0]
    assert await target.inputs() == [f"{name}.jsonl" for name in "abcde"]


async def test_times_that_passed_while_the_server_was_down_are_one_run(
    target: ScheduleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = await target.create()
    await target.schedules.close()
    target.put("a.jsonl", "a")
    target.bench.clock.time_ns += 5 * HOUR_S * SECOND_NS
    runs = 0
    ran = ScheduleStore.ran

    def count(store: ScheduleStore, *arguments: Any) -> Schedule:
        nonlocal runs
        runs += 1
        return ran(store, *arguments)

    monkeypatch.setattr(ScheduleStore, "ran", count)
    target.start()
    await settle()
    assert runs == 1
    after = await target.schedules.get(schedule.id)
    assert await target.inputs() == ["a.jsonl"]
    assert after.last_run is not None
    assert after.due_ns is not None
    assert 0 < after.due_ns - after.last_run.time_ns <= HOUR_S * SECOND_NS


async def test_a_server_that_dies_before_it_has_noted_a_file_makes_no_second_job(
    target: ScheduleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.put("a.jsonl", "a")
    target.put("b.jsonl", "b")
    schedule = await target.create()

    def die(*_: object) -> None:
        raise OSError("power loss")

    monkeypatch.setattr(ScheduleStore, "took", die)
    after, job_ids = await target.schedules.run(schedule.id)
    assert job_ids == []
    assert after.last_run is not None
    assert after.last_run.error is not None
    assert after.last_run.error.reason == "INTERNAL"
    await target.schedules.close()
    monkeypatch.undo()
    target.start()
    await target.schedules.run(schedule.id)
    assert await target.inputs() == ["a.jsonl", "b.jsonl"]


async def test_a_file_that_no_job_can_be_made_of_is_told_and_the_others_go_on(target: ScheduleBench) -> None:
    target.put("a.jsonl", "a")
    target.put("b.pdf", "b")
    target.put("c.jsonl", "c")
    spec = target.bench.spec("", input_url=f"{target.folder}/*", input_format=None)
    schedule = await target.create(job=spec)
    after, job_ids = await target.schedules.run(schedule.id)
    assert after.last_run is not None
    assert after.last_run.error is not None
    assert "b.pdf" in after.last_run.error.message
    assert (len(job_ids), after.last_run.files_left) == (2, 1)


async def test_a_run_that_finds_no_files_says_so_or_nothing(target: ScheduleBench) -> None:
    schedule = await target.create()
    after, job_ids = await target.schedules.run(schedule.id)
    assert after.last_run is not None
    # An empty folder is nothing wrong: files are to come.
    assert (job_ids, after.last_run.error) == ([], None)
    target.folder.rmdir()
    after, _ = await target.schedules.run(schedule.id)
    assert after.last_run is not None
    assert after.last_run.error is not None


async def test_a_paused_schedule_lets_its_times_pass(target: ScheduleBench) -> None:
    target.put("a.jsonl", "a")
    schedule = await target.create()
    paused = await target.schedules.pause(schedule.id)
    assert (paused.is_paused, paused.due_ns) == (True, None)
    await target.time.pass_s(3 * HOUR_S)
    assert await target.jobs() == []
    after, job_ids = await target.schedules.run(schedule.id)
    assert (after.is_paused, len(job_ids)) == (True, 1)
    resumed = await target.schedules.resume(schedule.id)
    assert resumed.due_ns is not None
    target.put("b.jsonl", "b")
    await target.time.pass_s(HOUR_S)
    assert await target.inputs() == ["a.jsonl", "b.jsonl"]


async def test_each_job_has_the_run_s_expire_time(target: ScheduleBench) -> None:
    target.put("a.jsonl", "a")
    schedule = await target.create(expire_after_s=60)
    await target.schedules.run(schedule.id)
    (job,) = await target.jobs()
    assert job.spec.expire_time_ns == target.time.in_s(60)


async def test_a_deleted_schedule_is_gone_and_its_jobs_are_not(target: ScheduleBench) -> None:
    target.put("a.jsonl", "a")
    schedule = await target.create()
    await target.schedules.run(schedule.id)
    await target.schedules.delete(schedule.id)
    await target.time.pass_s(2 * HOUR_S)
    assert len(await target.jobs()) == 1
    for command in (target.schedules.get, target.schedules.run, target.schedules.delete):
        with pytest.raises(UnknownSchedule):
            await command(schedule.id)


async def test_a_second_request_of_an_id_makes_no_second_schedule(target: ScheduleBench) -> None:
    spec = (await target.create()).spec
    first = await target.schedules.create(spec, "mine")
    assert (await target.schedules.create(spec, "mine")).id == first.id
    page = await target.schedules.page(1, "", None)
    assert [each.id for each in page.schedules] == [first.id]
    rest = await target.schedules.page(5, page.next_page_token, None)
    assert len(rest.schedules) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "never"}, "spec.cron"),
        ({"cron": "0 0 31 2 *"}, "spec.cron"),
        ({"time_zone": "Mars/Olympus"}, "spec.time_zone"),
        ({"quiet_s": -1}, "spec.quiet_seconds"),
        ({"expire_after_s": 400 * 24 * 3600}, "spec.expire_after_seconds"),
    ],
)
async def test_a_schedule_that_cannot_work_is_refused(
    target: ScheduleBench, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{re.escape(field)}: "):
        await target.create(**changes)


async def test_a_schedule_of_no_model_or_outside_of_the_roots_is_refused(target: ScheduleBench) -> None:
    job = target.bench.spec("", input_url=f"{target.folder}/")
    with pytest.raises(UnknownModel):
        await target.create(job=replace(job, model=ModelKey("none", "")))
    with pytest.raises(InvalidRequest, match="end it in a slash"):
        await target.create(job=replace(job, input_url=str(target.folder)))
    with pytest.raises(InvalidRequest, match="input_roots"):
        await target.create(job=replace(job, input_url="/etc/*.conf"))


async def test_bad_names_do_not_keep_the_others_from_their_jobs(target: ScheduleBench) -> None:
    await target.schedules.close()
    target.jobs_max = 2
    target.start()
    for name in ("a.pdf", "b.pdf", "c.pdf", "d.jsonl", "e.jsonl", "f.jsonl"):
        target.put(name, name[0])
    spec = target.bench.spec("", input_url=f"{target.folder}/*", input_format=None)
    schedule = await target.create(job=spec)
    await target.schedules.run(schedule.id)
    await target.schedules.run(schedule.id)
    assert await target.inputs() == ["d.jsonl", "e.jsonl", "f.jsonl"]


@pytest.mark.parametrize("command", ["pause", "delete"])
async def test_a_run_stops_when_its_schedule_does(
    target: ScheduleBench, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name in "abc":
        target.put(f"{name}.jsonl", name)
    schedule = await target.create()
    took = ScheduleStore.took

    def take_one(store: ScheduleStore, schedule_id: str, file: FileVersion) -> None:
        took(store, schedule_id, file)
        if command == "pause":
            store.set_due(schedule_id, None)
        else:
            store.delete(schedule_id)

    monkeypatch.setattr(ScheduleStore, "took", take_one)
    await target.time.pass_s(HOUR_S)
    assert await target.inputs() == ["a.jsonl"]
    if command == "pause":
        after = await target.schedules.get(schedule.id)
        assert (after.is_paused, after.due_ns) == (True, None)


async def test_a_file_that_comes_back_as_it_was_is_no_new_job(target: ScheduleBench) -> None:
    target.put("a.jsonl", "a")
    schedule = await target.create()
    await target.schedules.run(schedule.id)
    target.put("a.jsonl", "b", age_s=50)
    target.bench.clock.time_ns += SECOND_NS
    await target.schedules.run(schedule.id)
    target.put("a.jsonl", "a", age_s=101)
    after, job_ids = await target.schedules.run(schedule.id)
    assert after.last_run is not None
    assert (job_ids, after.last_run.jobs, after.last_run.files_left) == ([], 0, 0)


async def test_a_folder_that_is_away_for_a_while_makes_nothing_new(target: ScheduleBench) -> None:
    target.put("a.jsonl", "a")
    schedule = await target.create()
    _, (job_id,) = await target.schedules.run(schedule.id)
    await settle()
    await target.bench.finish(job_id)
    await target.bench.runner.delete(job_id)
    away = target.folder.rename(target.folder.with_name("away"))
    target.folder.mkdir()
    await target.schedules.run(schedule.id)
    target.folder.rmdir()
    away.rename(target.folder)
    _, job_ids = await target.schedules.run(schedule.id)
    assert job_ids == []


async def test_links_that_lead_astray_and_names_no_url_tells_leave_the_others_alone(
    target: ScheduleBench, tmp_path: Path
) -> None:
    target.put("a.jsonl", "a")
    target.put("b*c.jsonl", "b")
    (target.folder / "loop.jsonl").symlink_to(target.folder / "loop.jsonl")
    (target.folder / "out.jsonl").symlink_to("/etc/hostname")
    (tmp_path / "store").mkdir()
    target.put("../store/123", "d")
    (target.folder / "named.jsonl").symlink_to(tmp_path / "store" / "123")
    spec = target.bench.spec("", input_url=f"{target.folder}/", input_format=None)
    schedule = await target.create(job=spec)
    after, job_ids = await target.schedules.run(schedule.id)
    assert after.last_run is not None
    assert (len(job_ids), after.last_run.error) == (2, None)
    # What leads nowhere is no file at all.
    assert after.last_run.files_left == 2
    assert await target.inputs() == ["a.jsonl", "123"]


async def test_a_run_that_looks_for_long_ends_with_the_server(
    target: ScheduleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = await target.create()

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(target.bench.files, "find", never, raising=False)
    running = asyncio.create_task(target.schedules.run(schedule.id))
    await settle()
    await target.schedules.close()
    with pytest.raises(Draining):
        await running
    assert (await target.schedules.get(schedule.id)).last_run is None
