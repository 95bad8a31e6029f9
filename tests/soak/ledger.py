"""Reads all clients' notes and says what was lost, answered twice, or answered with something else.

It knows the notes alone, neither the server nor the clients, and finds nothing in an honest record.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from penstock import JobState
from tests.soak.book import DEFERRED, LEFT, SUPERSEDED, Entry

# By kind of question: how far an answer may be from the reference of its text. Vectors: 1 - cosine; the
# nearest other text is 0.05 away. Logits: absolute. Measured over lanes and batches (2026-11-27, Zen 4):
# 1e-7 and 1e-5, as weights are int8 but computed in fp32; other processors may round more. Ids are equal.
TOLERANCES = {"embed": 1e-4, "classify": 0.01, "tokenize": 0.0}
# Never to be seen: the first is the server's fault by definition, the second an exception that escaped.
FORBIDDEN = frozenset({"INTERNAL", "UNKNOWN"})
# The reader that looks at all jobs at the end.
SETTLING = "settling"
_ENDED = frozenset(state.value for state in JobState if state.has_ended)
_TOLD_MAX = 20


@dataclass(slots=True)
class Finding:
    """What is wrong in one respect: how often, and the first cases in words."""

    count: int = 0
    told: list[str] = field(default_factory=list[str])

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.told) < _TOLD_MAX:
            self.told.append(text)


@dataclass(slots=True)
class Question:
    """A call, a text of a stream, or a growing text, with its ends."""

    ask: Entry
    client: str
    ends: list[Entry] = field(default_factory=list[Entry])
    parts: list[Entry] = field(default_factory=list[Entry])


class Ledger:
    """Everything that clients noted, and what follows from it.

    Attributes:
        once: Questions without an answer, or with two.
        right: Answers that are not of the text that was asked, or not as many as texts.
        defined: Statuses that the question did not allow.
        ordered: Streams that promise order and broke it; drafts superseded by one that is not newer.
        sums: Jobs whose rows do not add up, or whose numbers go backwards.
        job_rows: Rows of jobs that are missing, twice, out of order, under another key, or wrong.
        ended: Clients that neither said goodbye nor were killed.
    """

    def __init__(self, books: Iterable[tuple[str, Iterable[Entry]]]) -> None:
        self.once, self.right, self.defined, self.ordered = Finding(), Finding(), Finding(), Finding()
        self.sums, self.job_rows, self.ended = Finding(), Finding(), Finding()
        self.statuses: Counter[str] = Counter()
        self.gestures: Counter[str] = Counter()
        self.answered_rows = self.unclaimed_rows = 0
        self.questions: dict[str, Question] = {}
        self._streams: dict[str, Entry] = {}
        self._stream_ends: dict[str, list[Entry]] = defaultdict(list)
        self._jobs: dict[str, Entry] = {}
        self._states: dict[str, Entry] = {}
        self._readings: Counter[tuple[str, str]] = Counter()
        self._next_rows: dict[tuple[str, str], int] = {}
        self._gaps: list[tuple[str, str]] = []
        self.rows_read: Counter[str] = Counter()
        self._deferred: dict[str, list[int]] = {}
        self._gone: set[str] = set()
        self._settled: set[str] = set()
        self._killed: set[str] = set()
        for client, entries in books:
            self._read(client, entries)
        self._check_questions()
        self._check_orders()
        for job, state in self._states.items():
            if job in self._settled and state["state"] not in _ENDED:
                self.sums.add(f"{job} does not end: {state}")
        for job, gap in self._gaps:
            # Rows that a cancelled job never computed are left out of its results.
            if self._states.get(job, {}).get("state") != JobState.CANCELLED.value:
                self.job_rows.add(gap)
        for job in self.lost_jobs():
            self.sums.add(f"{job} was created, not deleted, and is not there any more")

    @property
    def jobs_ended(self) -> Counter[str]:
        """How many jobs were last seen in each state."""
        return Counter(str(state["state"]) for state in self._states.values())

    def lost_jobs(self) -> list[str]:
        """Jobs that a client was given, that nobody deleted, and that were not there at the end."""
        return [id_ for id_ in self._jobs if id_ not in self._gone and id_ not in self._settled]

    def deferred_texts(self, job: str) -> Sequence[int] | None:
        """The texts of the call that became this job; None if it was none."""
        return self._deferred.get(job)

    def _texts_of(self, job: str) -> Sequence[int | None] | None:
        """The texts of a job that a client knows, None for rows that must fail; keys tell those of others."""
        return self._jobs[job]["texts"] if job in self._jobs else self._deferred.get(job)

    def _read(self, client: str, entries: Iterable[Entry]) -> None:
        has_ended = False
        for entry in entries:
            if entry["entry"] in ("bye", "killed"):
                has_ended = True
                if entry["entry"] == "killed":
                    self._killed.add(client)
            else:
                self._take(client, entry)
        if not has_ended:
            self.ended.add(f"{client} ended by itself, in the middle")

    def _take(self, client: str, entry: Entry) -> None:
        kind = entry["entry"]
        if kind == "ask":
            self._ask(client, entry)
        elif kind == "end":
            self._end(entry)
        elif kind == "part":
            self._question(entry).parts.append(entry)
        elif kind == "stream":
            self._streams[entry["id"]] = {**entry, "client": client}
        elif kind == "job":
            self._jobs[entry["id"]] = entry
        elif kind == "state":
            self._check_state(entry)
        elif kind == "rows":
            self._check_rows(entry)
        elif kind == "whole":
            self._check_whole(entry)
        elif kind == "gone":
            self._gone.add(entry["job"])
        elif kind == "did":
            self.gestures[entry["what"]] += 1

    def _ask(self, client: str, entry: Entry) -> None:
        if entry["id"] in self.questions:
            self.once.add(f"{entry['id']} was asked twice")
        self.questions[entry["id"]] = Question(entry, client)

    def _end(self, entry: Entry) -> None:
        self.statuses[entry["status"]] += 1
        if entry["id"] in self._streams:
            self._stream_ends[entry["id"]].append(entry)
            return
        question = self._question(entry)
        question.ends.append(entry)
        if entry["status"] == DEFERRED:
            self._deferred[entry["job"]] = question.ask["texts"]

    def _question(self, entry: Entry) -> Question:
        """The question of an answer; one that nobody asked is a finding."""
        if entry["id"] not in self.questions:
            self.once.add(f"{entry['id']} was answered but never asked")
            return Question({"allowed": [], "texts": [], "kind": "embed"}, "")
        return self.questions[entry["id"]]

    def _check_questions(self) -> None:
        for id_, question in self.questions.items():
            if len(question.ends) > 1:
                self.once.add(f"{id_} was answered {len(question.ends)} times")
            elif not question.ends and not self._is_excused(question):
                self.once.add(f"{id_} of {question.client} has no answer")
            for end in question.ends:
                self._check_end(id_, question, end)
        for id_, stream in self._streams.items():
            self._check_stream(id_, stream)

    def _is_excused(self, question: Question) -> bool:
        """Nobody waits for it any more: its client was killed, or its stream has ended before its time."""
        if question.client in self._killed:
            return True
        ends = self._stream_ends.get(question.ask.get("stream", ""), [])
        return any(end["status"] != "OK" for end in ends)

    def _check_end(self, id_: str, question: Question, end: Entry) -> None:
        ask, status = question.ask, end["status"]
        if status in FORBIDDEN or status not in (*ask["allowed"], LEFT):
            self.defined.add(
                f"{id_} ({ask['kind']}) ended with {status}; allowed are {', '.join(ask['allowed'])}"
            )
        if "parts" in end:
            self._check_parts(id_, question, end["parts"])
        elif status == "OK":
            self._check_answers(id_, ask["kind"], ask["texts"], end["rows"])
        elif end["rows"]:
            self.right.add(f"{id_} ended with {status} and has answers all the same")

    def _check_parts(self, id_: str, question: Question, told: int) -> None:
        """A growing text: each sentence once, as many as the end tells, in order where that is promised."""
        texts = question.ask["texts"]
        indices = [part["index"] for part in question.parts]
        if sorted(indices) != list(range(len(texts))) or told != len(texts):
            self.once.add(f"{id_} has {len(texts)} sentences, but got {indices} and was told {told}")
            return
        if self._is_in_order(question) and indices != sorted(indices):
            self.ordered.add(f"{id_} has its sentences as {indices}")
        parts = sorted(question.parts, key=lambda part: int(part["index"]))
        for part, text in zip(parts, texts, strict=True):
            where = f"{id_} sentence {part['index']}"
            if part["status"] == "OK":
                self._check_answers(where, "embed", [text], part["rows"])
            elif part["status"] in FORBIDDEN or part["status"] not in question.ask["allowed"]:
                self.defined.add(f"{where} ended with {part['status']}")

    def _is_in_order(self, question: Question) -> bool:
        return bool(self._streams.get(question.ask.get("stream", ""), {}).get("order") == "in_order")

    def _check_answers(
        self, where: str, kind: str, texts: Sequence[int], rows: Sequence[Sequence[float]]
    ) -> None:
        if len(rows) != len(texts):
            self.right.add(f"{where} asked {len(texts)} texts and got {len(rows)} answers")
            return
        self.answered_rows += len(rows)
        for text, (nearest, distance) in zip(texts, rows, strict=True):
            if nearest != text:
                self.right.add(f"{where} ({kind}) asked text {text} and got the answer of text {nearest}")
            elif not distance <= TOLERANCES[kind]:
                self.right.add(f"{where} ({kind}) is {distance:g} away from the reference of text {text}")

    def _check_stream(self, id_: str, stream: Entry) -> None:
        ends = self._stream_ends.get(id_, [])
        if len(ends) > 1:
            self.once.add(f"stream {id_} ended {len(ends)} times")
        elif not ends and stream["client"] not in self._killed:
            self.once.add(f"stream {id_} never ended")
        for end in ends:
            if end["status"] in FORBIDDEN or end["status"] not in (*stream["allowed"], LEFT):
                self.defined.add(f"stream {id_} ended with {end['status']}")

    def _check_orders(self) -> None:
        """Answers came in the order of texts where promised; drafts give way to newer ones only."""
        places = {id_: place for place, id_ in enumerate(self.questions)}
        by_stream: dict[str, list[str]] = defaultdict(list)
        for id_ in self._end_order():
            by_stream[self.questions[id_].ask["stream"]].append(id_)
        for stream, ids in by_stream.items():
            in_order = sorted(ids, key=places.__getitem__)
            if self._is_in_order(self.questions[ids[0]]) and ids != in_order:
                self.ordered.add(f"stream {stream} was answered as {ids[:10]}")
        for id_, question in self.questions.items():
            for end in question.ends:
                if end["status"] == SUPERSEDED:
                    self._check_successor(id_, question, end["by"], places)

    def _end_order(self) -> list[str]:
        """Ids of stream texts in the order of their answers."""
        ended = [
            (end["place"], id_)
            for id_, question in self.questions.items()
            if "stream" in question.ask
            for end in question.ends
        ]
        return [id_ for _, id_ in sorted(ended)]

    def _check_successor(self, id_: str, question: Question, by: str, places: dict[str, int]) -> None:
        newer = self.questions.get(by)
        same = ("stream", "key")
        if newer is None or places[by] <= places[id_]:
            self.ordered.add(f"{id_} was superseded by {by}, which is not newer")
        elif any(newer.ask.get(name) != question.ask.get(name) for name in same):
            self.ordered.add(f"{id_} was superseded by {by} of another key")

    def _check_state(self, entry: Entry) -> None:
        job, before = entry["job"], self._states.get(entry["job"])
        total = entry["total"]
        if total and entry["succeeded"] + entry["failed"] + entry["pending"] != total:
            self.sums.add(f"{job} does not add up: {entry}")
        if not total and entry["succeeded"] + entry["failed"]:
            self.sums.add(f"{job} has rows done before they are counted: {entry}")
        if total and job in self._jobs and total != len(self._jobs[job]["texts"]):
            self.sums.add(f"{job} has {total} rows of {len(self._jobs[job]['texts'])}")
        if before is not None and self._goes_back(before, entry):
            self.sums.add(f"{job} goes backwards: {before} then {entry}")
        if entry["state"] == "failed":
            self.sums.add(f"{job} failed as a whole")
        self._states[job] = entry
        if entry["reader"] == SETTLING:
            self._settled.add(job)

    @staticmethod
    def _goes_back(before: Entry, now: Entry) -> bool:
        """States of one reader come in order: what is done stays done, a total stays the same."""
        if before["reader"] != now["reader"]:
            return False
        return any(now[name] < before[name] for name in ("total", "succeeded", "failed"))

    def _check_rows(self, entry: Entry) -> None:
        """Rows of one reading: in order, each with its own key, and its own text's answer."""
        job, reading = entry["job"], (entry["job"], entry["reading"])
        known = self._texts_of(job)
        for row, key, status, judgement in entry["rows"]:
            expected = self._next_rows.get(reading, 0)
            if row < expected:
                self.job_rows.add(f"{job}: row {row} came after row {expected - 1}")
            elif row > expected:
                self._gaps.append((job, f"{job}: row {row} came where {expected} was due"))
            self._next_rows[reading] = row + 1
            self._readings[reading] += 1
            self.rows_read[job] += 1
            self._check_row(entry, row, key, status, judgement, known)

    def _check_row(
        self,
        entry: Entry,
        row: int,
        key: str | None,
        status: str,
        judgement: Sequence[float],
        known: Sequence[int | None] | None,
    ) -> None:
        where = f"{entry['job']} row {row}"
        text = text_of_key(key) if known is None else known[row] if row < len(known) else None
        if key is None and known is None:
            # A deferred call whose caller had gone before it heard of the job: nobody knows its texts.
            self.unclaimed_rows += 1
        elif key is not None and row_of_key(key) != row:
            self.job_rows.add(f"{where} has the key {key}")
        elif text is None and status != "INVALID_ARGUMENT":
            self.job_rows.add(f"{where} must fail, but is {status}")
        elif text is not None and status != "OK":
            self.job_rows.add(f"{where} is {status}")
        elif text is not None:
            before = self.right.count
            self._check_answers(where, entry["kind"], [text], [judgement])
            if self.right.count > before:
                self.job_rows.add(f"{where} has not the answer of its text {text}")

    def _check_whole(self, entry: Entry) -> None:
        """All rows of an ended job that are done could be read."""
        read = self._readings[entry["job"], entry["reading"]]
        if read != entry["done"]:
            self.job_rows.add(f"{entry['job']} has {entry['done']} rows done, but {read} could be read")


def key_of(row: int, text: int | None) -> str:
    """The key of a row: its number and its text's."""
    return f"{row}:{'' if text is None else text}"


def row_of_key(key: str) -> int:
    """The row's number."""
    return int(key.partition(":")[0])


def text_of_key(key: str | None) -> int | None:
    """The text's number, None for a row that must fail."""
    text = (key or "").partition(":")[2]
    return int(text) if text else None
