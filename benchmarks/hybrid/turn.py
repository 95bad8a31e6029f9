"""A contestant's turn: its server and clients, started for it alone, and stretches of load on them."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.hybrid.clients.fates import Tally
from benchmarks.hybrid.clients.loads import Shape
from benchmarks.hybrid.contestants import Contestant
from benchmarks.hybrid.corpora import Corpora, Corpus
from benchmarks.hybrid.figures import Course
from benchmarks.hybrid.processes import Client, MeasurementFailed, Running, client_process, tail
from benchmarks.hybrid.schedule import Stream, schedule, write_schedule
from benchmarks.machine import read_cpu_time

NO_DEADLINE_S = 10.0
# From the order to the first arrival, so that the client has read its files.
_LEAD_S = 1.0
_BULK_START_TIMEOUT_S = 120.0
_POLL_S = 0.05
_WARM_UP_S, _WARM_UP_RATE = 3.0, 20.0


@dataclass(slots=True)
class Stretch:
    """What was seen in a stretch of time.

    Attributes:
        begin_s, end_s: On the monotonic clock.
        cores: Cores in use on average: machine, server, clients, others.
        tallies: Of live calls, by tenant.
        course: Of bulk work, from its start on.
        errors: Of bulk requests or rows.
    """

    begin_s: float
    end_s: float
    cores: dict[str, float]
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])
    course: Course | None = None
    errors: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def cpu_s(self) -> float:
        """Processor time of server and clients."""
        return (self.cores["server"] + self.cores["clients"]) * (self.end_s - self.begin_s)


class Turn:
    """A running server with two clients: one for live calls, one for bulk work."""

    def __init__(
        self,
        contestant: Contestant,
        server: Running,
        live: Client,
        bulk: Client,
        corpora: Corpora,
        folder: Path,
    ) -> None:
        self.contestant = contestant
        self._server = server
        self._live = live
        self._bulk = bulk
        self._corpora = corpora
        self._folder = folder

    @property
    def address(self) -> str:
        """The server's host and port."""
        return self._server.address

    def idle(self, duration_s: float) -> Stretch:
        """Nothing at all, to see what the server takes by itself."""
        return self._watch(time.monotonic(), duration_s)

    def live(
        self, streams: Sequence[Stream], duration_s: float, seed: str, deadline_s: float = NO_DEADLINE_S
    ) -> Stretch:
        """Live calls at their times, whatever the server does."""
        due = schedule(streams, duration_s, self._corpora.live.rows, seed)
        path = self._folder / "arrivals.json"
        write_schedule(path, due)
        start_s = time.monotonic() + _LEAD_S
        arguments = {"texts": str(self._corpora.live.path), "arrivals": str(path)}
        self._live.tell("live", **arguments, start_s=start_s, deadline_s=deadline_s)
        stretch = self._watch(start_s, duration_s)
        answer: dict[str, dict[str, Any]] = self._live.answer()["tallies"]
        stretch.tallies = {tenant: Tally(**tally) for tenant, tally in answer.items()}
        return stretch

    def saturate(self, shape: Shape, duration_s: float) -> Stretch:
        """A closed loop of live calls: as many answers as the server can give."""
        self._live.ask("feed", texts=str(self._corpora.live.path), shape=asdict(shape))
        self._await_first_rows(self._live)
        stretch = self._watch(time.monotonic(), duration_s)
        answer = self._live.ask("finish", is_cut=True)
        stretch.course, stretch.errors = Course.of(answer["points"]), answer["errors"]
        return stretch

    def bulk(self, duration_s: float) -> Stretch:
        """Bulk work alone."""
        self.begin_bulk()
        return self.end_bulk(self._watch(time.monotonic() + _LEAD_S, duration_s))

    def begin_bulk(self) -> None:
        """Begins bulk work and waits for its first rows."""
        self._begin_bulk(self._corpora.bulk, is_repeated=True)
        self._await_first_rows(self._bulk)

    def end_bulk(self, stretch: Stretch) -> Stretch:
        """Ends bulk work, and adds its course to what was seen meanwhile."""
        answer = self._bulk.ask("finish", is_cut=True)
        stretch.course, stretch.errors = Course.of(answer["points"]), answer["errors"]
        if answer["points"][-1][0] < stretch.end_s:
            raise MeasurementFailed(f"{self.contestant.name} has run out of bulk rows: give it more")
        return stretch

    def whole_bulk(self, corpus: Corpus) -> Stretch:
        """All rows of a corpus once, from the first byte sent until the end is known."""
        before = self._read_cpu()
        self._begin_bulk(corpus, is_repeated=False)
        answer = self._bulk.ask("finish", is_cut=False)
        points = answer["points"]
        cores = self._read_cpu().cores_since(before)
        return Stretch(points[0][0], points[-1][0], cores, course=Course.of(points), errors=answer["errors"])

    def _begin_bulk(self, corpus: Corpus, *, is_repeated: bool) -> None:
        shape = self.contestant.bulk
        if shape is None:
            self._bulk.ask("job", texts=str(corpus.path), poll_s=_POLL_S)
        else:
            self._bulk.ask("feed", texts=str(corpus.path), shape=asdict(shape) | {"is_repeated": is_repeated})

    def _await_first_rows(self, client: Client) -> None:
        give_up_s = time.monotonic() + _BULK_START_TIMEOUT_S
        while not (state := client.ask("rows"))["rows"]:
            if time.monotonic() > give_up_s or state["has_ended"]:
                raise MeasurementFailed(f"{self.contestant.name} has not computed a row")
            time.sleep(_POLL_S)

    def _watch(self, begin_s: float, duration_s: float) -> Stretch:
        time.sleep(max(0.0, begin_s - time.monotonic()))
        before = self._read_cpu()
        time.sleep(max(0.0, begin_s + duration_s - time.monotonic()))
        return Stretch(begin_s, begin_s + duration_s, self._read_cpu().cores_since(before))

    def _read_cpu(self) -> Any:
        return read_cpu_time(time.monotonic(), self._server.pid, [self._live.pid, self._bulk.pid])


@contextmanager
def turn(contestant: Contestant, corpora: Corpora, deadline_s: float) -> Generator[Turn]:
    """Starts a contestant and warms it up; stops it afterwards.

    Raises:
        MeasurementFailed: It does not start; the text has the end of its log.
    """
    with TemporaryDirectory(prefix="hybrid-") as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(contestant.start(folder, deadline_s))
        command, texts = contestant.client_command, corpora.live.path
        try:
            live, bulk = (
                stack.enter_context(client_process(command, server, texts, folder / f"{use}.log"))
                for use in ("live", "bulk")
            )
        except MeasurementFailed as err:
            log = folder / "server.log"
            raise MeasurementFailed(f"{err}\n{tail(log) if log.is_file() else ''}") from err
        started = Turn(contestant, server, live, bulk, corpora, folder)
        started.live([Stream(_WARM_UP_RATE)], _WARM_UP_S, "warm-up")
        yield started
