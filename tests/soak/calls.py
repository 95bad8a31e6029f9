"""Live unary calls: all kinds, many deadlines, some callers that go away, and a tenant that floods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from penstock import PenstockError
from tests.soak.book import DEFERRED, LEFT
from tests.soak.plan import CLASSIFIER, EMBEDDER, FLOOD_TENANT
from tests.soak.references import Judgement
from tests.soak.session import ANSWERED, LATE, REFUSED, Crowd, Session

_KINDS = ("embed", "embed", "classify", "tokenize")
# The longest is not allowed to pass without an answer.
_TIMEOUTS_S = (0.03, 0.2, 1.0, 60.0, 60.0)
_PATIENT_S = 60.0
_CLASSES = (None, None, "live", "live_critical", "flex")
_POLICIES = (None, "reject", "demote_to_flex", "demote_to_bulk")
_LEAVING_SHARE, _LEAVING_AFTER_S = 0.08, 0.08
_FLOOD_TIMEOUT_S = 1.0


async def live_calls(session: Session) -> None:
    """Calls at their times, whatever becomes of the ones before."""
    crowd = Crowd(session.plan.in_flight_max)
    async for _ in session.arrivals(session.plan.live_rate, session.until_s):
        crowd.start(one_call(session))
    await crowd.finish()


async def floods(session: Session) -> None:
    """A tenant that asks for far more than its share for some seconds, and again after a pause."""
    plan = session.plan
    while not session.is_over:
        await session.pause(plan.flood_pause_s)
        session.book.did("flood")
        crowd = Crowd(plan.in_flight_max)
        async for _ in session.arrivals(plan.flood_rate, time.monotonic() + plan.flood_s):
            options = {"tenant": FLOOD_TENANT, "timeout_s": _FLOOD_TIMEOUT_S}
            crowd.start(_call(session, "embed", session.texts(1), options))
        await crowd.finish()


async def one_call(session: Session) -> None:
    """A call drawn by chance."""
    random = session.random
    options: dict[str, Any] = {
        "timeout_s": random.choice(_TIMEOUTS_S),
        "tenant": random.choice(("", "red", "blue")),
        "explain": random.random() < 0.2,
    }
    kind = random.choice(_KINDS)
    if kind != "tokenize":
        options |= {"request_class": random.choice(_CLASSES), "on_overload": random.choice(_POLICIES)}
    leaves = random.random() < _LEAVING_SHARE
    after_s = random.random() * _LEAVING_AFTER_S if leaves else None
    await _call(session, kind, session.texts(random.randint(1, session.plan.rows_max)), options, after_s)


async def _call(
    session: Session,
    kind: str,
    texts: Sequence[int],
    options: dict[str, Any],
    leave_after_s: float | None = None,
) -> None:
    allowed = [ANSWERED, REFUSED]
    if options["timeout_s"] < _PATIENT_S:
        allowed.append(LATE)
    if options.get("on_overload") == "demote_to_bulk":
        allowed.append(DEFERRED)
    id_ = session.book.ask(kind, texts, allowed)
    task = asyncio.ensure_future(_answers(session, kind, texts, options))
    await asyncio.wait({task}, timeout=leave_after_s)
    if not task.done():
        session.book.did("call left")
        task.cancel()
    try:
        answers = await task
    except asyncio.CancelledError:
        session.book.end(id_, LEFT)
    except PenstockError as err:
        session.book.end(id_, err.status)
    else:
        if answers.info.job_id:
            session.book.end(id_, DEFERRED, job=answers.info.job_id)
        else:
            session.book.end(id_, ANSWERED, _judged(session, texts, answers))


def _judged(session: Session, texts: Sequence[int], answers: Sequence[object]) -> list[Judgement]:
    """Judges as many answers as there are; the ledger counts them."""
    return [session.judge(text, answer) for text, answer in zip(texts, answers, strict=False)] + [
        (-1, 1.0) for _ in answers[len(texts) :]
    ]


def _answers(session: Session, kind: str, texts: Sequence[int], options: dict[str, Any]) -> Awaitable[Any]:
    client, words = session.client, [session.references.texts[text] for text in texts]
    if kind == "embed":
        return client.embed(words, model=EMBEDDER, **options)
    if kind == "classify":
        return client.classify(words, model=CLASSIFIER, score_function="none", **options)
    return client.tokenize(words, model=EMBEDDER, **options)
