"""Deletes uploads that nobody needs, while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from penstock_server.bulk.uploads import UploadStore

# Chosen: an hour is little beside the days that uploads are kept.
_INTERVAL_S = 3600.0

_log = structlog.get_logger(__name__)


class UploadExpiry:
    """Looks for uploads that are past their time every hour. Owned by the event loop.

    Args:
        uploads: What to look at; has the clock.
        sleep: Lets time pass.
    """

    def __init__(self, uploads: UploadStore, *, sleep: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        self._uploads = uploads
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look, for the first time in an hour: a start of the server has just done it."""
        self._task = asyncio.create_task(self._watch(), name="upload-expiry")

    async def close(self) -> None:
        """Deletes no more uploads. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await self._sleep(_INTERVAL_S)
            try:
                count = await asyncio.to_thread(self._uploads.expire)
            except Exception:  # noqa: BLE001 - without this task uploads would stay until the next start
                _log.exception("upload_expiry_failed")
                continue
            if count:
                _log.info("uploads_expired", count=count)
