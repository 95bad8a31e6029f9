"""Kills a server and fails its disk at chosen moments; every job is to end as if nothing had been."""

from __future__ import annotations

import random
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import grpc

from penstock import PenstockError
from penstock.errors import of_rpc_error
from tests.crash.faults import Disk
from tests.crash.owner import (
    CHUNK_PAUSE_S,
    CHUNKS,
    CrashFailed,
    Owner,
    Rows,
    RunningServer,
    compare,
    delete,
    input_of,
    results,
)

# How long after a state is first seen something may happen: about as long as it lasts.
_SPREAD_S = {"validating": 0.6, "running": 2.5, "finalizing": 0.08}
# One kill in so many also costs the last bytes that the journal wrote, as a disk that lies about fsync does.
_JOURNAL_CUT_EACH = 5
_JOURNAL_CUT_BYTES = 16_384
# One bad disk in so many also sees a kill, and half of these a start.
_FAULT_KILL_EACH = 3
# How much room may be left on a full disk, how many fsyncs may succeed before one fails, how many may fail.
_ROOM_BYTES_MAX = 300_000
_SYNCS_BEFORE_MAX = 5
_SYNCS_FAILING = (1, 1, 2, 5, 1 << 62)
# How long a disk stays bad, at most, once it has hurt the server. Some damage shows in no answer.
_BAD_S_MAX = 2.0


class Blow(StrEnum):
    """What happens to the server."""

    KILL = "killed"
    FULL = "disk full"
    SYNC = "fsync failed"


_REASONS = {Blow.FULL: "STORAGE_FULL", Blow.SYNC: "STORAGE_FAILED"}


@dataclass
class Tally:
    """What was done.

    Attributes:
        blows: How often what happened, by blow and moment. A bad disk that hurt nobody does not count.
        killed_while_bad: Kills while the disk was bad; of them no kill of ``blows`` is one.
        started_while_bad: Starts on a bad disk.
        journals_cut: Kills that cost the journal's tail as well.
        jobs: Jobs compared.
    """

    blows: Counter[tuple[Blow, str]] = field(default_factory=Counter[tuple[Blow, str]])
    killed_while_bad: int = 0
    started_while_bad: int = 0
    journals_cut: int = 0
    jobs: int = 0

    def count(self, *blows: Blow) -> int:
        """How often any of some blows fell."""
        return sum(times for (blow, _), times in self.blows.items() if blow in blows)


@dataclass(frozen=True)
class Plan:
    """How much is to happen: kills, times that the disk is bad; rows of each job; seed of the moments."""

    kills: int
    faults: int
    rows: int
    seed: int


class _Killed(Exception):
    """The server has been killed."""


def crash(folder: Path, plan: Plan, tell: Callable[[str], object]) -> Tally:
    """Has it all happen; every job that ends is compared with an undisturbed one.

    Args:
        folder: Empty; for the server's data.
        plan: How much.
        tell: Hears how far it is.

    Raises:
        CrashFailed: A row was lost, there twice, or wrong; the server said something untrue, or kept files
            that nothing needs.
    """
    data = input_of(plan.rows)
    tell("an undisturbed run")
    with RunningServer(folder) as server:
        reference = results(server.client, Owner(data).carry_on(server, lambda _: None))
    with Disk(folder / "data", folder) as disk:
        fate = _Fate(folder, plan, disk, tell)
        while fate.is_more_to_come:
            fate.run_job(Owner(data), reference)
    return fate.tally


class _Fate:
    """Lets blows fall at moments of its choice, and counts."""

    def __init__(self, folder: Path, plan: Plan, disk: Disk, tell: Callable[[str], object]) -> None:
        self._folder = folder
        self._plan = plan
        self._disk = disk
        self._tell = tell
        self._chance = random.Random(plan.seed)
        self.tally = Tally()
        self._blow: Blow | None = None
        self._target = ""
        self._due_s: float | None = None
        self._bad: _Bad | None = None

    @property
    def is_more_to_come(self) -> bool:
        """Whether not everything has happened yet."""
        return bool(self._kills_left or self._faults_left)

    def run_job(self, owner: Owner, reference: Rows) -> None:
        """Takes one job to its end, over as many deaths of the server as it takes."""
        while True:
            with RunningServer(self._folder, self._disk.environment) as server:
                if self._bad is not None:
                    self.tally.started_while_bad += 1
                    server.check_live()
                    self._mend()
                if self._live_through(server, owner, reference):
                    return
            self._hurt_journal()

    @property
    def _kills_left(self) -> int:
        return self._plan.kills - self.tally.count(Blow.KILL)

    @property
    def _faults_left(self) -> int:
        return self._plan.faults - self.tally.count(Blow.FULL, Blow.SYNC)

    def _live_through(self, server: RunningServer, owner: Owner, reference: Rows) -> bool:
        """Takes a job to its end and checks it; False if the server was killed before."""
        while True:
            self._aim()
            try:
                job = owner.carry_on(server, lambda moment: self._at(moment, server))
                self._end_bad(server)
            except (grpc.RpcError, PenstockError, _Killed) as err:
                if server.is_killed:
                    return False
                self._check_told(err)
                if not self._try_on(server):
                    return False
                continue
            compare(results(server.client, job), reference)
            delete(server, job)
            self.tally.jobs += 1
            return True

    def _try_on(self, server: RunningServer) -> bool:
        """Ends the bad time of the disk after an error; False if that has killed the server."""
        try:
            self._end_bad(server)
        except _Killed:
            return False
        return True

    def _check_told(self, err: Exception) -> None:
        """Makes sure that an error says what is wrong with the disk."""
        told = of_rpc_error(err, "the server") if isinstance(err, grpc.RpcError) else err
        wanted = None if self._bad is None else _REASONS[self._bad.blow]
        if not isinstance(told, PenstockError) or told.reason != wanted:
            raise CrashFailed(f"the server lives, and answers {err}") from err

    def _aim(self) -> None:
        self._due_s = None
        blows = [Blow.KILL] * self._kills_left + [Blow.FULL, Blow.SYNC] * -(-self._faults_left // 2)
        self._blow = self._chance.choice(blows) if blows else None
        self._target = self._chance.choice(["uploading", *_SPREAD_S])

    def _at(self, moment: str, server: RunningServer) -> None:
        """Hears where the job stands; lets the blow fall when the time has come."""
        if self._bad is not None:
            if moment == "paused" or self._bad.has_lasted(self._disk, time.monotonic()):
                self._end_bad(server)
            return
        if moment == self._target and self._due_s is None:
            spread_s = _SPREAD_S.get(moment, CHUNKS * CHUNK_PAUSE_S)
            self._due_s = time.monotonic() + self._chance.uniform(0, spread_s)
        if self._blow is None or self._due_s is None or time.monotonic() < self._due_s:
            return
        if self._blow is not Blow.KILL:
            self._spoil(self._blow, moment)
            return
        self._count(Blow.KILL, moment)
        server.kill()
        raise _Killed

    def _spoil(self, blow: Blow, moment: str) -> None:
        self._bad = _Bad(blow, moment, self._disk.refused + self._disk.failed)
        if blow is Blow.FULL:
            room_bytes = self._chance.choice((0, self._chance.randrange(_ROOM_BYTES_MAX)))
            self._disk.fill(room_bytes, makes_names=self._chance.random() < 0.5)
        else:
            self._disk.fail_syncs(
                after=self._chance.randint(0, _SYNCS_BEFORE_MAX),
                times=self._chance.choice(_SYNCS_FAILING),
                drops_pages=self._chance.random() < 0.5,
            )

    def _end_bad(self, server: RunningServer) -> None:
        """Ends a bad time of the disk that has hurt the server, maybe with a kill; raises _Killed then."""
        bad = self._bad
        if bad is None:
            return
        if not bad.has_hurt(self._disk):
            self._mend()
            return
        self._count(bad.blow, bad.moment)
        server.check_live()
        if self._chance.randrange(_FAULT_KILL_EACH):
            self._mend()
            self._aim()
            return
        self.tally.killed_while_bad += 1
        server.kill()
        if self._chance.random() < 0.5:
            self._mend()
        raise _Killed

    def _mend(self) -> None:
        self._disk.mend()
        self._bad = None

    def _count(self, blow: Blow, moment: str) -> None:
        self.tally.blows[blow, moment] += 1
        done = self.tally.blows.total()
        if done % 10 == 0:
            self._tell(f"{done} blows, {self.tally.jobs} jobs compared")

    def _hurt_journal(self) -> None:
        if self._chance.randrange(_JOURNAL_CUT_EACH):
            return
        path = self._folder / "data" / "bulk" / "journal.sqlite-wal"
        end_bytes = _end_of_log(path)
        if end_bytes:
            with path.open("r+b") as file:
                file.truncate(self._chance.randrange(max(0, end_bytes - _JOURNAL_CUT_BYTES), end_bytes))
            self.tally.journals_cut += 1


@dataclass
class _Bad:
    """A disk that is bad: since which moment, and how much it had refused before."""

    blow: Blow
    moment: str
    earlier: int
    hurt_s: float | None = None

    def has_hurt(self, disk: Disk) -> bool:
        """Whether it has refused the server anything."""
        return disk.refused + disk.failed > self.earlier

    def has_lasted(self, disk: Disk, now_s: float) -> bool:
        """Whether it has been long enough since it first did."""
        if self.hurt_s is None and self.has_hurt(disk):
            self.hurt_s = now_s
        return self.hurt_s is not None and now_s - self.hurt_s > _BAD_S_MAX


def _end_of_log(path: Path) -> int:
    """Where the frames of SQLite's write-ahead log end: those that have the salts of its header.

    https://www.sqlite.org/fileformat2.html#walformat
    """
    data = path.read_bytes() if path.exists() else b""
    if not any(data[:32]):
        return 0
    (page_bytes,) = struct.unpack_from(">I", data, 8)
    end = 32
    while data[end + 8 : end + 16] == data[16:24]:
        end += 24 + page_bytes
    return min(end, len(data))
