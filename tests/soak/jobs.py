"""Bulk jobs: uploads that break off, pauses, cancels, readers of running jobs, watchers that vanish."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

from penstock import AsyncClient, FailedPreconditionError, Job, RowResult
from tests.soak.book import Book
from tests.soak.ledger import key_of, text_of_key
from tests.soak.plan import CLASSIFIER, EMBEDDER
from tests.soak.references import References
from tests.soak.session import ANSWERED, Session, repeated
from tests.support.relay import relayed

GESTURES = ("plain", "upload broken", "paused", "cancelled", "read while running", "watcher vanished")
# An empty text among so many; its row must fail, and no other.
_BAD_EVERY = 41
# So that an upload takes several chunks, and breaks between and within them.
_BALLAST_CHARS = 3_000
_ROWS_PER_NOTE = 200
_DELETED_SHARE = 0.8
_PAUSE_S = 1.0


async def jobs(session: Session) -> None:
    """Some jobs at once, one gesture after the other."""
    turns = session.turns(GESTURES)
    each = (repeated(session, lambda: one_job(session, turns())) for _ in range(session.plan.jobs_at_once))
    await asyncio.gather(*each)


async def one_job(session: Session, gesture: str) -> None:
    """A job from its upload until it is deleted, or left to who looks at all jobs at the end."""
    kind = session.random.choice(("embed", "embed", "classify"))
    texts = _draw(session)
    path = session.folder / f"{session.name}-{session.book.new_id().replace('/', '-')}.jsonl"
    size = _write(path, texts, session.references)
    upload_id = await _upload(session, path, size, gesture)
    path.unlink()
    options: dict[str, Any] = {"score_function": "none"} if kind == "classify" else {}
    job = await session.client.bulk.create(
        upload_id,
        model=CLASSIFIER if kind == "classify" else EMBEDDER,
        task=kind,
        key_column="id",
        tenant=session.random.choice(("red", "blue")),
        **options,
    )
    session.book.write("job", id=job.id, texts=texts, kind=kind)
    session.book.did(gesture)
    over = asyncio.create_task(_cancel_when_over(session, job.id))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_interfere(session, job.id, kind, gesture))
            group.create_task(_watch(session, job.id))
    finally:
        over.cancel()
    await _finish(session, job.id)


def _draw(session: Session) -> list[int | None]:
    rows = session.random.randint(20, session.plan.job_rows_max)
    return [None if row % _BAD_EVERY == _BAD_EVERY - 1 else session.text() for row in range(rows)]


def _write(path: Path, texts: list[int | None], references: References) -> int:
    """Writes the rows; returns the bytes."""
    with path.open("w", encoding="utf-8") as file:
        for row, text in enumerate(texts):
            line = {"id": key_of(row, text), "text": "" if text is None else references.texts[text]}
            file.write(json.dumps({**line, "ballast": "x" * _BALLAST_CHARS}) + "\n")
        return file.tell()


async def _upload(session: Session, path: Path, size: int, gesture: str) -> str:
    """Sends the file; through a relay that cuts the connection twice, if that is the gesture."""
    if gesture != "upload broken":
        return await session.client.bulk.upload(path)
    cuts = [int(size * session.random.uniform(0.2, 0.8)) for _ in range(2)]
    with relayed(session.address, cuts, counts="sent") as relay:
        async with AsyncClient(relay.address) as client:
            return await client.bulk.upload(path)


async def _cancel_when_over(session: Session, job_id: str) -> None:
    """Jobs run at idle priority: on a machine that others keep busy, one may not end in any time."""
    await asyncio.sleep(max(0.0, session.until_s - time.monotonic()))
    session.book.did("cancelled when over")
    await session.client.bulk.cancel(job_id)


async def _interfere(session: Session, job_id: str, kind: str, gesture: str) -> None:
    bulk = session.client.bulk
    await session.pause(session.random.random() * _PAUSE_S)
    if gesture == "cancelled":
        await bulk.cancel(job_id)
    elif gesture == "paused":
        try:
            await bulk.pause(job_id)
            await session.pause(_PAUSE_S)
            await bulk.resume(job_id)
        except FailedPreconditionError:
            # The job was faster.
            session.book.did("paused too late")
    elif gesture == "read while running":
        for _ in range(3):
            await read_rows(session, job_id, kind, session.book.new_id())
            await session.pause(_PAUSE_S / 2)
    elif gesture == "watcher vanished":
        for _ in range(3):
            await _glance(session, job_id)


async def _watch(session: Session, job_id: str) -> None:
    reader = session.book.new_id()
    async for job in session.client.bulk.watch(job_id):
        note_state(session.book, job, reader)


async def _glance(session: Session, job_id: str) -> None:
    """Watches until the first news and goes away."""
    reader = session.book.new_id()
    # An asynchronous generator, which the client promises as an iterator only.
    states = cast(AsyncGenerator[Job], session.client.bulk.watch(job_id))
    async with aclosing(states):
        async for job in states:
            note_state(session.book, job, reader)
            return


async def _finish(session: Session, job_id: str) -> None:
    await read_ended(session, await session.client.bulk.get(job_id))
    if session.random.random() < _DELETED_SHARE:
        await session.client.bulk.delete(job_id)
        session.book.write("gone", job=job_id)


async def read_ended(session: Session, job: Job, texts: Sequence[int] | None = None) -> None:
    """Reads all rows of a job that has ended; one that was cancelled has those that were done.

    Args:
        session: Who reads.
        job: The job.
        texts: What its rows are, for jobs without keys.
    """
    reading = session.book.new_id()
    await read_rows(session, job.id, job.task.value, reading, texts)
    session.book.write("whole", job=job.id, reading=reading, done=job.done)


async def read_rows(
    session: Session, job_id: str, kind: str, reading: str, texts: Sequence[int] | None = None
) -> None:
    """Reads the finished rows from the first on."""
    rows: list[tuple[object, ...]] = []

    def note() -> None:
        session.book.write("rows", job=job_id, reading=reading, kind=kind, rows=rows)
        rows.clear()

    async for row in session.client.bulk.results(job_id):
        rows.append((row.row, row.key, *_outcome(session, row, texts)))
        if len(rows) == _ROWS_PER_NOTE:
            note()
    note()


def _outcome(session: Session, row: RowResult, texts: Sequence[int] | None) -> tuple[str, object]:
    if row.error is not None:
        return row.error.status, None
    text = text_of_key(str(row.key)) if texts is None else texts[row.row]
    return ANSWERED, session.judge(text or 0, row.answer)


def note_state(book: Book, job: Job, reader: str) -> None:
    """Notes how far a job is."""
    counts = {name: getattr(job, name) for name in ("total", "succeeded", "failed", "pending")}
    book.write("state", job=job.id, reader=reader, state=job.state.value, **counts)
