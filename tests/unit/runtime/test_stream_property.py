"""Whatever the caller sends and however the answers come, the stream's promises hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.domain.errors import PenstockError
from penstock_server.runtime.stream_events import AppendEnd, Superseded, TextAppended, TextArrived
from tests.support.streams import HandStream, idle


@dataclass(frozen=True)
class Send:
    key: str
    is_bad: bool


@dataclass(frozen=True)
class Append:
    id: str
    text: str
    end: bool


@dataclass(frozen=True)
class Start:
    which: int


@dataclass(frozen=True)
class Finish:
    which: int


@dataclass(frozen=True)
class Advance:
    by_ns: int


STEPS = st.lists(
    st.one_of(
        st.builds(Send, st.sampled_from(["", "", "k", "l", "m"]), st.sampled_from([False] * 5 + [True])),
        st.builds(Append, st.sampled_from("tuv"), st.sampled_from(["One. ", "two ", "bad! "]), st.booleans()),
        st.builds(Start, st.integers(0, 5)),
        st.builds(Finish, st.integers(0, 5)),
        st.builds(Advance, st.sampled_from([1, 60])),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.booleans(), st.integers(1, 3), st.booleans())
def test_every_text_gets_exactly_one_answer(
    steps: list[object], in_order: bool, max_in_flight: int, has_timeout: bool
) -> None:
    asyncio.run(_run(steps, in_order, max_in_flight, has_timeout))


async def _run(steps: list[object], in_order: bool, max_in_flight: int, has_timeout: bool) -> None:
    timeout = {"text_timeout_ns": 100} if has_timeout else {}
    async with HandStream(in_order=in_order, max_in_flight=max_in_flight, **timeout) as stream:
        stream.take_all()
        sent: list[TextArrived] = []
        for step in steps:
            await _step(stream, sent, step)
            assert len(stream.submitter.live) <= max_in_flight
        await stream.half_close()
        while stream.submitter.live:
            assert len(stream.submitter.live) <= max_in_flight
            stream.submitter.live[-1].finish()
            await idle()
        assert stream.has_ended()
        assert stream.error is None
        _check(stream, sent, in_order)


async def _step(stream: HandStream, sent: list[TextArrived], step: object) -> None:
    live = stream.submitter.live
    if isinstance(step, Send):
        event = TextArrived(f"{len(sent)}", f"{'bad' if step.is_bad else 'text'} {len(sent)}", key=step.key)
        sent.append(event)
        await stream.send(event)
    elif isinstance(step, Append):
        await stream.send(TextAppended(step.id, step.text, step.end))
    elif isinstance(step, Start) and live:
        live[step.which % len(live)].start()
    elif isinstance(step, Finish) and live:
        live[step.which % len(live)].finish()
        await idle()
    elif isinstance(step, Advance):
        stream.clock.advance(step.by_ns)
        await idle()


def _check(stream: HandStream, sent: list[TextArrived], in_order: bool) -> None:
    by_id = {event.id: event for event in sent}
    answered = [result for result in stream.results if result.id in by_id]
    assert Counter(result.id for result in answered) == Counter(list(by_id))
    if in_order:
        assert [result.id for result in answered] == [event.id for event in sent]
    for result in answered:
        event = by_id[result.id]
        match result.outcome:
            case Superseded(by_id=newer):
                assert event.key
                assert by_id[newer].key == event.key
                assert int(newer) > int(event.id)
            case str(outcome):
                assert outcome == f"answer to {event.text}"
            case PenstockError():
                pass
            case _:
                raise AssertionError(result)
    _check_growing(stream, in_order)


def _check_growing(stream: HandStream, in_order: bool) -> None:
    """The sentences of each growing text are numbered from 0 and followed by an end that counts them."""
    for id_ in "tuv":
        numbers: list[int] = []
        for result in (result for result in stream.results if result.id == id_):
            if isinstance(result.outcome, AppendEnd):
                assert sorted(numbers) == list(range(result.outcome.sentences))
                assert not in_order or numbers == sorted(numbers)
                numbers = []
            else:
                assert result.sentence is not None
                numbers.append(result.sentence.index)
        assert numbers == []
