"""Runs a soak: the server, the clients, those that are killed, and the look at everything at the end."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock import DeadlineExceededError, FailedPreconditionError, Job, JobState
from tests.soak.book import Book, read_book
from tests.soak.calls import one_call
from tests.soak.client import Order, references_in, session_of
from tests.soak.jobs import GESTURES as JOB_GESTURES
from tests.soak.jobs import note_state, read_ended
from tests.soak.ledger import SETTLING, Ledger
from tests.soak.plan import FINISH_TIMEOUT_S, Plan
from tests.soak.processes import Server, end, running_server, start
from tests.soak.references import compute_references
from tests.soak.session import Crowd, Session
from tests.soak.streams import GESTURES as STREAM_GESTURES
from tests.soak.streams import one_stream
from tests.soak.verdicts import (
    Ending,
    Verdict,
    ending_verdict,
    handle_verdict,
    health_verdict,
    ledger_verdicts,
    load_verdict,
    log_verdict,
    memory_verdicts,
    queue_verdict,
)
from tests.soak.watch import Course, Watch, children_of, read_metrics

Tell = Callable[[str], None]
GESTURES = (*STREAM_GESTURES, *JOB_GESTURES, "call left", "flood", "malformed", "client killed")
_POLL_S = 0.25
_PATIENT_S = 120.0
_EMPTY_TIMEOUT_S = 30.0
_TELL_EVERY_S = 10.0
_LAST_CALLS = 12


@dataclass(frozen=True, slots=True)
class Outcome:
    """A soak that has ended."""

    verdicts: tuple[Verdict, ...]
    ledger: Ledger
    course: Course

    @property
    def holds(self) -> bool:
        """Whether no verdict fails."""
        return all(verdict.holds is not False for verdict in self.verdicts)


class Clients:
    """The client processes of a soak; mortal ones are killed and followed by new ones."""

    def __init__(self, server: Server, plan: Plan, folder: Path) -> None:
        self._server = server
        self._plan = plan
        self._folder = folder
        self._random = random.Random(f"{plan.seed}/deaths")
        self._begin_s = time.monotonic()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._mortals = 0
        self._death_s = 0.0
        self.names: list[str] = []

    def start(self) -> None:
        """Starts all of them."""
        for number in range(self._plan.live_clients):
            self._start("live", f"live-{number + 1}")
        for role in ("streams", "jobs", "rude"):
            self._start(role, role)
        self._start_mortal()

    def tend(self) -> None:
        """Kills the mortal one when its time has come."""
        if time.monotonic() >= self._death_s:
            self._kill_mortal()
            self._start_mortal()

    def finish(self) -> None:
        """Kills the last mortal one and waits for the others to finish what they have begun."""
        self._kill_mortal()
        give_up_s = time.monotonic() + FINISH_TIMEOUT_S + 10.0
        for process in self._processes.values():
            try:
                process.wait(max(0.0, give_up_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                end(process)

    def close(self) -> None:
        """Ends all of them."""
        for process in self._processes.values():
            end(process)

    def _start(self, role: str, name: str) -> None:
        order = Order(
            role=role,
            name=name,
            address=self._server.address,
            folder=str(self._folder),
            seconds=max(0.0, self._plan.seconds - (time.monotonic() - self._begin_s)),
            plan=self._plan.for_mortals() if role == "mortal" else self._plan,
        )
        command = [sys.executable, "-m", "tests.soak.client", msgspec.json.encode(order).decode()]
        with (self._folder / "clients.log").open("ab") as log:
            self._processes[name] = start(command, log)
        self.names.append(name)

    def _start_mortal(self) -> None:
        self._mortals += 1
        self._start("mortal", f"mortal-{self._mortals}")
        self._death_s = time.monotonic() + self._random.uniform(*self._plan.mortal_life_s)

    def _kill_mortal(self) -> None:
        name = f"mortal-{self._mortals}"
        end(self._processes.pop(name))
        book = Book(self._folder / f"{name}.book", name)
        book.did("client killed")
        book.write("killed")
        book.close()


def soak(plan: Plan, folder: Path, tell: Tell, *, gestures: tuple[str, ...] = GESTURES) -> Outcome:
    """Runs a soak in an empty folder, where all notes and logs stay.

    Args:
        plan: How long, how fast.
        folder: For the server's data, logs, and the clients' notes.
        tell: Hears how far it is.
        gestures: What must have happened at least once.
    """
    with ExitStack() as stack:
        server = stack.enter_context(running_server(folder))
        tell(f"server at {server.address}; asking it for {plan.texts} references")
        compute_references(server.address, plan.texts).save(references_in(folder))
        clients = Clients(server, plan, folder)
        stack.callback(clients.close)
        with Watch(server, _progress(plan, tell)) as watch:
            clients.start()
            load_end_s = time.monotonic() + plan.seconds
            while time.monotonic() < load_end_s and server.process.poll() is None:
                time.sleep(_POLL_S)
                clients.tend()
            tell("the load has ended; clients finish what they have begun")
            clients.finish()
            tell("looking at all jobs")
            asyncio.run(_settle(_order(server, plan, folder, SETTLING), _ledger(folder, clients.names)))
            course = watch.course
        _await_empty(server, course)
        is_alive = server.process.poll() is None
        tell("draining, with calls and a stream under way")
        ending = asyncio.run(_drain(server, _order(server, plan, folder, "last")))
    under_load = [sample for sample in course.samples if sample.at_s <= plan.seconds]
    ledger = _ledger(folder, [*clients.names, SETTLING, "last"])
    return Outcome(
        (
            *ledger_verdicts(ledger),
            load_verdict(ledger, gestures),
            health_verdict(course),
            log_verdict(server.log.read_text(encoding="utf-8", errors="replace")),
            *memory_verdicts(under_load),
            handle_verdict(under_load),
            queue_verdict(course, is_alive),
            ending_verdict(ending),
        ),
        ledger,
        course,
    )


def _order(server: Server, plan: Plan, folder: Path, name: str) -> Order:
    return Order(
        role="", name=name, address=server.address, folder=str(folder), seconds=_PATIENT_S, plan=plan
    )


def _ledger(folder: Path, names: list[str]) -> Ledger:
    return Ledger((name, read_book(folder / f"{name}.book")) for name in names)


async def _settle(order: Order, ledger: Ledger) -> None:
    """Brings all jobs to their end and reads those that ended well, also those of dead clients."""
    patient_until_s = time.monotonic() + order.plan.settle_s
    async with session_of(order) as session:
        for listed in await session.client.bulk.list():
            if listed.state is JobState.PAUSED:
                await _resume(session, listed.id)
            job = await _ended(session, listed.id, max(1.0, patient_until_s - time.monotonic()))
            note_state(session.book, job, SETTLING)
            await read_ended(session, job, ledger.deferred_texts(job.id))
        session.book.write("bye")


async def _ended(session: Session, job_id: str, patience_s: float) -> Job:
    """Waits for a job's end, and cancels it if that takes too long; a job that never ends is a finding."""
    try:
        return await session.client.bulk.wait(job_id, timeout_s=patience_s)
    except DeadlineExceededError:
        session.book.did("cancelled at the end")
        await session.client.bulk.cancel(job_id)
    try:
        return await session.client.bulk.wait(job_id, timeout_s=_PATIENT_S)
    except DeadlineExceededError:
        return await session.client.bulk.get(job_id)


async def _resume(session: Session, job_id: str) -> None:
    try:
        await session.client.bulk.resume(job_id)
    except FailedPreconditionError:
        session.book.did("resumed too late")


def _await_empty(server: Server, course: Course) -> None:
    """Gives what clients have left some time to be dropped."""
    give_up_s = time.monotonic() + _EMPTY_TIMEOUT_S
    while server.process.poll() is None:
        read_metrics(server, course)
        if not any(course.waiting.values()) or time.monotonic() > give_up_s:
            return
        time.sleep(_POLL_S)


async def _drain(server: Server, order: Order) -> Ending:
    """Has the server end while calls are under way; each is answered or told that the server is going."""
    workers = children_of(server.process.pid)
    async with session_of(order) as session:
        session.book.excuses = ("UNAVAILABLE", "CANCELLED")
        crowd = Crowd(2 * _LAST_CALLS)
        for gesture in ("in order", "as ready"):
            crowd.start(one_stream(session, gesture))
        for _ in range(_LAST_CALLS):
            crowd.start(one_call(session))
        await asyncio.sleep(_POLL_S)
        status, seconds = await asyncio.to_thread(server.drain)
        await crowd.finish()
        session.book.write("bye")
    left_over = tuple(pid for pid in workers if _is_running(pid))
    return Ending(status, seconds, left_over)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _progress(plan: Plan, tell: Tell) -> Callable[[float, Course], None]:
    told_s = -_TELL_EVERY_S

    def progress(at_s: float, course: Course) -> None:
        nonlocal told_s
        if at_s - told_s < _TELL_EVERY_S:
            return
        told_s = at_s
        newest = {each.process: each for each in course.samples}
        memory = ", ".join(f"{name} {each.memory_bytes / (1 << 20):.0f} MiB" for name, each in newest.items())
        waiting = sum(value for name, value in course.waiting.items() if "rows" in name)
        tell(
            f"{at_s:.0f} of {plan.seconds:.0f} s: {course.requests:,.0f} requests, "
            f"{waiting:,.0f} rows wait, {memory}"
        )

    return progress
