from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from penstock_kernels import TokenRows
from penstock_server.config import QueueLimits, RequestLimits
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.tasks import RequestOptions, Task, TaskOptions, Truncation
from penstock_server.models.repository import ModelRepository
from penstock_server.runtime.dispatcher import Dispatcher
from penstock_server.runtime.inference import Inference
from penstock_server.runtime.model_table import ModelTable
from penstock_server.runtime.request_ticket import InferenceCall, LateTicket, TextRow
from penstock_server.scheduling.cost import CostModels
from penstock_server.scheduling.scheduler import Scheduler, SchedulerLimits
from penstock_server.text.tokenizer import TokenizerLimits
from tests.support.bulk_jobs import sums_model

LIMITS = SchedulerLimits(
    10_000, 10_000, 10_000, live_batch_tokens_max=100, bulk_batch_tokens=100, lookahead_rows=8
)


class StoppedClock:
    def now_ns(self) -> int:
        return 0


@pytest.fixture
def inference(tmp_path: Path) -> Generator[Inference]:
    clock = StoppedClock()
    inference = Inference(
        ModelTable(ModelRepository(tmp_path), [], TokenizerLimits()),
        Dispatcher(Scheduler(LIMITS, CostModels()), [], clock),
        RequestLimits(),
        QueueLimits(),
        clock,
        tokenizer_threads=1,
    )
    yield inference
    inference.close()


def token_rows(rows: int, tokens_per_row: int) -> TokenRows:
    count = rows * tokens_per_row
    return TokenRows(
        np.zeros(count, np.int32),
        np.zeros(count, np.uint8),
        np.arange(rows + 1, dtype=np.int64) * tokens_per_row,
        np.zeros(rows, np.bool_),
        np.ones(rows, np.bool_),
    )


@pytest.mark.parametrize(
    ("rows", "is_inline"),
    [
        ([TextRow("a" * 12_288)], True),
        ([TextRow("a" * 12_289)], False),
        ([TextRow("a" * 6_144, "a" * 6_144)], True),
        ([TextRow("a" * 6_144, "a" * 6_145)], False),
        # Characters of other scripts have more bytes, and more of them are in no cache.
        ([TextRow("\u65e5" * 4_096)], True),
        ([TextRow("\u65e5" * 4_097)], False),
        ([TextRow("a" * 120)] * 64, True),
    ],
)
async def test_texts_that_may_take_more_than_a_millisecond_leave_the_event_loop(
    inference: Inference, rows: list[TextRow], is_inline: bool
) -> None:
    thread = await inference.off_loop(rows, threading.current_thread)
    assert (thread is threading.main_thread()) == is_inline


@pytest.mark.parametrize(
    ("tokens", "is_inline"),
    [(token_rows(64, 30), True), (token_rows(1, 4_000), False), (token_rows(1024, 3), False)],
)
async def test_messages_of_many_tokens_or_rows_are_written_off_the_event_loop(
    inference: Inference, tokens: TokenRows, is_inline: bool
) -> None:
    rows = [TextRow("abc")] * tokens.rows
    thread = await inference.off_loop(rows, threading.current_thread, written=tokens)
    assert (thread is threading.main_thread()) == is_inline


def stream_call(folder: Path, truncation: Truncation | None = None) -> InferenceCall:
    return InferenceCall(
        sums_model(folder), TaskOptions(Task.EMBED), RequestOptions(truncation=truncation), deadline_ns=None
    )


async def test_large_text_of_a_stream_leaves_the_event_loop(inference: Inference, tmp_path: Path) -> None:
    call = stream_call(tmp_path)
    assert not isinstance(inference.submit(call, TextRow("a b c")), LateTicket)
    ticket = inference.submit(call, TextRow("a b c " * 4_000))
    assert isinstance(ticket, LateTicket)
    assert not ticket.is_started
    ticket.cancel()


@pytest.mark.parametrize("text", ["a " * 100, "a " * 10_000])
async def test_text_of_a_stream_that_is_too_long_is_refused_by_name(
    inference: Inference, tmp_path: Path, text: str
) -> None:
    call = stream_call(tmp_path, Truncation.ERROR)
    with pytest.raises(InvalidRequest, match=r"^input\.text: has more than") as refused:
        await inference.submit(call, TextRow(text)).answer()
    assert [violation.field for violation in refused.value.violations] == ["input.text"]
