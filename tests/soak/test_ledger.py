"""The ledger finds nothing in an honest record, and each fault that is put into one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.book import Book, Entry, read_book
from tests.soak.ledger import SETTLING, Finding, Ledger, key_of

JOB_TEXTS = [4, None, 6]


def honest() -> dict[str, list[Entry]]:
    """What two clients and the look at the end noted, with all kinds of entries."""
    return {
        "calls": [
            ask("calls/1", "embed", [1, 2], allowed=["OK", "RESOURCE_EXHAUSTED"]),
            ask("calls/2", "classify", [3]),
            end("calls/2", rows=[[3, 0.0001]]),
            end("calls/1", rows=[[1, 0.0], [2, 1e-6]]),
            ask("calls/3", "embed", [5], allowed=["OK", "DEFERRED"]),
            end("calls/3", "DEFERRED", job="deferred"),
            ask("calls/4", "embed", [5]),
            end("calls/4", "LEFT"),
            {"entry": "bye"},
        ],
        "streams": [
            {"entry": "stream", "id": "streams/1", "order": "in_order", "allowed": ["OK"]},
            ask("streams/2", "embed", [1], stream="streams/1", key=""),
            ask("streams/3", "embed", [2], stream="streams/1", key=""),
            end("streams/2", rows=[[1, 0.0]], place=0),
            end("streams/3", rows=[[2, 0.0]], place=1),
            end("streams/1"),
            {"entry": "stream", "id": "streams/4", "order": "as_ready", "allowed": ["OK"]},
            ask("streams/5", "embed", [1], ["OK", "SUPERSEDED"], stream="streams/4", key="k"),
            ask("streams/6", "embed", [2], ["OK", "SUPERSEDED"], stream="streams/4", key="k"),
            end("streams/5", "SUPERSEDED", by="streams/6", place=0),
            end("streams/6", rows=[[2, 0.0]], place=1),
            ask("streams/7", "growing", [8, 9], stream="streams/4"),
            part("streams/7", 1, [[9, 0.0]]),
            part("streams/7", 0, [[8, 0.0]]),
            end("streams/7", parts=2, place=2),
            end("streams/4"),
            {"entry": "job", "id": "job", "texts": JOB_TEXTS, "kind": "embed"},
            state("job", "w", "running", 3, 1, 0, 2),
            state("job", "w", "succeeded", 3, 2, 1, 0),
            rows("job", "r"),
            {"entry": "whole", "job": "job", "reading": "r", "done": 3},
            {"entry": "bye"},
        ],
        "mortal": [ask("mortal/1", "embed", [1]), {"entry": "killed"}],
        SETTLING: [
            state("job", SETTLING, "succeeded", 3, 2, 1, 0),
            state("deferred", SETTLING, "succeeded", 1, 1, 0, 0),
            {
                "entry": "rows",
                "job": "deferred",
                "reading": "s",
                "kind": "embed",
                "rows": [[0, None, "OK", [5, 0.0]]],
            },
            {"entry": "bye"},
        ],
    }


def ask(id_: str, kind: str, texts: list[int], allowed: list[str] | None = None, **fields: object) -> Entry:
    return {"entry": "ask", "id": id_, "kind": kind, "texts": texts, "allowed": allowed or ["OK"], **fields}


def end(id_: str, status: str = "OK", rows: list[list[float]] | None = None, **fields: object) -> Entry:
    return {"entry": "end", "id": id_, "status": status, "rows": rows or [], **fields}


def part(id_: str, index: int, judged: list[list[float]]) -> Entry:
    return {"entry": "part", "id": id_, "index": index, "status": "OK", "rows": judged}


def state(job: str, reader: str, name: str, total: int, succeeded: int, failed: int, pending: int) -> Entry:
    counts = {"total": total, "succeeded": succeeded, "failed": failed, "pending": pending}
    return {"entry": "state", "job": job, "reader": reader, "state": name, **counts}


def rows(job: str, reading: str) -> Entry:
    outcomes = [("INVALID_ARGUMENT", None) if text is None else ("OK", [text, 0.0]) for text in JOB_TEXTS]
    noted = [[row, key_of(row, JOB_TEXTS[row]), *outcome] for row, outcome in enumerate(outcomes)]
    return {"entry": "rows", "job": job, "reading": reading, "kind": "embed", "rows": noted}


def findings(ledger: Ledger) -> dict[str, Finding]:
    names = ("once", "right", "defined", "ordered", "sums", "job_rows", "ended")
    return {name: found for name in names if (found := getattr(ledger, name)).count}


def find(record: dict[str, list[Entry]], entry: str, **fields: object) -> Entry:
    """The entry of a record that has these fields."""
    each = (
        noted
        for entries in record.values()
        for noted in entries
        if noted["entry"] == entry and fields.items() <= noted.items()
    )
    return next(each)


def test_an_honest_record_has_no_findings() -> None:
    ledger = Ledger(honest().items())
    assert findings(ledger) == {}
    # Calls, stream texts, sentences and rows of jobs that were compared with their references.
    assert ledger.answered_rows == 3 + 2 + 1 + 2 + 2 + 1


Doctor = Callable[[dict[str, list[Entry]]], None]


def answer_twice(record: dict[str, list[Entry]]) -> None:
    record["calls"].insert(5, copy.deepcopy(find(record, "end", id="calls/2")))


def answer_text_twice(record: dict[str, list[Entry]]) -> None:
    record["streams"].insert(5, end("streams/2", rows=[[1, 0.0]], place=7))


def lose_answer(record: dict[str, list[Entry]]) -> None:
    record["calls"].remove(find(record, "end", id="calls/1"))


def lose_text_of_stream(record: dict[str, list[Entry]]) -> None:
    record["streams"].remove(find(record, "end", id="streams/3"))


def lose_sentence(record: dict[str, list[Entry]]) -> None:
    record["streams"].remove(find(record, "part", index=0))


def answer_unasked(record: dict[str, list[Entry]]) -> None:
    record["calls"].insert(0, end("calls/99"))


def never_end_stream(record: dict[str, list[Entry]]) -> None:
    record["streams"].remove(find(record, "end", id="streams/1"))


def swap_vectors(record: dict[str, list[Entry]]) -> None:
    answer = find(record, "end", id="calls/1")
    answer["rows"] = answer["rows"][::-1]


def swap_sentences(record: dict[str, list[Entry]]) -> None:
    first, second = find(record, "part", index=0), find(record, "part", index=1)
    first["rows"], second["rows"] = second["rows"], first["rows"]


def bend_vector(record: dict[str, list[Entry]]) -> None:
    find(record, "end", id="calls/1")["rows"][1][1] = 0.01


def bend_to_nan(record: dict[str, list[Entry]]) -> None:
    find(record, "end", id="calls/1")["rows"][1][1] = float("nan")


def answer_too_few(record: dict[str, list[Entry]]) -> None:
    find(record, "end", id="calls/1")["rows"].pop()


def answer_internal(record: dict[str, list[Entry]]) -> None:
    find(record, "ask", id="calls/4")["allowed"].append("INTERNAL")
    find(record, "end", id="calls/4")["status"] = "INTERNAL"


def answer_undue(record: dict[str, list[Entry]]) -> None:
    find(record, "end", id="calls/4")["status"] = "DEADLINE_EXCEEDED"


def break_order(record: dict[str, list[Entry]]) -> None:
    find(record, "end", id="streams/2")["place"] = 5


def supersede_by_older(record: dict[str, list[Entry]]) -> None:
    find(record, "end", id="streams/5")["by"] = "streams/2"


def supersede_by_other_key(record: dict[str, list[Entry]]) -> None:
    find(record, "ask", id="streams/6")["key"] = "other"


def lose_row_in_sum(record: dict[str, list[Entry]]) -> None:
    find(record, "state", state="running")["pending"] = 1


def go_backwards(record: dict[str, list[Entry]]) -> None:
    find(record, "state", state="running").update(succeeded=3, pending=0)


def lose_job(record: dict[str, list[Entry]]) -> None:
    record[SETTLING].remove(find(record, "state", job="job", reader=SETTLING))


def fail_job(record: dict[str, list[Entry]]) -> None:
    find(record, "state", job="job", reader=SETTLING)["state"] = "failed"


def never_end_job(record: dict[str, list[Entry]]) -> None:
    find(record, "state", job="job", reader=SETTLING)["state"] = "running"


def repeat_row(record: dict[str, list[Entry]]) -> None:
    noted = find(record, "rows", job="job")["rows"]
    noted.insert(1, noted[0])


def skip_row(record: dict[str, list[Entry]]) -> None:
    find(record, "rows", job="job")["rows"].pop(1)


def lose_last_row(record: dict[str, list[Entry]]) -> None:
    find(record, "rows", job="job")["rows"].pop()


def swap_keys(record: dict[str, list[Entry]]) -> None:
    first, _, last = find(record, "rows", job="job")["rows"]
    first[1], last[1] = last[1], first[1]


def swap_rows_answers(record: dict[str, list[Entry]]) -> None:
    first, _, last = find(record, "rows", job="job")["rows"]
    first[3], last[3] = last[3], first[3]


def fail_good_row(record: dict[str, list[Entry]]) -> None:
    find(record, "rows", job="job")["rows"][0][2:] = ["DEADLINE_EXCEEDED", None]


def answer_bad_row(record: dict[str, list[Entry]]) -> None:
    find(record, "rows", job="job")["rows"][1][2:] = ["OK", [1, 0.0]]


def give_deferred_another(record: dict[str, list[Entry]]) -> None:
    find(record, "rows", job="deferred")["rows"][0][3] = [6, 0.0]


def break_client(record: dict[str, list[Entry]]) -> None:
    record["calls"].pop()


@pytest.mark.parametrize(
    ("doctor", "where"),
    [
        (answer_twice, "once"),
        (answer_text_twice, "once"),
        (lose_answer, "once"),
        (lose_text_of_stream, "once"),
        (lose_sentence, "once"),
        (answer_unasked, "once"),
        (never_end_stream, "once"),
        (swap_vectors, "right"),
        (swap_sentences, "right"),
        (bend_vector, "right"),
        (bend_to_nan, "right"),
        (answer_too_few, "right"),
        (answer_internal, "defined"),
        (answer_undue, "defined"),
        (break_order, "ordered"),
        (supersede_by_older, "ordered"),
        (supersede_by_other_key, "ordered"),
        (lose_row_in_sum, "sums"),
        (go_backwards, "sums"),
        (lose_job, "sums"),
        (fail_job, "sums"),
        (never_end_job, "sums"),
        (repeat_row, "job_rows"),
        (skip_row, "job_rows"),
        (lose_last_row, "job_rows"),
        (swap_keys, "job_rows"),
        (swap_rows_answers, "job_rows"),
        (fail_good_row, "job_rows"),
        (answer_bad_row, "job_rows"),
        (give_deferred_another, "job_rows"),
        (break_client, "ended"),
    ],
)
def test_each_fault_is_found(doctor: Doctor, where: str) -> None:
    record = honest()
    doctor(record)
    assert where in findings(Ledger(record.items()))


def test_a_cancelled_job_leaves_out_the_rows_that_it_never_computed() -> None:
    record = honest()
    skip_row(record)
    find(record, "whole")["done"] = 2
    for entries in record.values():
        for entry in entries:
            if entry["entry"] == "state" and entry["job"] == "job" and entry["state"] == "succeeded":
                entry.update(state="cancelled", failed=0, pending=1)
    assert findings(Ledger(record.items())) == {}


def test_rows_of_a_call_whose_caller_was_gone_are_nobodys() -> None:
    record = honest()
    record["calls"].remove(find(record, "end", id="calls/3"))
    record["calls"].insert(5, end("calls/3", "LEFT"))
    ledger = Ledger(record.items())
    assert findings(ledger) == {}
    assert ledger.unclaimed_rows == 1


def test_nobody_waits_for_the_texts_of_a_stream_that_was_left() -> None:
    record = honest()
    lose_text_of_stream(record)
    find(record, "end", id="streams/1")["status"] = "LEFT"
    assert findings(Ledger(record.items())) == {}


def test_notes_survive_a_client_that_dies_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "client.book"
    book = Book(path, "client")
    id_ = book.ask("embed", [1], ["OK"])
    book.end(id_, "OK", [(1, 0.0)])
    book.close()
    with path.open("ab") as file:
        file.write(b'{"entry":"ask","id":"cl')
    assert [entry["entry"] for entry in read_book(path)] == ["ask", "end"]
