"""The texts of one stream between arrival and answer: who is computed now, who waits, who is superseded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from penstock_server.domain.errors import DeadlineUnmeetable, Overloaded, PenstockError
from penstock_server.runtime.answer_queue import AnswerQueue
from penstock_server.runtime.clock import Timer, TimerClock
from penstock_server.runtime.stream_events import (
    A,
    SentenceRange,
    StreamRules,
    Submitter,
    Superseded,
    Ticket,
)


@dataclass(eq=False, slots=True)
class Entry:
    """One text from its arrival until its answer is taken.

    Attributes:
        id: The caller's name for the text.
        text: The text; emptied once it is submitted.
        pair: The second text of a pair.
        key: A later text with the same key supersedes this one; empty for never.
        deadline_ns: When the answer stops being of use; None for never.
        sentence: Where the sentence stands in its growing text.
        on_settled: Called once when the answer is known.
        on_taken: Called once when the answer is taken.
        outcome: The answer or why there is none; None while it is not known.
        was_refused: Whether there was no room for it before.
    """

    id: str
    text: str = ""
    pair: str | None = None
    key: str = ""
    deadline_ns: int | None = None
    sentence: SentenceRange | None = None
    on_settled: Callable[[], None] | None = None
    on_taken: Callable[[], None] | None = None
    outcome: object | None = None
    was_refused: bool = False
    held_chars: int = 0
    ticket: Ticket[object] | None = None
    task: asyncio.Task[None] | None = None
    timer: Timer | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the answer is known."""
        return self.outcome is not None

    @property
    def is_started(self) -> bool:
        """Whether it is too late to supersede the text."""
        return self.ticket is not None and self.ticket.is_started


class StreamWindow(Generic[A]):
    """Submits texts, at most ``max_in_flight`` at once, and gives each its one answer.

    A text with a key that finds no place is put aside, so that a newer one with the same key can be read and
    take its place; any other text waits in ``accept``. One task may accept, another may take.

    A newer text which the submitter refuses as wrong leaves the older one in its place; but a text that is
    still aside is not looked at before it is replaced. A text whose time runs out while it is being computed
    frees its place at once.

    Args:
        submitter: Computes the texts.
        rules: Order and limits.
        clock: The server's time.
    """

    def __init__(self, submitter: Submitter[A], rules: StreamRules, clock: TimerClock) -> None:
        self._submitter = submitter
        self._rules = rules
        self._clock = clock
        self._queue: AnswerQueue[Entry] = AnswerQueue(in_order=rules.in_order)
        # Texts that are not submitted yet, by key; the first is submitted first.
        self._aside: OrderedDict[str, Entry] = OrderedDict()
        # The newest unanswered text of each key.
        self._newest: dict[str, Entry] = {}
        self._submitted: set[Entry] = set()
        self._timed: set[Entry] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_chars = 0
        self._is_filling = False
        self._changed = asyncio.Event()

    async def room(self) -> None:
        """Waits until the taker of answers has left room for one more text."""
        while len(self._queue) >= self._rules.unsent_max or (
            self._held_chars >= self._rules.held_chars_max and len(self._queue) > 0
        ):
            await self.change()

    async def change(self) -> None:
        """Waits until an answer is known or taken."""
        self._changed.clear()
        await self._changed.wait()

    async def accept(self, entry: Entry) -> None:
        """Opens an entry and finds it a place; returns when it has one or is answered."""
        self.open(entry)
        if entry.deadline_ns is not None:
            if entry.deadline_ns <= self._clock.now_ns():
                self._expire(entry)
                return
            entry.timer = self._clock.call_at(entry.deadline_ns, lambda: self._expire(entry))
            self._timed.add(entry)
        while not entry.is_settled and not self._place(entry):
            await self.change()

    def open(self, entry: Entry) -> None:
        """Gives an entry its place among the answers. The caller has waited for ``room``."""
        entry.held_chars = len(entry.id) + len(entry.key) + _text_chars(entry)
        self._held_chars += entry.held_chars
        self._queue.open(entry)

    def settle(self, entry: Entry, outcome: object) -> None:
        """Gives an opened entry its one answer; a second one is dropped."""
        if entry.is_settled:
            return
        entry.outcome = outcome
        self._stop(entry)
        self._release_text(entry)
        if self._newest.get(entry.key) is entry:
            del self._newest[entry.key]
        if self._aside.get(entry.key) is entry:
            del self._aside[entry.key]
        self._queue.settle(entry)
        if entry.on_settled is not None:
            entry.on_settled()
        self._fill()
        self._changed.set()

    async def take(self) -> Entry | None:
        """Waits for the next answered entry; None when the window is closed and empty.

        Raises:
            Exception: The error given to ``fail``.
        """
        entry = await self._queue.take()
        if entry is not None:
            self._held_chars -= entry.held_chars
            if entry.on_taken is not None:
                entry.on_taken()
            self._changed.set()
        return entry

    def close(self) -> None:
        """Ends the window once all entries are taken."""
        self._queue.close()

    def fail(self, error: Exception) -> None:
        """Ends the window at once: the taker gets the error."""
        self._queue.fail(error)

    async def drop_all(self) -> None:
        """Cancels everything that is not answered. Idempotent."""
        for entry in [*self._submitted, *self._timed]:
            self._stop(entry)
        self._aside.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _place(self, entry: Entry) -> bool:
        """Submits an entry or puts it aside; False if it has to wait."""
        older = self._newest.get(entry.key) if entry.key else None
        if older is not None and not older.is_started:
            self._replace(older, entry)
            return True
        # Nothing is aside while there is a free place, so this overtakes no one.
        if len(self._submitted) < self._rules.max_in_flight:
            self._submit(entry)
            return True
        if entry.key and len(self._aside) < self._rules.max_in_flight:
            self._put_aside(entry)
            return True
        return False

    def _replace(self, older: Entry, entry: Entry) -> None:
        """Puts a newer text in the place of an older one that is not started."""
        if older.ticket is None:
            # Same key, same place: a text that is replaced again and again still comes to its turn.
            self._put_aside(entry)
            self.settle(older, Superseded(entry.id))
            return
        try:
            ticket = self._offer(entry)
        except Overloaded:
            # The older text's place in the scheduler's queue may be what the newer one lacks.
            entry.was_refused = True
            self._put_aside(entry)
            self._aside.move_to_end(entry.key, last=False)
            self.settle(older, Superseded(entry.id))
        except PenstockError as err:
            self.settle(entry, err)
        else:
            self._follow(entry, ticket)
            self.settle(older, Superseded(entry.id))

    def _offer(self, entry: Entry) -> Ticket[A]:
        return self._submitter.submit(
            entry.text, entry.pair, deadline_ns=entry.deadline_ns, is_again=entry.was_refused
        )

    def _put_aside(self, entry: Entry) -> None:
        self._newest[entry.key] = entry
        self._aside[entry.key] = entry

    def _submit(self, entry: Entry) -> None:
        try:
            ticket = self._offer(entry)
        except PenstockError as err:
            self.settle(entry, err)
        else:
            self._follow(entry, ticket)

    def _follow(self, entry: Entry, ticket: Ticket[A]) -> None:
        """Waits for a submitted text's answer in a task of its own; the text is not held any longer."""
        self._release_text(entry)
        if entry.key:
            self._newest[entry.key] = entry
        entry.ticket = ticket
        self._submitted.add(entry)
        entry.task = asyncio.create_task(self._collect(entry, ticket))
        self._tasks.add(entry.task)
        entry.task.add_done_callback(self._tasks.discard)

    async def _collect(self, entry: Entry, ticket: Ticket[A]) -> None:
        try:
            outcome: object = await ticket.answer()
        except PenstockError as err:
            outcome = err
        except Exception as err:  # noqa: BLE001 - the taker of answers raises it
            self.fail(err)
            return
        self.settle(entry, outcome)

    def _fill(self) -> None:
        """Submits texts that wait aside while there is room; a refused one settles, which comes back here."""
        if self._is_filling:
            return
        self._is_filling = True
        try:
            while self._aside and len(self._submitted) < self._rules.max_in_flight:
                _, entry = self._aside.popitem(last=False)
                self._submit(entry)
        finally:
            self._is_filling = False

    def _stop(self, entry: Entry) -> None:
        """Ends what still goes on for an entry."""
        if entry.timer is not None:
            entry.timer.cancel()
            self._timed.discard(entry)
        self._submitted.discard(entry)
        # An entry that its own task settles has its answer: nothing is left to cancel.
        if entry.ticket is not None and entry.task is not asyncio.current_task():
            entry.ticket.cancel()
            if entry.task is not None:
                entry.task.cancel()

    def _release_text(self, entry: Entry) -> None:
        """Lets go of a text that is submitted or answered."""
        text_chars = _text_chars(entry)
        self._held_chars -= text_chars
        entry.held_chars -= text_chars
        entry.text, entry.pair = "", None

    def _expire(self, entry: Entry) -> None:
        self.settle(
            entry,
            DeadlineUnmeetable(
                "The text's time ran out before its answer; allow more, or send less at once."
            ),
        )


def _text_chars(entry: Entry) -> int:
    return len(entry.text) + len(entry.pair or "")
