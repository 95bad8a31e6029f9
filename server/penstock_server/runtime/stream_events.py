"""What goes into a live text stream and what comes out: plain values, no transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from penstock_server.domain.errors import PenstockError
from penstock_server.text.sentences import SENTENCE_CHARS_MAX

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


@dataclass(frozen=True, slots=True)
class TextArrived:
    """A whole text. An empty ``key`` means that no later text supersedes it."""

    id: str
    text: str
    pair: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class TextAppended:
    """A piece of a growing text; ``end`` completes it."""

    id: str
    text: str
    end: bool = False


StreamEvent: TypeAlias = TextArrived | TextAppended


@dataclass(frozen=True, slots=True)
class SentenceRange:
    """Where a sentence stands in its growing text, in code points; ``end_char`` is one past its last."""

    index: int
    start_char: int
    end_char: int


@dataclass(frozen=True, slots=True)
class Superseded:
    """A later text with the same key took this text's place."""

    by_id: str


@dataclass(frozen=True, slots=True)
class AppendEnd:
    """A growing text is complete, and all its sentences have been answered."""

    sentences: int


@dataclass(frozen=True, slots=True)
class StreamResult(Generic[A]):
    """What became of one text or sentence: an answer, an error of its own, or one of the two notes."""

    id: str
    outcome: A | PenstockError | Superseded | AppendEnd
    sentence: SentenceRange | None = None


class Ticket(Protocol[A_co]):
    """One text on its way through the scheduler."""

    @property
    def is_started(self) -> bool:
        """Whether the text has been put into a batch; then it is too late to supersede it."""
        ...

    def cancel(self) -> None:
        """Drops the text if it is not started."""

    async def answer(self) -> A_co:
        """Waits for the answer.

        Raises:
            PenstockError: There is none.
        """
        ...


class Submitter(Protocol[A_co]):
    """Takes texts for one model and one set of options."""

    def submit(
        self, text: str, pair: str | None, *, deadline_ns: int | None, is_again: bool = False
    ) -> Ticket[A_co]:
        """Submits one text; ``is_again`` if it was refused for want of room before.

        Raises:
            PenstockError: The text is refused: empty, too long, no room in the queue, and the like.
        """
        ...


@dataclass(frozen=True, slots=True)
class StreamRules:
    """How a stream behaves, and its limits.

    Attributes:
        in_order: Whether answers keep the order of their texts; otherwise each is sent when it is ready.
        max_in_flight: Most texts of the stream computed at once.
        text_timeout_ns: Longest time for each text from its arrival; None for no limit of its own.
        deadline_ns: When the whole stream's answers stop being of use; None for never.
        id_bytes_max: Longest id or key, in bytes of UTF-8.
        growing_max: Most growing texts open at once.
        sentence_chars_max: Longest unfinished sentence of a growing text, in code points.
        held_chars_max: Most code points held in ids, keys and texts that wait; reading pauses beyond it.
    """

    in_order: bool
    max_in_flight: int
    text_timeout_ns: int | None = None
    deadline_ns: int | None = None
    id_bytes_max: int = 128
    growing_max: int = 64
    sentence_chars_max: int = SENTENCE_CHARS_MAX
    held_chars_max: int = 4 << 20

    @property
    def unsent_max(self) -> int:
        """Most texts that were taken and whose answers were not; reading pauses beyond it.

        Answers that are ready wait for a slow reader or, in order, for a slow text. Superseded texts wait
        like the others, so a stream with one text in flight can still replace the next some hundred times.
        """
        return max(2 * self.max_in_flight, 256)

    def text_deadline_ns(self, arrival_ns: int) -> int | None:
        """Tells when the answer to a text that arrives now stops being of use."""
        if self.text_timeout_ns is None:
            return self.deadline_ns
        own_ns = arrival_ns + self.text_timeout_ns
        return own_ns if self.deadline_ns is None else min(own_ns, self.deadline_ns)
