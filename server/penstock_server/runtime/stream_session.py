"""One live text stream: texts in, answers out, whatever carries them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Generic, cast

from penstock_server.domain.errors import Cancelled, InvalidRequest, Overloaded, PenstockError
from penstock_server.runtime.clock import TimerClock
from penstock_server.runtime.stream_events import (
    A,
    AppendEnd,
    SentenceRange,
    StreamEvent,
    StreamResult,
    StreamRules,
    Submitter,
    Superseded,
    TextAppended,
    TextArrived,
)
from penstock_server.runtime.stream_window import Entry, StreamWindow
from penstock_server.text.sentences import Sentence, SentenceCutter

# Code points given to the sentence cutter at once; it takes at most 3 ms for them, whatever they are.
_CUT_CHARS = 1_024


@dataclass(eq=False, slots=True)
class _Growing:
    """A growing text: its cutter, its sentences not answered yet, and its end once that has come."""

    id: str
    cutter: SentenceCutter
    pending: int = 0
    end: Entry | None = None


class StreamSession(Generic[A]):
    """Answers the texts of one stream. For one use, by one task.

    Every text gets exactly one result that repeats its id; what is wrong with one text is told in its result
    and leaves the others alone. At most ``max_in_flight`` texts are computed at once. Reading of events
    pauses while a text without a key waits for a place, and while the reader of answers is slow; texts with
    a key are read on, so that the newest takes the place of one that is not started.

    Args:
        submitter: Computes the texts.
        rules: Order and limits.
        clock: The server's time.
    """

    def __init__(self, submitter: Submitter[A], rules: StreamRules, clock: TimerClock) -> None:
        self._rules = rules
        self._clock = clock
        self._window: StreamWindow[A] = StreamWindow(submitter, rules, clock)
        # Ids of whole texts whose answers are not taken.
        self._ids: set[str] = set()
        # Growing texts until their ends are taken.
        self._growing: dict[str, _Growing] = {}

    async def answers(self, events: AsyncIterator[StreamEvent]) -> AsyncGenerator[StreamResult[A], None]:
        """Reads events and yields results until all are answered. Close it (``aclosing``) to cancel all.

        Growing texts that are open when the events end are completed as if their end had come.

        Raises:
            Exception: Whatever ``events`` raised: nothing more is answered.
        """
        reader = asyncio.create_task(self._read(events))
        try:
            while (entry := await self._window.take()) is not None:
                outcome = cast("A | PenstockError | Superseded | AppendEnd", entry.outcome)
                yield StreamResult(entry.id, outcome, entry.sentence)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await self._window.drop_all()

    async def _read(self, events: AsyncIterator[StreamEvent]) -> None:
        try:
            async for event in events:
                if isinstance(event, TextArrived):
                    await self._take_text(event)
                else:
                    await self._take_piece(event)
            for growing in list(self._growing.values()):
                if growing.end is None:
                    await self._end(growing)
        except asyncio.CancelledError:
            self._window.fail(Cancelled("The caller cancelled the stream."))
            raise
        except Exception as err:  # noqa: BLE001 - the taker of answers raises it
            self._window.fail(err)
        else:
            self._window.close()

    async def _take_text(self, event: TextArrived) -> None:
        deadline_ns = self._rules.text_deadline_ns(self._clock.now_ns())
        await self._window.room()
        error = self._wrong_id(event.id) or self._wrong_name("key", event.key)
        if error is not None:
            self._refuse(event.id, error)
            return
        self._ids.add(event.id)
        await self._window.accept(
            Entry(
                event.id,
                event.text,
                event.pair,
                event.key,
                deadline_ns,
                on_taken=lambda: self._ids.discard(event.id),
            )
        )

    async def _take_piece(self, event: TextAppended) -> None:
        growing = await self._growing_of(event.id)
        if growing is None:
            return
        if not event.text and not event.end:
            await self._window.room()
            self._refuse(event.id, InvalidRequest.of_field("append.text", "is empty; send text, or set end"))
        for begin in range(0, len(event.text), _CUT_CHARS):
            for sentence in growing.cutter.append(event.text[begin : begin + _CUT_CHARS]):
                await self._take_sentence(growing, sentence)
            # A long piece must not keep the event loop from other work.
            await asyncio.sleep(0)
        if event.end:
            await self._end(growing)

    async def _growing_of(self, id_: str) -> _Growing | None:
        """Finds or begins the growing text of an id; None if it was refused."""
        while (growing := self._growing.get(id_)) is not None and growing.end is not None:
            # That text has ended, its id is free; only its last answers are not taken yet.
            await self._window.change()
        if growing is not None:
            return growing
        error = self._wrong_id(id_) or self._too_many_growing()
        if error is not None:
            await self._window.room()
            self._refuse(id_, error)
            return None
        growing = _Growing(id_, SentenceCutter(chars_max=self._rules.sentence_chars_max))
        self._growing[id_] = growing
        return growing

    async def _take_sentence(self, growing: _Growing, sentence: Sentence) -> None:
        deadline_ns = self._rules.text_deadline_ns(self._clock.now_ns())
        await self._window.room()
        growing.pending += 1
        await self._window.accept(
            Entry(
                growing.id,
                sentence.text,
                deadline_ns=deadline_ns,
                sentence=SentenceRange(sentence.index, sentence.start_char, sentence.end_char),
                on_settled=lambda: self._sentence_settled(growing),
            )
        )

    def _sentence_settled(self, growing: _Growing) -> None:
        growing.pending -= 1
        self._settle_end(growing)

    async def _end(self, growing: _Growing) -> None:
        for sentence in growing.cutter.finish():
            await self._take_sentence(growing, sentence)
        await self._window.room()
        growing.end = Entry(growing.id, on_taken=lambda: self._forget(growing))
        self._window.open(growing.end)
        self._settle_end(growing)

    def _settle_end(self, growing: _Growing) -> None:
        if growing.end is not None and growing.pending == 0:
            self._window.settle(growing.end, AppendEnd(growing.cutter.count))

    def _forget(self, growing: _Growing) -> None:
        del self._growing[growing.id]

    def _refuse(self, id_: str, error: PenstockError) -> None:
        """Answers with an error at once. The caller has waited for room."""
        entry = Entry(id_)
        self._window.open(entry)
        self._window.settle(entry, error)

    def _wrong_id(self, id_: str) -> PenstockError | None:
        if not id_:
            return InvalidRequest.of_field("id", "is empty; give every text a name of its own")
        if id_ in self._ids or id_ in self._growing:
            return InvalidRequest.of_field("id", "belongs to a text that is still in flight; use another")
        return self._wrong_name("id", id_)

    def _wrong_name(self, field: str, name: str) -> PenstockError | None:
        bytes_max = self._rules.id_bytes_max
        if len(name) > bytes_max or len(name.encode()) > bytes_max:
            return InvalidRequest.of_field(field, f"is longer than {bytes_max} bytes; use a shorter one")
        return None

    def _too_many_growing(self) -> PenstockError | None:
        if len(self._growing) < self._rules.growing_max:
            return None
        return Overloaded(
            f"The stream has {self._rules.growing_max} growing texts; end one, or open another stream.",
            retry_after_s=1.0,
        )
