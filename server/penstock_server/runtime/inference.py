"""Live inference: texts in, answers out, through tokeniser, scheduler and head."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from penstock_server.config import RequestLimits
from penstock_server.domain.answer import Answer, AnswerInfo, Classifications, Vectors
from penstock_server.domain.errors import FieldViolation, InvalidRequest, PenstockError
from penstock_server.domain.model import ModelKey, ModelManifest
from penstock_server.domain.tasks import RequestOptions, Task, TaskOptions, Truncation
from penstock_server.domain.work import BatchTimes, Work
from penstock_server.models.heads import check_options, finish_classify, finish_embed
from penstock_server.models.loaded import LoadedModel
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.dispatcher import Dispatcher
from penstock_server.runtime.model_table import ModelTable

if TYPE_CHECKING:
    from penstock_kernels import TokenRows

# Texts up to this size are tokenised on the event loop: about half a millisecond at 30 MB/s, less than the
# hop to a thread and back costs under load.
_INLINE_BYTES_MAX = 16 * 1024
_VIOLATIONS_MAX = 20


@dataclass(frozen=True, slots=True)
class TextRow:
    """A text or text pair as it came."""

    text: str
    pair: str | None = None


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """What a caller asks for, parsed and checked for form."""

    model: LoadedModel
    task: TaskOptions
    options: RequestOptions
    deadline_ns: int | None


class RequestTicket:
    """A request on its way. Takes its rows' outputs and becomes its answer."""

    def __init__(self, call: InferenceCall, clock: Clock, arrival_ns: int) -> None:
        self._call = call
        self._clock = clock
        self._arrival_ns = arrival_ns
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._dispatcher: Dispatcher | None = None
        self._work: Work | None = None
        self._outputs: NDArray[np.float32] | None = None
        self._rows_left = 0
        self._admitted_ns = arrival_ns
        self._last_start_ns = arrival_ns
        self._compute_ns = 0

    @property
    def is_started(self) -> bool:
        """Whether rows have been put into a batch."""
        return self._work is not None and self._work.started

    def submit(self, tokens: TokenRows, dispatcher: Dispatcher) -> None:
        """Queues the tokenised rows. Raises what ``Dispatcher.submit`` raises."""
        self._admitted_ns = self._clock.now_ns()
        self._rows_left = tokens.rows
        options = self._call.options
        self._work = Work(
            model=self._call.model.manifest.key,
            request_class=options.request_class,
            tokens=tokens,
            rows=np.arange(tokens.rows, dtype=np.int32),
            sink=self,
            arrival_ns=self._arrival_ns,
            deadline_ns=self._call.deadline_ns,
        )
        self._dispatcher = dispatcher
        dispatcher.submit(self._work, options.overload_policy)

    def cancel(self) -> None:
        """Drops the rows that are not in a batch yet; ``answer`` may then wait for ever."""
        if self._work is not None and self._dispatcher is not None and not self._done.done():
            self._dispatcher.cancel(self._work)

    async def answer(self) -> Answer:
        """Waits for the answer. Cancelling the wait drops the rows.

        Raises:
            PenstockError: A row could not be computed; the other rows' outputs are dropped.
        """
        try:
            await self._done
        except asyncio.CancelledError:
            self.cancel()
            raise
        assert self._outputs is not None
        assert self._work is not None
        outcome = finish(self._outputs, self._call.model.manifest, self._call.task)
        return Answer(outcome, self._info(self._work))

    def deliver(self, rows: NDArray[np.int32], outputs: NDArray[np.float32], times: BatchTimes) -> None:
        """Takes the outputs of some rows."""
        if self._outputs is None:
            assert self._work is not None
            self._outputs = np.empty((len(self._work.rows), outputs.shape[1]), np.float32)
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
            queue_ns=self._last_start_ns - self._admitted_ns,
            compute_ns=self._compute_ns,
            tokens=int(work.tokens.starts[-1]),
            truncated_rows=int(np.count_nonzero(work.tokens.truncated)),
        )


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Token rows for a caller who wants just those."""

    model: LoadedModel
    tokens: TokenRows
    info: AnswerInfo


class Inference:
    """Answers live calls. Owned by the event loop."""

    def __init__(
        self, models: ModelTable, dispatcher: Dispatcher, limits: RequestLimits, clock: Clock
    ) -> None:
        self._models = models
        self._dispatcher = dispatcher
        self._limits = limits
        self._clock = clock
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenise")

    def call(
        self, model: ModelKey, task: TaskOptions, options: RequestOptions, deadline_ns: int | None
    ) -> InferenceCall:
        """Finds the model and checks the options against it.

        Args:
            model: Name, and version or empty.
            task: The task with its options.
            options: Options of the request.
            deadline_ns: When the answer stops being of use; None for never.

        Raises:
            UnknownModel, ModelLoading, TaskNotSupported, NotBuilt, InvalidRequest: As their names say.
        """
        loaded = self._models.get(model.name, model.version)
        check_options(loaded.manifest, task)
        self._check_tokens_max(loaded, options)
        return InferenceCall(loaded, task, options, deadline_ns)

    async def answer(self, call: InferenceCall, rows: Sequence[TextRow]) -> Answer:
        """Computes the answer of a whole request.

        Raises:
            PenstockError: The request was refused or failed.
        """
        ticket = RequestTicket(call, self._clock, self._clock.now_ns())
        self._check_rows(rows, allow_empty=False)
        tokens = await self._tokenise(call, rows)
        ticket.submit(tokens, self._dispatcher)
        return await ticket.answer()

    def submit(self, call: InferenceCall, row: TextRow) -> RequestTicket:
        """Queues one text of a stream and returns at once. Raises as ``answer`` does."""
        ticket = RequestTicket(call, self._clock, self._clock.now_ns())
        self._check_rows([row], allow_empty=False)
        ticket.submit(self._encode(call, [row]), self._dispatcher)
        return ticket

    async def tokenise(
        self,
        model: ModelKey,
        options: RequestOptions,
        rows: Sequence[TextRow],
        *,
        special: bool,
        offsets: bool,
    ) -> Tokenised:
        """Splits texts into tokens without computing anything.

        Raises:
            UnknownModel, ModelLoading, InvalidRequest: As their names say.
        """
        arrival_ns = self._clock.now_ns()
        loaded = self._models.get(model.name, model.version)
        self._check_rows(rows, allow_empty=True)
        truncation = options.truncation or Truncation.RIGHT
        tokens = await self._in_executor(
            rows,
            lambda: loaded.tokenizer.encode(
                [row.text for row in rows],
                [row.pair for row in rows] if any(row.pair is not None for row in rows) else None,
                tokens_max=options.tokens_max,
                truncation=truncation,
                add_special_tokens=special,
                return_offsets=offsets,
            ),
        )
        if truncation is Truncation.ERROR:
            self._refuse_truncated(tokens, options.tokens_max)
        now_ns = self._clock.now_ns()
        truncated = int(np.count_nonzero(tokens.truncated))
        total = int(tokens.starts[-1])
        elapsed_ns = now_ns - arrival_ns
        info = AnswerInfo(
            loaded.manifest.key, options.request_class, elapsed_ns, elapsed_ns, 0, 0, total, truncated
        )
        return Tokenised(loaded, tokens, info)

    def close(self) -> None:
        """Frees the tokeniser threads; idempotent."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _tokenise(self, call: InferenceCall, rows: Sequence[TextRow]) -> TokenRows:
        return await self._in_executor(rows, lambda: self._encode(call, rows))

    async def _in_executor(self, rows: Sequence[TextRow], work: Callable[[], TokenRows]) -> TokenRows:
        """Tokenises on the event loop if it is quick, else on a thread."""
        if sum(len(row.text) + len(row.pair or "") for row in rows) <= _INLINE_BYTES_MAX:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _encode(self, call: InferenceCall, rows: Sequence[TextRow]) -> TokenRows:
        """Tokenises rows, and refuses those that are too long if the caller wants that."""
        manifest = call.model.manifest
        truncation = call.options.truncation or manifest.truncation
        tokens_max = call.options.tokens_max or manifest.tokens_max
        tokens = call.model.tokenizer.encode(
            [row.text for row in rows],
            [row.pair for row in rows] if any(row.pair is not None for row in rows) else None,
            tokens_max=tokens_max,
            truncation=truncation,
        )
        if truncation is Truncation.ERROR:
            self._refuse_truncated(tokens, tokens_max)
        return tokens

    def _check_rows(self, rows: Sequence[TextRow], *, allow_empty: bool) -> None:
        """Refuses rows that can never work, naming each."""
        if not rows:
            raise InvalidRequest.of_field("inputs", "is empty; send at least one text")
        if len(rows) > self._limits.rows_max:
            raise InvalidRequest.of_field(
                "inputs",
                f"has {len(rows):,} rows; at most {self._limits.rows_max:,} are allowed: split it",
            )
        violations = [
            FieldViolation(f"inputs[{index}].{name}", problem)
            for index, row in enumerate(rows)
            for name, text in (("text", row.text), ("text_pair", row.pair))
            if text is not None and (problem := self._problem_of(text, allow_empty=allow_empty))
        ]
        if violations:
            first = violations[0]
            more = f" ({len(violations) - 1} more are wrong)" if len(violations) > 1 else ""
            raise InvalidRequest(f"{first.field}: {first.description}{more}", violations[:_VIOLATIONS_MAX])

    def _problem_of(self, text: str, *, allow_empty: bool) -> str:
        if not text and not allow_empty:
            return "is empty; leave out empty texts"
        limit = self._limits.text_bytes_max
        # Most texts are far below the limit; only those that might exceed it are measured in bytes.
        if len(text) * 4 > limit and len(text.encode()) > limit:
            return f"is longer than {limit:,} bytes; cut it into parts"
        return ""

    @staticmethod
    def _check_tokens_max(model: LoadedModel, options: RequestOptions) -> None:
        if options.tokens_max is None:
            return
        low = model.tokenizer.special_tokens_count(False) + 1
        high = model.manifest.tokens_max
        if not low <= options.tokens_max <= high:
            raise InvalidRequest.of_field(
                "options.tokens_max",
                f"is {options.tokens_max}; this model allows {low} to {high} (0 for its default)",
            )

    @staticmethod
    def _refuse_truncated(tokens: TokenRows, tokens_max: int | None) -> None:
        indices = np.flatnonzero(tokens.truncated)
        if not len(indices):
            return
        problem = f"has more than {tokens_max} tokens, and truncation is off; shorten it or allow truncation"
        violations = [FieldViolation(f"inputs[{index}].text", problem) for index in indices[:_VIOLATIONS_MAX]]
        raise InvalidRequest(f"{violations[0].field}: {problem}", violations)


def finish(
    outputs: NDArray[np.float32], manifest: ModelManifest, options: TaskOptions
) -> Vectors | Classifications:
    """Turns an engine's outputs into answers with the head of the task."""
    if options.task is Task.EMBED:
        return Vectors(finish_embed(outputs, manifest, options.embed))
    return finish_classify(outputs, manifest, options.classify)
