"""A request on its way from its texts to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_kernels import TokenRows
from penstock_server.domain.answer import Answer, AnswerInfo
from penstock_server.domain.errors import PenstockError
from penstock_server.domain.explanation import BatchRun, Explanation
from penstock_server.domain.routing import RoutingRule
from penstock_server.domain.tasks import OverloadPolicy, RequestClass, RequestOptions, TaskOptions
from penstock_server.domain.work import BatchTimes, Work
from penstock_server.models.heads import finish
from penstock_server.models.loaded import LoadedModel
from penstock_server.observability.observer import Observer
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.dispatcher import Dispatcher


class TextRow(msgspec.Struct, frozen=True, gc=False):
    """A text or text pair as it came. Not a dataclass: making those took half the time to read a request."""

    text: str
    pair: str | None = None


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """What a caller asks for, parsed and checked for form.

    Attributes:
        model: The model version that answers.
        task: The task with its options.
        options: Options of the request.
        deadline_ns: When the answer stops being of use; None for never.
        method: Name of the RPC.
        metadata: The call's metadata, as far as routing rules ask for it.
        is_pinned: Whether the caller named the version.
        rule: The routing rule that it falls under; None for none, or while it is not looked for.
        spared_version: The version that would have answered but for the overload; empty if it is this one.
    """

    model: LoadedModel
    task: TaskOptions
    options: RequestOptions
    deadline_ns: int | None
    method: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    is_pinned: bool = False
    rule: RoutingRule | None = None
    spared_version: str = ""


class RequestTicket:
    """A request on its way. Takes its rows' outputs and becomes its answer."""

    def __init__(self, call: InferenceCall, clock: Clock, observer: Observer) -> None:
        self._call = call
        self._observer = observer
        self._clock = clock
        arrival_ns = clock.now_ns()
        self._arrival_ns = arrival_ns
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._dispatcher: Dispatcher | None = None
        self._work: Work | None = None
        self._outputs: NDArray[np.float32] | None = None
        self._rows = 0
        self._rows_left = 0
        self._admitted_ns = arrival_ns
        self._last_start_ns = arrival_ns
        self._compute_ns = 0
        self._asked_class = RequestClass.LIVE

    @property
    def is_started(self) -> bool:
        """Whether rows have been put into a batch."""
        return self._work is not None and self._work.started

    def submit(
        self,
        tokens: TokenRows,
        request_class: RequestClass,
        dispatcher: Dispatcher,
        *,
        is_again: bool = False,
    ) -> None:
        """Queues the tokenised rows, ``is_again`` after a refusal; raises as ``Dispatcher.submit``."""
        self._admitted_ns = self._clock.now_ns()
        self._rows = self._rows_left = tokens.rows
        options = self._call.options
        self._work = Work(
            model=self._call.model.manifest.key,
            request_class=request_class,
            tokens=tokens,
            rows=np.arange(tokens.rows, dtype=np.int32),
            sink=self,
            arrival_ns=self._arrival_ns,
            deadline_ns=self._call.deadline_ns,
            runs=[] if options.explain else None,
            tenant=options.tenant,
        )
        self._asked_class = request_class
        self._dispatcher = dispatcher
        overload = options.overload_policy or OverloadPolicy.REJECT
        dispatcher.submit(self._work, overload, is_again=is_again)

    def switch(self, call: InferenceCall) -> None:
        """Goes on as another call: routed, or answered by another version. Before ``submit`` only."""
        self._call = call

    def cancel(self) -> None:
        """Drops the rows that are not in a batch yet; ``answer`` may then wait for ever."""
        if self._work is not None and self._dispatcher is not None and not self._has_outcome:
            self._dispatcher.cancel(self._work)

    async def answer(self) -> Answer:
        """Waits for the answer. Cancelling the wait drops the rows.

        Raises:
            PenstockError: A row could not be computed; the other rows' outputs are dropped.
        """
        with self.counted(self._rows):
            try:
                await self._done
            except asyncio.CancelledError:
                self.cancel()
                raise
        assert self._outputs is not None
        assert self._work is not None
        outcome = finish(self._outputs, self._call.model.manifest, self._call.task)
        info = self._info(self._work)
        self._observer.answered(self._call.method, self._call.options.tenant, self._rows, info)
        return Answer(outcome, info)

    @property
    def _has_outcome(self) -> bool:
        """Whether all rows are computed, or one has failed."""
        # A task that is cancelled cancels the future that it awaits, which says nothing of the rows.
        return self._done.done() and not self._done.cancelled()

    @property
    def is_demoted_to_bulk(self) -> bool:
        """Whether it asked for a more urgent class and waits as BULK."""
        work = self._work
        return work is not None and work.request_class is RequestClass.BULK is not self._asked_class

    async def done_by(self, when_ns: int) -> bool:
        """Waits for the answer until a time; whether it is there. Cancelling the wait drops the rows."""
        left_s = max(0, when_ns - self._clock.now_ns()) / 1e9
        with self.counted(self._rows):
            try:
                await asyncio.wait((self._done,), timeout=left_s)
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self._done.done()

    def answer_of_job(self, job_id: str) -> Answer:
        """The answer of a call whose rows a job computes; ``cancel`` was called."""
        assert self._work is not None
        self.not_answered(self._rows, "DEFERRED")
        info = self._info(self._work)
        return Answer(None, replace(info, job_id=job_id, tokens=0, queue_ns=0, compute_ns=0))

    def counted(self, rows: int) -> Counted:
        """Tells the observer if what is done within ends without an answer."""
        return Counted(self, rows)

    def not_answered(self, rows: int, why: str, limit: str = "") -> None:
        """Tells the observer that there will be no answer."""
        options = self._call.options
        asked = options.request_class if self._work is None else self._asked_class
        model = self._call.model.manifest.key
        self._observer.not_answered(self._call.method, options.tenant, rows, model, asked, why, limit)

    def deliver(self, rows: NDArray[np.int32], outputs: NDArray[np.float32], times: BatchTimes) -> None:
        """Takes the outputs of some rows."""
        if self._outputs is None:
            self._outputs = np.empty((self._rows, outputs.shape[1]), np.float32)
        self._outputs[rows] = outputs
        self._rows_left -= len(rows)
        self._last_start_ns = max(self._last_start_ns, times.start_ns)
        self._compute_ns = max(self._compute_ns, times.end_ns - times.start_ns)
        if self._rows_left == 0 and not self._done.done():
            self._done.set_result(None)

    def fail(self, rows: NDArray[np.int32], error: PenstockError) -> None:
        """Fails the whole request with the first error; its other rows need not be computed any more."""
        if not self._done.done():
            self.cancel()
            self._done.set_exception(error)
            # A caller that has gone does not fetch it; that is no defect to report at collection.
            self._done.exception()

    def _info(self, work: Work) -> AnswerInfo:
        return AnswerInfo(
            model=work.model,
            served_class=work.request_class,
            total_ns=self._clock.now_ns() - self._arrival_ns,
            tokenise_ns=self._admitted_ns - self._arrival_ns,
            # A row that follows one in a running batch has waited for less than nothing.
            queue_ns=max(0, self._last_start_ns - self._admitted_ns),
            compute_ns=self._compute_ns,
            tokens=int(work.tokens.starts[-1]),
            truncated_rows=int(np.count_nonzero(work.tokens.truncated)),
            explanation=None if work.runs is None else self._explanation(work, work.runs),
        )

    def _explanation(self, work: Work, runs: list[BatchRun]) -> Explanation:
        return Explanation(
            batches=tuple(sorted(runs, key=lambda run: run.start_ns)),
            admitted_ns=self._admitted_ns,
            tenant=self._call.options.tenant,
            demoted_from=self._asked_class if work.request_class is not self._asked_class else None,
            routing_rule="" if self._call.rule is None else self._call.rule.name,
            spared_version=self._call.spared_version,
            predicted_ns=self._predicted_ns(runs),
            cached_rows=work.cached_rows,
        )

    def _predicted_ns(self, runs: list[BatchRun]) -> int | None:
        """When the last batch was to end, from admission; those split from a failed one are not predicted."""
        if not runs or not all(run.predicted_ns for run in runs):
            return None
        return max(run.start_ns + run.predicted_ns for run in runs) - self._admitted_ns


class Counted:
    """Counts a request that ends within it without an answer. A class: a generator takes far longer."""

    __slots__ = ("_rows", "_ticket")

    def __init__(self, ticket: RequestTicket, rows: int) -> None:
        self._ticket = ticket
        self._rows = rows

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        if isinstance(error, PenstockError):
            # Which limit was reached says more than that one was.
            limit = error.metadata.get("limit", "")
            self._ticket.not_answered(self._rows, error.reason, limit)
        elif isinstance(error, asyncio.CancelledError):
            self._ticket.not_answered(self._rows, "CANCELLED")
        else:
            self._ticket.not_answered(self._rows, "INTERNAL")


class LateTicket:
    """The ticket of a text that is not queued yet: a thread tokenises it first, while its answer is awaited.

    Args:
        ticket: The text's ticket.
        submit: Tokenises and queues the text; raises a PenstockError if it is refused.
    """

    def __init__(self, ticket: RequestTicket, submit: Callable[[], Awaitable[None]]) -> None:
        self._ticket = ticket
        self._submit = submit

    @property
    def is_started(self) -> bool:
        """Whether the text has been put into a batch."""
        return self._ticket.is_started

    def cancel(self) -> None:
        """Drops the text if it is queued; before that, cancel the wait for its answer."""
        self._ticket.cancel()

    async def answer(self) -> Answer:
        """Queues the text and waits for the answer. Cancelling the wait drops the text.

        Raises:
            PenstockError: The text was refused or could not be computed.
        """
        await self._submit()
        return await self._ticket.answer()
