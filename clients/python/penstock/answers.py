"""What calls return: frozen values read from the server's messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar, cast, overload

from penstock.explanations import Explanation
from penstock.options import RequestClass
from penstock.times import seconds_of
from penstock.v1 import common_pb2, inference_pb2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of an answer went, in seconds. The parts overlap for requests of many rows.

    Attributes:
        total_s: From arrival in the server until the answer was complete.
        tokenise_s: Spent turning texts into token ids.
        queue_s: From admission until the last row's batch was started.
        compute_s: Longest time that a batch with rows of the request took on the engine.
    """

    total_s: float = 0.0
    tokenise_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0

    @classmethod
    def of(cls, message: common_pb2.Timings) -> Timings:
        """Reads the server's message."""
        return cls(
            seconds_of(message.total),
            seconds_of(message.tokenise),
            seconds_of(message.queue),
            seconds_of(message.compute),
        )


@dataclass(frozen=True, slots=True)
class AnswerInfo:
    """What is said of every answer.

    Attributes:
        model: The model that answered.
        version: The version that answered.
        served_class: The class the request was served as; another than the one asked for after a demotion.
        timings: Where the time went.
        tokens: Tokens computed, special tokens included, padding not.
        truncated_rows: Texts whose tokens were cut to the limit.
        job_id: Id of the job that computes the request, after a demotion to BULK that outlasts the call:
            there are no answers yet, read them with ``client.bulk.results(job_id)``. Empty otherwise.
        explanation: What happened to the request; None unless asked for.
    """

    model: str = ""
    version: str = ""
    served_class: RequestClass = RequestClass.UNSPECIFIED
    timings: Timings = field(default_factory=Timings)
    tokens: int = 0
    truncated_rows: int = 0
    job_id: str = ""
    explanation: Explanation | None = None

    @classmethod
    def of(cls, message: common_pb2.AnswerInfo) -> AnswerInfo:
        """Reads the server's message."""
        return cls(
            message.model,
            message.model_version,
            RequestClass.of_number(message.served_class),
            Timings.of(message.timings),
            message.tokens,
            message.truncated_rows,
            message.job_id,
            Explanation.of(message.explanation) if message.HasField("explanation") else None,
        )

    @classmethod
    def joined(cls, parts: Sequence[AnswerInfo]) -> AnswerInfo:
        """Sums up the calls that a long list was split into, one after the other: times and tokens add up."""
        timings = Timings(
            sum(part.timings.total_s for part in parts),
            sum(part.timings.tokenise_s for part in parts),
            sum(part.timings.queue_s for part in parts),
            max(part.timings.compute_s for part in parts),
        )
        explained = [part.explanation for part in parts if part.explanation is not None]
        return cls(
            parts[0].model,
            parts[0].version,
            max((part.served_class for part in parts), key=lambda served: served.number),
            timings,
            sum(part.tokens for part in parts),
            sum(part.truncated_rows for part in parts),
            next((part.job_id for part in parts if part.job_id), ""),
            Explanation.joined(explained) if explained else None,
        )


class Answers(Sequence[T], Generic[T]):
    """The answers to the texts of a call, in the order of the texts.

    Attributes:
        info: What answered, and how long it took.
    """

    __slots__ = ("_rows", "info")

    def __init__(self, rows: Sequence[T], info: AnswerInfo) -> None:
        self._rows = tuple(rows)
        self.info = info

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> T | Self:
        if isinstance(index, slice):
            return type(self)(self._rows[index], self.info)
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[T]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        """Compares the rows; the timings of two calls always differ."""
        return isinstance(other, Answers) and self._rows == cast("Answers[T]", other)._rows

    def __hash__(self) -> int:
        return hash(self._rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows of {self.info.model}@{self.info.version})"


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label with its score."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The labels of one text, best first."""

    labels: tuple[LabelScore, ...]

    @classmethod
    def of(cls, message: common_pb2.Classification) -> Classification:
        """Reads the server's message."""
        return cls(tuple(LabelScore(each.label, each.score) for each in message.labels))

    @property
    def label(self) -> str:
        """The best label; empty if the model gave none."""
        return self.labels[0].label if self.labels else ""

    @property
    def score(self) -> float:
        """The best label's score; 0 if the model gave none."""
        return self.labels[0].score if self.labels else 0.0


class Classifications(Answers[Classification]):
    """The labels of each text."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled part of a text.

    Attributes:
        label: The label, without a B- or I- prefix.
        score: Its score, from 0 to 1.
        start_char: First character (code point) of the span: ``text[start_char:end_char]`` is the span.
        end_char: One past the last character.
        start_byte: First UTF-8 byte.
        end_byte: One past the last UTF-8 byte.
    """

    label: str
    score: float
    start_char: int
    end_char: int
    start_byte: int
    end_byte: int


def spans_of(message: common_pb2.TagList) -> tuple[Span, ...]:
    """Reads the labelled spans of one text, in text order."""
    return tuple(
        Span(each.label, each.score, each.start_char, each.end_char, each.start_byte, each.end_byte)
        for each in message.spans
    )


class TagLists(Answers[tuple[Span, ...]]):
    """The labelled spans of each text."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document with its relevance; ``index`` is its place in the request, from 0."""

    index: int
    score: float


class Ranking(Answers[RankedDocument]):
    """The documents of a call, most relevant first."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text or pair.

    Attributes:
        ids: Ids in the model's vocabulary.
        tokens: Token strings; None unless asked for.
        offsets: First and one past the last character of each token in its text; None unless asked for.
        type_ids: 0 for tokens of the text, 1 for tokens of the pair's second text.
        truncated: Whether tokens were cut to the limit.
    """

    ids: tuple[int, ...]
    tokens: tuple[str, ...] | None
    offsets: tuple[tuple[int, int], ...] | None
    type_ids: tuple[int, ...]
    truncated: bool

    @classmethod
    def of(cls, message: inference_pb2.TokenSequence, *, strings: bool, offsets: bool) -> Tokens:
        """Reads the server's message; ``strings`` and ``offsets`` tell what was asked for."""
        return cls(
            tuple(message.ids),
            tuple(message.tokens) if strings else None,
            tuple(zip(message.start_chars, message.end_chars, strict=True)) if offsets else None,
            tuple(message.type_ids),
            message.truncated,
        )

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizations(Answers[Tokens]):
    """The tokens of each text."""

    __slots__ = ()
