"""Live inference: texts in, answers out, through tokeniser, scheduler and head."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from penstock_kernels import TokenRows
from penstock_server.config import QueueLimits, RequestLimits
from penstock_server.domain.answer import Answer, AnswerInfo
from penstock_server.domain.errors import InvalidRequest, Overloaded
from penstock_server.domain.explanation import Explanation
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestClass, RequestOptions, TaskOptions, Truncation
from penstock_server.models.heads import check_options
from penstock_server.models.loaded import LoadedModel, check_tokens_max
from penstock_server.observability.observer import SILENT, Observer
from penstock_server.runtime.clock import Clock
from penstock_server.runtime.deferral import MARGIN_NS, Deferral
from penstock_server.runtime.dispatcher import Dispatcher
from penstock_server.runtime.model_table import ModelTable
from penstock_server.runtime.request_checks import (
    check_rows,
    has_pairs,
    naming_one_text,
    refuse_truncated,
)
from penstock_server.runtime.request_ticket import InferenceCall, LateTicket, RequestTicket, TextRow
from penstock_server.runtime.router import UNROUTED, Router

# Work of up to this cost is done on the event loop, where it takes at most about a millisecond; an ordinary
# text takes a thirtieth of that, less than the hop to a thread and back. The unit is an ASCII character.
# Measured 2026-11-24 (Zen 4, texts never seen before, the slowest of six vocabularies): 0.09 us for one of
# ASCII, 0.27 for others, 0.3 for a token that is written to a message and 3 for a row.
_INLINE_COST_MAX = 12 * 1024
_WIDE_CHARACTER_COST = 3
_TOKEN_COST = 4
_ROW_COST = 36
# When trying again makes sense after the tokeniser was full. Chosen: it works off 30 MB a second.
_TOKENISER_RETRY_S = 1.0

_NO_METADATA: Mapping[str, str] = MappingProxyType({})

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Token rows for a caller who wants just those."""

    model: LoadedModel
    tokens: TokenRows
    info: AnswerInfo


class Inference:
    """Answers live calls. Owned by the event loop."""

    def __init__(
        self,
        models: ModelTable,
        dispatcher: Dispatcher,
        limits: RequestLimits,
        queues: QueueLimits,
        clock: Clock,
        *,
        tokenizer_threads: int,
        observer: Observer = SILENT,
        router: Router = UNROUTED,
        deferral: Deferral | None = None,
    ) -> None:
        self._models = models
        self._dispatcher = dispatcher
        self._limits = limits
        self._queues = queues
        self._clock = clock
        self._observer = observer
        self._router = router
        self._deferral = deferral
        self._executor = ThreadPoolExecutor(tokenizer_threads, thread_name_prefix="tokenise")
        self._waiting_chars = 0

    def call(
        self,
        model: ModelKey,
        task: TaskOptions,
        options: RequestOptions,
        deadline_ns: int | None,
        *,
        method: str = "",
        metadata: Mapping[str, str] = _NO_METADATA,
    ) -> InferenceCall:
        """Finds the model and checks the options against it.

        Args:
            model: Name, and version or empty.
            task: The task with its options.
            options: Options of the request.
            deadline_ns: When the answer stops being of use; None for never.
            method: Name of the RPC.
            metadata: The call's metadata, as far as routing rules ask for it.

        Raises:
            UnknownModel, ModelLoading, TaskNotSupported, NotBuilt, InvalidRequest: As their names say.
        """
        loaded = self._models.get(model.name, model.version)
        check_options(loaded.manifest, task)
        check_tokens_max(loaded, options.tokens_max, pairs=False)
        is_pinned = model.version != ""
        return InferenceCall(loaded, task, options, deadline_ns, method, metadata, is_pinned)

    async def answer(self, call: InferenceCall, rows: Sequence[TextRow]) -> Answer:
        """Computes the answer of a whole request.

        Raises:
            PenstockError: The request was refused or failed.
        """
        call = self._router.routed(call, rows)
        ticket = RequestTicket(call, self._clock, self._observer)
        with ticket.counted(len(rows)):
            self._check(call, rows)
            await self._submit_rows(ticket, call, rows)
        if self._can_defer(ticket, rows) and not await self._done_in_time(ticket, call):
            return await self._defer(ticket, call, rows)
        return await ticket.answer()

    def _can_defer(self, ticket: RequestTicket, rows: Sequence[TextRow]) -> bool:
        return ticket.is_demoted_to_bulk and self._deferral is not None and self._deferral.can_take(rows)

    @staticmethod
    async def _done_in_time(ticket: RequestTicket, call: InferenceCall) -> bool:
        """Waits until there is just time left to make a job of a call; whether its answer is there."""
        return call.deadline_ns is None or await ticket.done_by(call.deadline_ns - MARGIN_NS)

    async def _defer(self, ticket: RequestTicket, call: InferenceCall, rows: Sequence[TextRow]) -> Answer:
        """Makes a job of a call that will not be computed while it lasts."""
        assert self._deferral is not None
        ticket.cancel()
        with ticket.counted(len(rows)):
            job_id = await self._deferral.defer(call, rows)
        return ticket.answer_of_job(job_id)

    async def _submit_rows(self, ticket: RequestTicket, call: InferenceCall, rows: Sequence[TextRow]) -> None:
        """Tokenises and queues a request, or its rule's cheaper version of it if there is no room."""
        tokens = await self.off_loop(rows, lambda: self._encode(call, rows))
        try:
            ticket.submit(tokens, self._class_of(call.options, tokens), self._dispatcher)
        except Overloaded:
            cheaper = self._router.cheaper(call, self._models)
            if cheaper is None:
                raise
            tokens = await self.off_loop(rows, lambda: self._encode(cheaper, rows))
            ticket.switch(cheaper)
            request_class = self._class_of(call.options, tokens)
            ticket.submit(tokens, request_class, self._dispatcher, is_again=True)

    def submit(
        self, call: InferenceCall, row: TextRow, *, is_again: bool = False
    ) -> RequestTicket | LateTicket:
        """Queues one text of a stream, a large one once a thread has tokenised it, and returns at once.

        Args:
            call: What the stream asks for.
            row: The text.
            is_again: It was refused for want of room before.

        Raises:
            PenstockError: The text was refused. What only the tokens of a large one show, its answer raises.
        """
        call = self._router.routed(call, [row])
        ticket = RequestTicket(call, self._clock, self._observer)
        with ticket.counted(1), naming_one_text():
            self._check(call, [row])
            if _reading_cost([row]) > _INLINE_COST_MAX:
                return LateTicket(ticket, lambda: self._submit_late(ticket, call, row))
            self._queue_one(ticket, call, row, self._encode(call, [row]), is_again=is_again)
        return ticket

    async def _submit_late(self, ticket: RequestTicket, call: InferenceCall, row: TextRow) -> None:
        with ticket.counted(1), naming_one_text():
            tokens = await self.off_loop([row], lambda: self._encode(call, [row]))
            self._queue_one(ticket, call, row, tokens)

    def _queue_one(
        self,
        ticket: RequestTicket,
        call: InferenceCall,
        row: TextRow,
        tokens: TokenRows,
        *,
        is_again: bool = False,
    ) -> None:
        request_class = call.options.request_class or RequestClass.LIVE
        try:
            ticket.submit(tokens, request_class, self._dispatcher, is_again=is_again)
        except Overloaded:
            cheaper = self._router.cheaper(call, self._models)
            if cheaper is None:
                raise
            ticket.switch(cheaper)
            tokens = self._encode(cheaper, [row])
            ticket.submit(tokens, request_class, self._dispatcher, is_again=True)

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
            UnknownModel, ModelLoading, Overloaded, InvalidRequest: As their names say.
        """
        arrival_ns = self._clock.now_ns()
        loaded = self._models.get(model.name, model.version)
        check_rows(rows, self._limits, allow_empty=True)
        check_tokens_max(loaded, options.tokens_max, pairs=has_pairs(rows), bounded=False)
        truncation = options.truncation or Truncation.RIGHT
        tokens = await self.off_loop(
            rows,
            lambda: loaded.tokenizer.encode(
                [row.text for row in rows],
                [row.pair for row in rows] if has_pairs(rows) else None,
                tokens_max=options.tokens_max,
                truncation=truncation,
                add_special_tokens=special,
                return_offsets=offsets,
            ),
        )
        if truncation is Truncation.ERROR:
            refuse_truncated(tokens, options.tokens_max)
        self._check_total(tokens)
        return Tokenised(loaded, tokens, self._tokenised_info(loaded, options, tokens, arrival_ns))

    async def off_loop(
        self, rows: Sequence[TextRow], work: Callable[[], _Value], written: TokenRows | None = None
    ) -> _Value:
        """Does work over texts on the event loop if it is quick, else on a thread.

        Args:
            rows: The texts.
            work: Tokenises them, or writes their tokens to a message.
            written: The tokens in the latter case.

        Raises:
            Overloaded: Too much text waits for the threads already.
        """
        cost = _reading_cost(rows) if written is None else _writing_cost(written)
        if cost <= _INLINE_COST_MAX:
            return work()
        with self._room_for(sum(len(row.text) + len(row.pair or "") for row in rows)):
            return await self.on_thread(work)

    async def on_thread(self, work: Callable[[], _Value]) -> _Value:
        """Does work that would hold the event loop for more than a millisecond."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Frees the tokeniser threads; idempotent."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _room_for(self, chars: int) -> Generator[None]:
        if self._waiting_chars and self._waiting_chars + chars > self._limits.tokenising_chars_max:
            raise Overloaded("Too much text waits to be tokenised.", retry_after_s=_TOKENISER_RETRY_S)
        self._waiting_chars += chars
        try:
            yield
        finally:
            self._waiting_chars -= chars

    def _check(self, call: InferenceCall, rows: Sequence[TextRow]) -> None:
        check_rows(rows, self._limits, allow_empty=False)
        if has_pairs(rows):
            check_tokens_max(call.model, call.options.tokens_max, pairs=True)

    def _class_of(self, options: RequestOptions, tokens: TokenRows) -> RequestClass:
        """The class asked for; where none is, small calls are live and large ones can wait a little."""
        if options.request_class is not None:
            return options.request_class
        is_large = int(tokens.starts[-1]) > self._queues.live_request_tokens_max
        return RequestClass.FLEX if is_large else RequestClass.LIVE

    def _encode(self, call: InferenceCall, rows: Sequence[TextRow]) -> TokenRows:
        """Tokenises rows, and refuses those that are too long if the caller wants that."""
        manifest = call.model.manifest
        truncation = call.options.truncation or manifest.truncation
        tokens_max = call.options.tokens_max or manifest.tokens_max
        tokens = call.model.tokenizer.encode(
            [row.text for row in rows],
            [row.pair for row in rows] if has_pairs(rows) else None,
            tokens_max=tokens_max,
            truncation=truncation,
        )
        if truncation is Truncation.ERROR:
            refuse_truncated(tokens, tokens_max)
        return tokens

    def _check_total(self, tokens: TokenRows) -> None:
        total, limit = int(tokens.starts[-1]), self._limits.tokenize_tokens_max
        if total > limit:
            raise InvalidRequest.of_field(
                "inputs", f"have {total:,} tokens; at most {limit:,} are returned by one call: split it"
            )

    def _tokenised_info(
        self, model: LoadedModel, options: RequestOptions, tokens: TokenRows, arrival_ns: int
    ) -> AnswerInfo:
        elapsed_ns = self._clock.now_ns() - arrival_ns
        return AnswerInfo(
            model=model.manifest.key,
            served_class=options.request_class or RequestClass.LIVE,
            total_ns=elapsed_ns,
            tokenise_ns=elapsed_ns,
            queue_ns=0,
            compute_ns=0,
            tokens=int(tokens.starts[-1]),
            truncated_rows=int(np.count_nonzero(tokens.truncated)),
            explanation=Explanation(tenant=options.tenant) if options.explain else None,
        )


def _reading_cost(rows: Sequence[TextRow]) -> int:
    return sum(
        _text_cost(row.text) if row.pair is None else _text_cost(row.text) + _text_cost(row.pair)
        for row in rows
    )


def _text_cost(text: str) -> int:
    return len(text) if text.isascii() else _WIDE_CHARACTER_COST * len(text)


def _writing_cost(tokens: TokenRows) -> int:
    return _TOKEN_COST * int(tokens.starts[-1]) + _ROW_COST * tokens.rows
