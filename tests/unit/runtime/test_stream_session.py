from __future__ import annotations

import asyncio

import pytest

from penstock_server.domain.errors import (
    DeadlineUnmeetable,
    EngineFailed,
    InvalidRequest,
    Overloaded,
    PenstockError,
)
from penstock_server.runtime.stream_events import (
    AppendEnd,
    SentenceRange,
    StreamResult,
    Superseded,
    TextAppended,
    TextArrived,
)
from tests.support.streams import HandStream, idle


def text(id_: str, key: str = "", body: str | None = None) -> TextArrived:
    return TextArrived(id_, id_ if body is None else body, key=key)


def answer(id_: str) -> StreamResult[str]:
    return StreamResult(id_, f"answer to {id_}")


def ids(stream: HandStream) -> list[str]:
    return [result.id for result in stream.results]


def error_of(result: StreamResult[str]) -> PenstockError:
    assert isinstance(result.outcome, PenstockError)
    return result.outcome


async def test_answers_keep_the_order_of_their_texts() -> None:
    async with HandStream(in_order=True) as stream:
        stream.take_all()
        await stream.send(text("a"), text("b"), text("c"))
        await stream.finish("c")
        await stream.finish("b")
        assert stream.results == []

        await stream.finish("a")
        assert stream.results == [answer("a"), answer("b"), answer("c")]


async def test_answers_are_sent_as_they_become_ready() -> None:
    async with HandStream(in_order=False) as stream:
        stream.take_all()
        await stream.send(text("a"), text("b"))
        await stream.finish("b")
        assert stream.results == [answer("b")]

        await stream.finish("a")
        assert ids(stream) == ["b", "a"]


@pytest.mark.parametrize("in_order", [True, False])
async def test_one_bad_text_leaves_the_others_alone(in_order: bool) -> None:
    async with HandStream(in_order=in_order) as stream:
        stream.take_all()
        await stream.send(text("a"), text("empty", body=""), text("b"), text("c"))
        await stream.finish("a", EngineFailed("This row cannot be computed."))
        await stream.finish("b")
        await stream.finish("c")
        await stream.half_close()

        outcomes = {result.id: result.outcome for result in stream.results}
        assert isinstance(outcomes["a"], EngineFailed)
        assert isinstance(outcomes["empty"], InvalidRequest)
        assert outcomes["b"] == "answer to b"
        assert outcomes["c"] == "answer to c"
        assert len(stream.results) == 4
        assert stream.has_ended()
        assert stream.error is None


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (text("", body="x"), "id: is empty"),
        (text("é" * 65, body="x"), "id: is longer than 128 bytes"),
        (text("x", key="k" * 129), "key: is longer than 128 bytes"),
        (TextAppended("", "x"), "id: is empty"),
        (TextAppended("i" * 129, "x"), "id: is longer than 128 bytes"),
        (TextAppended("x", ""), "append.text: is empty"),
    ],
)
async def test_wrong_names_are_refused_alone(event: TextArrived | TextAppended, what: str) -> None:
    async with HandStream() as stream:
        stream.take_all()
        await stream.send(event, text("good"))
        await stream.finish("good")

        assert ids(stream) == [event.id, "good"]
        assert what in error_of(stream.results[0]).message


async def test_an_id_is_free_again_once_its_answer_is_taken() -> None:
    async with HandStream(in_order=False) as stream:
        stream.take_all()
        await stream.send(text("a"), text("a", body="second"))
        assert "still in flight" in error_of(stream.results[0]).message
        await stream.send(TextAppended("a", "third"))
        assert "still in flight" in error_of(stream.results[1]).message

        await stream.finish("a")
        await stream.send(text("a", body="fourth"))
        await stream.finish("fourth")
        assert [result.outcome for result in stream.results[2:]] == ["answer to a", "answer to fourth"]


async def test_reading_pauses_while_as_many_texts_as_allowed_are_in_flight() -> None:
    async with HandStream(max_in_flight=2) as stream:
        stream.take_all()
        await stream.send(*(text(name) for name in "abcde"))
        assert [ticket.text for ticket in stream.submitter.live] == ["a", "b"]
        assert stream.read == 3

        await stream.finish("b")
        assert [ticket.text for ticket in stream.submitter.live] == ["a", "c"]
        assert stream.read == 4


async def test_reading_pauses_while_answers_are_not_taken() -> None:
    async with HandStream(in_order=False, max_in_flight=2) as stream:
        await stream.send(*(text(f"bad{i}") for i in range(2_000)))
        taken = anext(stream.answers)
        assert (await taken).id == "bad0"
        await idle()
        for _ in range(20):
            await idle()
        paused_at = stream.read
        assert paused_at <= stream.rules.unsent_max + 2

        stream.take_all()
        await stream.half_close()
        for _ in range(200):
            await idle()
        assert stream.read == 2_000
        assert len(stream.results) == 1_999


async def test_reading_pauses_while_long_texts_wait() -> None:
    async with HandStream(max_in_flight=4, held_chars_max=100) as stream:
        stream.take_all()
        await stream.send(*(text(name) for name in "abcd"))
        await stream.send(*(text(f"k{i}", key=f"k{i}", body="x" * 60) for i in range(4)))

        assert stream.read == 7


async def test_reading_goes_on_when_long_ids_are_taken() -> None:
    async with HandStream(in_order=False, max_in_flight=1, held_chars_max=100) as stream:
        first = asyncio.ensure_future(anext(stream.answers))
        await stream.send(*(text("x" * 40 + str(i), body="") for i in range(20)))
        assert stream.read == 5
        await first

        stream.take_all()
        await idle()
        assert stream.read == 20


async def test_a_text_supersedes_a_waiting_one_with_its_key() -> None:
    async with HandStream(in_order=False) as stream:
        stream.take_all()
        await stream.send(text("a", "k"), text("b", "other"), text("c", "k"))

        assert stream.results == [StreamResult("a", Superseded("c"))]
        assert stream.submitter.of("a").is_cancelled
        assert [ticket.text for ticket in stream.submitter.live] == ["b", "c"]


async def test_a_started_text_is_not_superseded() -> None:
    async with HandStream(in_order=False) as stream:
        stream.take_all()
        await stream.send(text("a", "k"))
        stream.submitter.of("a").start()
        await stream.send(text("b", "k"), text("c", "k"))
        assert stream.results == [StreamResult("b", Superseded("c"))]

        await stream.finish("a")
        await stream.finish("c")
        assert stream.results[1:] == [answer("a"), answer("c")]


async def test_superseded_texts_are_answered_in_their_place() -> None:
    async with HandStream(in_order=True) as stream:
        stream.take_all()
        await stream.send(text("a"), text("b", "k"), text("c"), text("d", "k"))
        assert stream.results == []
        await stream.finish("d")
        await stream.finish("c")
        await stream.finish("a")

        assert stream.results == [answer("a"), StreamResult("b", Superseded("d")), answer("c"), answer("d")]


@pytest.mark.parametrize("in_order", [True, False])
async def test_the_latest_wins_though_all_places_are_taken(in_order: bool) -> None:
    async with HandStream(in_order=in_order, max_in_flight=1) as stream:
        stream.take_all()
        await stream.send(text("a", "k"))
        stream.submitter.of("a").start()
        await stream.send(*(text(f"draft {i}", "k") for i in range(200)))
        assert len(stream.submitter.tickets) == 1

        await stream.finish("a")
        await stream.finish("draft 199")
        await stream.half_close()
        assert len(stream.submitter.tickets) == 2
        outcomes = {result.id: result.outcome for result in stream.results}
        assert outcomes == {
            "a": "answer to a",
            **{f"draft {i}": Superseded(f"draft {i + 1}") for i in range(199)},
            "draft 199": "answer to draft 199",
        }
        assert len(stream.results) == 201


async def test_a_key_that_is_replaced_again_and_again_comes_to_its_turn() -> None:
    async with HandStream(max_in_flight=2) as stream:
        stream.take_all()
        await stream.send(text("a", "1"), text("b", "2"))
        stream.submitter.of("a").start()
        stream.submitter.of("b").start()
        await stream.send(text("c", "3"), text("d", "4"), text("e", "3"))
        await stream.finish("a")

        assert [ticket.text for ticket in stream.submitter.live] == ["b", "e"]


async def test_a_wrong_text_does_not_supersede_a_submitted_one() -> None:
    async with HandStream(in_order=False) as stream:
        stream.take_all()
        await stream.send(text("a", "k"), text("bad", "k"))
        assert isinstance(stream.results[0].outcome, InvalidRequest)

        await stream.finish("a")
        assert stream.results[1:] == [answer("a")]


async def test_a_newer_text_takes_the_place_of_an_older_one_in_a_full_queue() -> None:
    async with HandStream(in_order=False) as stream:
        stream.take_all()
        stream.submitter.room = 1
        await stream.send(text("a", "k"), text("b", "k"), text("c"))
        assert stream.results[0] == StreamResult("a", Superseded("b"))
        assert stream.results[1].id == "c"
        assert isinstance(stream.results[1].outcome, Overloaded)

        await stream.finish("b")
        assert stream.results[2:] == [answer("b")]
        # Traces tell what arrives, not how often it is tried.
        assert stream.submitter.arrivals == 3


async def test_in_a_full_queue_the_newer_text_goes_before_those_aside() -> None:
    async with HandStream(in_order=False, max_in_flight=1) as stream:
        stream.take_all()
        stream.submitter.room = 1
        await stream.send(text("a", "k"), text("aside", "other"), text("b", "k"))

        assert stream.results == [StreamResult("a", Superseded("b"))]
        assert [ticket.text for ticket in stream.submitter.live] == ["b"]


async def test_many_refused_texts_that_waited_aside_are_all_answered() -> None:
    async with HandStream(in_order=False, max_in_flight=1_024) as stream:
        stream.take_all()
        await stream.send(*(text(f"{i}") for i in range(1_024)))
        await stream.send(*(text(f"bad{i}", key=f"{i}") for i in range(1_024)))
        for _ in range(100):
            await idle()
        assert stream.read == 2_048
        await stream.finish("0")
        for _ in range(10):
            await idle()

        assert len(stream.results) == 1_025


async def test_remaining_answers_are_sent_after_the_last_text() -> None:
    async with HandStream() as stream:
        stream.take_all()
        await stream.send(text("a"), text("b"))
        await stream.half_close()
        assert not stream.has_ended()
        await stream.finish("b")
        await stream.finish("a")

        assert ids(stream) == ["a", "b"]
        assert stream.has_ended()
        assert stream.error is None


async def test_sentences_of_a_growing_text_are_answered_with_their_ranges() -> None:
    async with HandStream() as stream:
        stream.take_all()
        await stream.send(TextAppended("t", "It rains. W"))
        assert stream.submitter.live == []
        await stream.send(TextAppended("t", "e stay in"))
        assert [ticket.text for ticket in stream.submitter.live] == ["It rains."]
        await stream.send(TextAppended("t", ". ", end=True))
        await stream.finish("We stay in.")
        await stream.finish("It rains.")

        assert stream.results == [
            StreamResult("t", "answer to It rains.", SentenceRange(0, 0, 9)),
            StreamResult("t", "answer to We stay in.", SentenceRange(1, 10, 21)),
            StreamResult("t", AppendEnd(2)),
        ]


async def test_the_end_of_a_growing_text_comes_after_all_its_sentences() -> None:
    async with HandStream(in_order=False) as stream:
        stream.take_all()
        await stream.send(TextAppended("t", "One here. Bad there. bad it is.", end=True), text("a"))
        await stream.finish("a")
        await stream.finish("Bad there.")
        await stream.finish("One here.")

        assert [result.sentence.index if result.sentence else None for result in stream.results] == [
            2,
            None,
            1,
            0,
            None,
        ]
        assert isinstance(stream.results[0].outcome, InvalidRequest)
        assert stream.results[-1] == StreamResult("t", AppendEnd(3))


async def test_growing_texts_that_are_open_at_the_end_are_completed() -> None:
    async with HandStream(in_order=False) as stream:
        stream.take_all()
        await stream.send(
            TextAppended("t", "Never ended"), TextAppended("u", " "), TextAppended("v", "", True)
        )
        await stream.half_close()
        await stream.finish("Never ended")

        assert stream.results == [
            StreamResult("v", AppendEnd(0)),
            StreamResult("u", AppendEnd(0)),
            StreamResult("t", "answer to Never ended", SentenceRange(0, 0, 11)),
            StreamResult("t", AppendEnd(1)),
        ]
        assert stream.has_ended()


async def test_an_ended_text_frees_its_id_for_the_next() -> None:
    async with HandStream() as stream:
        stream.take_all()
        await stream.send(TextAppended("t", "First", end=True), TextAppended("t", "Second", end=True))
        await stream.finish("First")
        await stream.finish("Second")

        assert [(r.id, r.outcome) for r in stream.results] == [
            ("t", "answer to First"),
            ("t", AppendEnd(1)),
            ("t", "answer to Second"),
            ("t", AppendEnd(1)),
        ]
        assert stream.results[2].sentence == SentenceRange(0, 0, 6)


async def test_growing_texts_are_bounded_in_number() -> None:
    async with HandStream(growing_max=2) as stream:
        stream.take_all()
        await stream.send(*(TextAppended(name, "x") for name in "abc"))
        assert ids(stream) == ["c"]
        assert isinstance(stream.results[0].outcome, Overloaded)

        await stream.send(TextAppended("a", "", end=True))
        await stream.finish("x")
        await stream.send(TextAppended("c", "", end=True))
        assert stream.results[-1] == StreamResult("c", AppendEnd(0))


async def test_sentences_count_as_texts_in_flight() -> None:
    async with HandStream(max_in_flight=2) as stream:
        stream.take_all()
        await stream.send(TextAppended("t", "One. Two! Three! Four! Five!", end=True), text("a"))

        assert [ticket.text for ticket in stream.submitter.live] == ["One.", "Two!"]
        assert stream.read == 1


async def test_a_late_text_is_answered_at_its_deadline() -> None:
    async with HandStream(in_order=False, text_timeout_ns=100, max_in_flight=1) as stream:
        stream.take_all()
        await stream.send(text("a"), text("b"))
        assert stream.submitter.of("a").deadline_ns == 1_100
        stream.clock.advance(99)
        await idle()
        assert stream.results == []

        stream.clock.advance(1)
        await idle()
        assert ids(stream) == ["a", "b"]
        assert all(isinstance(result.outcome, DeadlineUnmeetable) for result in stream.results)
        assert stream.submitter.of("a").is_cancelled
        assert len(stream.submitter.tickets) == 1


async def test_the_streams_deadline_bounds_that_of_its_texts() -> None:
    async with HandStream(text_timeout_ns=1_000, deadline_ns=1_500) as stream:
        stream.take_all()
        await stream.send(text("a"))
        stream.clock.advance(499)
        await stream.send(text("b"))
        stream.clock.advance(1)
        await stream.send(text("c"))

        assert stream.submitter.of("a").deadline_ns == 1_500
        assert stream.submitter.of("b").deadline_ns == 1_500
        assert ids(stream) == ["a", "b", "c"]
        assert isinstance(stream.results[2].outcome, DeadlineUnmeetable)
        assert stream.clock.waiting == 0


async def test_what_is_no_stream_ends_it() -> None:
    async with HandStream() as stream:
        stream.take_all()
        await stream.send(text("a"))
        await stream.half_close(InvalidRequest("open: sent twice"))

        assert stream.has_ended()
        assert isinstance(stream.error, InvalidRequest)
        assert stream.submitter.live == []


async def test_an_unforeseen_failure_ends_the_stream() -> None:
    async with HandStream() as stream:
        stream.take_all()
        await stream.send(text("a"))
        stream.submitter.of("a").finish(ZeroDivisionError("a defect"))
        await idle()

        assert isinstance(stream.error, ZeroDivisionError)


async def test_nothing_is_left_when_the_caller_goes_away() -> None:
    before = asyncio.all_tasks()
    async with HandStream(max_in_flight=2, text_timeout_ns=100) as stream:
        stream.take_all()
        await stream.send(text("a"), TextAppended("t", "One. Two and"), text("b", "k"), text("c", "l"))
        assert len(stream.submitter.live) == 2
        assert stream.clock.waiting > 2

    assert all(ticket.is_cancelled for ticket in stream.submitter.tickets)
    assert asyncio.all_tasks() == before
    assert stream.clock.waiting == 0
