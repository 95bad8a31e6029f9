"""Streams: in order, as ready, latest wins, growing transcripts; with slow readers and some that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from penstock import PenstockError, StreamAppend, StreamResult, StreamText
from tests.soak.book import LEFT, SUPERSEDED
from tests.soak.plan import CLASSIFIER, EMBEDDER
from tests.soak.session import ANSWERED, LATE, REFUSED, Session, repeated

GESTURES = ("in order", "as ready", "latest wins", "growing", "slow reader", "stream left")
_TEXTS_PER_S = 25.0
_PIECE_CHARS_MAX = 30
_TEXT_TIMEOUT_S = 0.5
_SLOW_EVERY = 5
_KEYS = ("title", "body")


@dataclass(slots=True)
class _Talk:
    """A stream under way."""

    id: str
    gesture: str
    kind: str
    texts_max: int
    allowed: list[str]
    texts: dict[str, int] = field(default_factory=dict[str, int])
    place: int = 0


async def streams(session: Session) -> None:
    """Some streams at once, one gesture after the other."""
    turns = session.turns(GESTURES)
    each = (
        repeated(session, lambda: one_stream(session, turns())) for _ in range(session.plan.streams_at_once)
    )
    await asyncio.gather(*each)


async def one_stream(session: Session, gesture: str) -> None:
    """A stream from its first text to its end."""
    random = session.random
    kind = "classify" if gesture == "as ready" and random.random() < 0.5 else "embed"
    has_timeout = gesture == "as ready" and random.random() < 0.5
    allowed = [ANSWERED, REFUSED, *([LATE] if has_timeout else [])]
    if gesture == "latest wins":
        allowed.append(SUPERSEDED)
    is_in_order = gesture in ("in order", "slow reader") or (gesture == "growing" and random.random() < 0.5)
    order = "in_order" if is_in_order else "as_ready"
    options: dict[str, Any] = {"order": order, "max_in_flight": random.choice((2, 8, 64))}
    if kind == "classify":
        options["score_function"] = "none"
    if has_timeout:
        options["text_timeout_s"] = _TEXT_TIMEOUT_S
    stream_id = session.book.stream(order, [ANSWERED, REFUSED])
    session.book.did(gesture)
    talk = _Talk(stream_id, gesture, kind, random.randint(2, session.plan.stream_texts_max), allowed)
    await _converse(session, talk, options)


async def _converse(session: Session, talk: _Talk, options: dict[str, Any]) -> None:
    items = _growing(session, talk) if talk.gesture == "growing" else _texts(session, talk)
    model = CLASSIFIER if talk.kind == "classify" else EMBEDDER
    results: Any = session.client.stream(items, model=model, task=talk.kind, **options)
    leaves_after = session.random.randint(0, talk.texts_max - 1) if talk.gesture == "stream left" else None
    try:
        async with aclosing(results):
            async for result in results:
                _note(session, talk, result)
                if leaves_after is not None and talk.place > leaves_after:
                    session.book.end(talk.id, LEFT)
                    return
                if talk.gesture == "slow reader" and talk.place % _SLOW_EVERY == 0:
                    await session.pause(session.random.random() * session.plan.reading_stop_s)
    except PenstockError as err:
        session.book.end(talk.id, err.status)
    else:
        session.book.end(talk.id, ANSWERED)


def _note(session: Session, talk: _Talk, result: StreamResult) -> None:
    book = session.book
    if result.error is None and result.answer is None and result.superseded_by is None:
        book.end(result.id, ANSWERED, parts=result.sentences_total, place=talk.place)
    elif result.sentence is not None:
        _note_sentence(session, talk, result)
        return
    elif result.error is not None:
        book.end(result.id, result.error.status, place=talk.place)
    elif result.superseded_by is not None:
        book.end(result.id, SUPERSEDED, by=result.superseded_by, place=talk.place)
    else:
        judgement = session.judge(talk.texts.get(result.id, 0), result.answer)
        book.end(result.id, ANSWERED, [judgement], place=talk.place)
    talk.place += 1


def _note_sentence(session: Session, talk: _Talk, result: StreamResult) -> None:
    assert result.sentence is not None
    index = result.sentence.index
    status, rows = ANSWERED, []
    if result.error is not None:
        status = result.error.status
    else:
        sentences = session.references.transcripts[talk.texts[result.id]][1]
        rows = [session.judge(sentences[min(index, len(sentences) - 1)], result.answer)]
    session.book.write("part", id=result.id, index=index, status=status, rows=rows)


async def _texts(session: Session, talk: _Talk) -> AsyncIterator[StreamText]:
    for _ in range(talk.texts_max):
        text = session.text()
        key = session.random.choice(_KEYS) if talk.gesture == "latest wins" else ""
        id_ = session.book.ask(talk.kind, [text], talk.allowed, stream=talk.id, key=key)
        talk.texts[id_] = text
        yield StreamText(id_, session.references.texts[text], key)
        await session.pause(session.random.expovariate(_TEXTS_PER_S))


async def _growing(session: Session, talk: _Talk) -> AsyncIterator[StreamAppend]:
    """Transcripts that grow piece by piece, one after the other."""
    transcripts = session.references.transcripts
    for _ in range(max(1, talk.texts_max // 8)):
        number = session.random.randrange(len(transcripts))
        whole, sentences = transcripts[number]
        id_ = session.book.ask("growing", sentences, talk.allowed, stream=talk.id)
        talk.texts[id_] = number
        begin = 0
        while begin < len(whole):
            end = begin + session.random.randint(1, _PIECE_CHARS_MAX)
            yield StreamAppend(id_, whole[begin:end], end=end >= len(whole))
            begin = end
            await session.pause(session.random.expovariate(_TEXTS_PER_S * 4))
