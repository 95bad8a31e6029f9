"""A client process: ``python -m tests.soak.client ORDER``, where the order is JSON."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from penstock import AsyncClient
from tests.soak.book import Book
from tests.soak.calls import floods, live_calls
from tests.soak.jobs import jobs
from tests.soak.plan import FINISH_TIMEOUT_S, Plan
from tests.soak.references import References
from tests.soak.rude import malformed
from tests.soak.session import Session
from tests.soak.streams import streams

ROLES = {
    "live": (live_calls,),
    "streams": (streams,),
    "jobs": (jobs,),
    "rude": (floods, malformed),
    # Whatever it is doing will break off.
    "mortal": (live_calls, streams, jobs),
}
_TIMEOUT_S = 60.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a client process does, where, and until when."""

    role: str
    name: str
    address: str
    folder: str
    seconds: float
    plan: Plan

    @property
    def book(self) -> Path:
        """Its notes."""
        return Path(self.folder) / f"{self.name}.book"


def references_in(folder: Path) -> Path:
    """Where clients find the references."""
    return folder / "references.npz"


@asynccontextmanager
async def session_of(order: Order) -> AsyncGenerator[Session]:
    """A connection and notes for an order."""
    book = Book(order.book, order.name)
    try:
        async with AsyncClient(order.address, timeout_s=_TIMEOUT_S) as client:
            yield Session(
                name=order.name,
                address=order.address,
                plan=order.plan,
                client=client,
                book=book,
                references=References.load(references_in(Path(order.folder))),
                folder=Path(order.folder),
                random=random.Random(f"{order.plan.seed}/{order.name}"),
                until_s=time.monotonic() + order.seconds,
            )
    finally:
        book.close()


async def _run(order: Order) -> None:
    async with session_of(order) as session:
        async with asyncio.timeout(order.seconds + FINISH_TIMEOUT_S), asyncio.TaskGroup() as group:
            for work in ROLES[order.role]:
                group.create_task(work(session))
        session.book.write("bye")


if __name__ == "__main__":
    # Live work of the server goes first, as it would if clients were elsewhere.
    os.nice(1)
    asyncio.run(_run(msgspec.json.decode(sys.argv[1], type=Order)))
