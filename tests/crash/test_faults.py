"""A server whose disk is full, or fails its fsyncs: what it says, and that no job is wrong later."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import grpc
import pytest

from penstock import JobState, PenstockError
from penstock.errors import of_rpc_error
from tests.crash.faults import Disk
from tests.crash.owner import Owner, Rows, RunningServer, compare, delete, input_of, results

# Enough for a state to be seen, and for a process of its own to write the result file.
DATA = input_of(1200)
SMALL_ROWS = 100
SMALL = input_of(SMALL_ROWS)
MOMENTS = ["validating", "running", "finalizing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def sound_disk(folder: Path) -> Generator[Disk]:
    with Disk(folder / "data", folder) as disk:
        yield disk


@pytest.fixture(scope="module")
def server(folder: Path, sound_disk: Disk) -> Generator[RunningServer]:
    with RunningServer(folder, sound_disk.environment) as server:
        yield server


@pytest.fixture
def disk(sound_disk: Disk) -> Generator[Disk]:
    yield sound_disk
    sound_disk.mend()


@pytest.fixture(scope="module")
def reference(server: RunningServer) -> Rows:
    return results(server.client, Owner(DATA).carry_on(server, ignore))


@pytest.fixture(scope="module")
def small_reference(reference: Rows) -> Rows:
    return Rows(reference.keys[:SMALL_ROWS], reference.vectors[:SMALL_ROWS])


def ignore(moment: str) -> None:
    """Has nothing done at any moment."""


def refusal(call: Callable[[], object]) -> PenstockError:
    """What the server says of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return of_rpc_error(caught.value, "")


def after_chunks(count: int, do: Callable[[], object]) -> Callable[[str], None]:
    """Does something when so many chunks have been sent."""
    sent = iter(range(1000))

    def at(moment: str) -> None:
        if moment == "uploading" and next(sent) == count:
            do()

    return at


def finish(server: RunningServer, owner: Owner, reference: Rows) -> None:
    job = owner.carry_on(server, ignore)
    compare(results(server.client, job), reference)
    delete(server, job)


def test_an_upload_to_a_full_disk_is_told_so_and_goes_on_when_there_is_room(
    server: RunningServer, disk: Disk, small_reference: Rows
) -> None:
    owner = Owner(SMALL)
    # The chunk that does not fit is written as far as it does.
    told = refusal(lambda: owner.upload(server, after_chunks(8, lambda: disk.fill(1000))))
    assert (told.status, told.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
    committed = owner.committed(server).committed_bytes
    assert len(SMALL) / 3 < committed < len(SMALL)
    server.check_live()
    told = refusal(lambda: Owner(SMALL).upload(server, ignore))
    assert (told.status, told.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
    disk.mend()
    assert owner.committed(server).committed_bytes == committed
    finish(server, owner, small_reference)


@pytest.mark.parametrize("drops_pages", [True, False])
def test_bytes_whose_fsync_failed_are_not_committed_and_are_sent_again(
    server: RunningServer, disk: Disk, small_reference: Rows, *, drops_pages: bool
) -> None:
    owner = Owner(SMALL)
    fail_once = lambda: disk.fail_syncs(times=1, drops_pages=drops_pages)  # noqa: E731
    told = refusal(lambda: owner.upload(server, after_chunks(8, fail_once)))
    assert (told.status, told.reason) == ("UNAVAILABLE", "STORAGE_FAILED")
    assert disk.failed
    assert owner.committed(server).committed_bytes == 0
    finish(server, owner, small_reference)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_full_disk_pauses_a_job_and_nothing_else(
    server: RunningServer, disk: Disk, reference: Rows, moment: str
) -> None:
    owner = Owner(DATA)
    owner.upload(server, ignore)
    pauses: list[str] = []

    def at(now: str) -> None:
        if now == moment and not pauses:
            disk.fill()
        if now == "paused":
            job = owner.create(server)
            assert job.error is not None
            pauses.append(job.error.reason)
            server.check_live()
            disk.mend()

    job = owner.carry_on(server, at)
    assert pauses == ["STORAGE_FULL"]
    compare(results(server.client, job), reference)
    delete(server, job)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_failed_fsync_pauses_a_job_and_nothing_else(
    server: RunningServer, disk: Disk, reference: Rows, moment: str
) -> None:
    owner = Owner(DATA)
    owner.upload(server, ignore)
    failed = disk.failed
    pauses: list[str] = []

    def at(now: str) -> None:
        if now == moment and not pauses and disk.failed == failed:
            disk.fail_syncs(times=1)
        if now == "paused":
            job = owner.create(server)
            assert job.error is not None
            pauses.append(job.error.reason)
            server.check_live()

    job = owner.carry_on(server, at)
    assert (pauses, disk.failed) == (["STORAGE_FAILED"], failed + 1)
    compare(results(server.client, job), reference)
    delete(server, job)


def test_a_job_can_be_deleted_while_the_disk_is_full(server: RunningServer, disk: Disk) -> None:
    job = Owner(SMALL).carry_on(server, ignore)
    disk.fill(makes_names=False)
    delete(server, job)


def test_a_server_starts_on_a_full_disk_and_answers_live_calls(
    folder: Path, disk: Disk, server: RunningServer, small_reference: Rows
) -> None:
    assert server.client.bulk.list(states=[JobState.RUNNING]) == []
    other = folder / "other"
    other.mkdir()
    environment = {**disk.environment, "FAULTS_FOLDER": str(other / "data")}
    owner = Owner(SMALL)
    with RunningServer(other, environment) as first:
        owner.upload(first, ignore)
        owner.create(first)
        first.kill()
    disk.fill()
    with RunningServer(other, environment) as second:
        second.check_live()
        job = owner.create(second)
        assert job.state in (JobState.VALIDATING, JobState.RUNNING, JobState.PAUSED)
        disk.mend()
        finish(second, owner, small_reference)


def test_a_commit_that_failed_does_not_come_back_after_a_crash(folder: Path, disk: Disk) -> None:
    other = folder / "doubt"
    other.mkdir()
    environment = {**disk.environment, "FAULTS_FOLDER": str(other / "data")}
    owner = Owner(SMALL)
    with RunningServer(other, environment) as server:
        # The file's fsync succeeds, that of the journal fails, but what it was to save is there.
        fail_journal = lambda: disk.fail_syncs(after=1, drops_pages=False)  # noqa: E731
        told = refusal(lambda: owner.upload(server, after_chunks(8, fail_journal)))
        assert told.reason == "STORAGE_FAILED"
        assert owner.committed(server).committed_bytes == 0
        # Going on cuts off what is not committed, so it has to wait until the journal can say so for good.
        assert refusal(lambda: owner.upload(server, ignore)).reason == "STORAGE_FAILED"
        disk.mend()
        refusal(lambda: owner.upload(server, after_chunks(1, server.kill)))
    with RunningServer(other, environment) as server:
        owner.committed(server)
        owner.upload(server, ignore)
        assert owner.committed(server).complete
