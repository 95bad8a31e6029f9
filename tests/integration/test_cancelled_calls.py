"""A caller that goes away takes its rows with it, over a real connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock import AsyncClient
from tests.support.metrics import samples_of
from tests.support.server import ServerThread, running_server

ROWS = 400


async def flex_rows(server: ServerThread) -> tuple[float, float]:
    """Rows that wait as FLEX, and those computed so far."""
    value = await asyncio.to_thread(samples_of, server)
    waiting = value("penstock_queue_rows", request_class="flex") or 0
    return waiting, value("penstock_computed_rows_total", request_class="flex") or 0


async def test_rows_of_a_call_that_its_client_cancels_are_not_computed(tmp_path: Path) -> None:
    texts = [f"{row} " + "word " * 120 for row in range(ROWS)]
    with running_server(tmp_path / "data", metrics={"port": 0}) as server:
        async with AsyncClient(server.address) as client, asyncio.timeout(60):
            call = asyncio.create_task(client.embed(texts, model="minilm", request_class="flex"))
            while not (await flex_rows(server))[0]:
                pass
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            while (rows := await flex_rows(server))[0]:
                pass
    assert call.cancelled()
    _, computed = rows
    assert computed < ROWS // 2
