"""What a call does, written once for both clients.

An exchange is a generator: it yields the steps of a call and gets each step's answer sent in, or its
error thrown in, and returns the call's result. ``Client`` performs the steps on ``grpc``, ``AsyncClient``
on ``grpc.aio``; everything between the steps (splitting, joining, retrying, deadlines) is shared and
needs no network to be tested.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from penstock.errors import DeadlineExceededError, ErrorDetails, OverloadedError

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
T = TypeVar("T")

# gRPC itself retries what may be retried (UNAVAILABLE, see `channel.py`). An overloaded server's
# RESOURCE_EXHAUSTED is retried here, because gRPC cannot tell one with RetryInfo, which asks for it, from
# one without (a message over the size limit, a full disk), which AIP-194 says not to retry.
OVERLOAD_ATTEMPTS_MAX = 3

# gRPC takes a timeout of 1e9 s, but fails the call at once from 1e10 s on. A year, which is longer than
# any call, is the most it is given.
TIMEOUT_S_MAX = 365 * 24 * 3600.0

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """One method of a service, with the types of its messages."""

    path: str
    request: type[RequestT]
    response: type[ResponseT]


@dataclass(frozen=True, slots=True)
class Unary:
    """A step: send a request, get its response."""

    method: Method[Any, Any]
    request: Message
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Send:
    """A step: send many requests, get one response.

    ``requests`` may block on a disk: an asynchronous driver reads it on another thread.
    """

    method: Method[Any, Any]
    requests: Iterator[Message]
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Local:
    """A step: do something on this machine that may block, such as reading a file; its answer is the result.

    An asynchronous driver does it on another thread.
    """

    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """A step: wait."""

    delay_s: float


Step = Unary | Send | Local | Pause
Exchange = Generator[Step, Any, T]


class Deadline:
    """When a call must have ended; None, like anything beyond ``TIMEOUT_S_MAX``, is never."""

    def __init__(self, timeout_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        if timeout_s is not None and not timeout_s >= 0:
            raise ValueError(f"timeout_s must be 0 or more seconds, not {timeout_s!r}")
        if timeout_s is not None and timeout_s > TIMEOUT_S_MAX:
            timeout_s = None
        self._clock = clock
        self._timeout_s = timeout_s
        self._end_s = None if timeout_s is None else clock() + timeout_s

    def remaining_s(self) -> float | None:
        """Returns the time left in seconds, None for no limit.

        Raises:
            DeadlineExceededError: No time is left.
        """
        if self._end_s is None:
            return None
        remaining_s = self._end_s - self._clock()
        if remaining_s <= 0:
            raise DeadlineExceededError(
                f"no answer within timeout_s={self._timeout_s:g}", ErrorDetails("CLIENT_DEADLINE")
            )
        return remaining_s

    def allows(self, delay_s: float) -> bool:
        """Tells whether time would be left after waiting that long."""
        return self._end_s is None or self._clock() + delay_s < self._end_s


def ask(
    method: Method[RequestT, ResponseT], request: RequestT, deadline: Deadline
) -> Generator[Step, Any, ResponseT]:
    """Sends a request, again if an overloaded server says when, and the deadline allows it."""
    for attempts_left in reversed(range(OVERLOAD_ATTEMPTS_MAX)):
        try:
            response: ResponseT = yield Unary(method, request, deadline.remaining_s())
        except OverloadedError as error:
            delay_s = error.retry_after_s
            if delay_s is None or not attempts_left or not deadline.allows(delay_s):
                raise
            yield Pause(delay_s)
        else:
            return response
    raise AssertionError("the last attempt returns or raises")


def split_rows(
    rows: Sequence[T], rows_max: int, bytes_max: int, size: Callable[[T], int]
) -> list[Sequence[T]]:
    """Cuts a list into parts of at most ``rows_max`` rows and ``bytes_max`` bytes, one row at least.

    Args:
        rows: What to cut, in order; an empty list is one empty part, which the server then refuses.
        rows_max: Most rows of a part.
        bytes_max: Most bytes of a part; a larger row makes a part of its own.
        size: Bytes of a row, or a bound of them.
    """
    parts: list[Sequence[T]] = []
    start = part_bytes = 0
    for index, row in enumerate(rows):
        row_bytes = size(row)
        if index > start and (index - start == rows_max or part_bytes + row_bytes > bytes_max):
            parts.append(rows[start:index])
            start, part_bytes = index, 0
        part_bytes += row_bytes
    parts.append(rows[start:])
    return parts


def metadata_of(
    metadata: Mapping[str, str] | Sequence[tuple[str, str]] | None, token: str | None
) -> Metadata:
    """Joins the caller's metadata with the bearer token."""
    pairs = metadata.items() if isinstance(metadata, Mapping) else metadata or ()
    joined = tuple((key.lower(), value) for key, value in pairs)
    return joined if token is None else (*joined, ("authorization", f"Bearer {token}"))
