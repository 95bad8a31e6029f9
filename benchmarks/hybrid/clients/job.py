"""Penstock's bulk work as its users give it: an uploaded file and a job, watched from outside."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.hybrid.clients.loads import Text

_TIMEOUT_S = 60.0


class JobFeed:
    """A job over texts; its progress is read every ``poll_s``. Stands where a closed loop stands for others.

    Attributes:
        points: Time on the monotonic clock, rows and tokens done until then; the first is before the upload.
        errors: Failed rows, if any.
    """

    def __init__(self, address: str, model: str, texts: Sequence[Text], poll_s: float) -> None:
        penstock: Any = import_module("penstock")
        self._client = penstock.AsyncClient(address, timeout_s=_TIMEOUT_S)
        self._model = model
        self._texts = texts
        self._poll_s = poll_s
        self._has_ended = False
        self.points: list[tuple[float, int, int]] = [(time.monotonic(), 0, 0)]
        self.errors: dict[str, int] = {}

    async def run(self) -> None:
        """Uploads, creates the job and follows it until it has ended, or until ``end``."""
        bulk = self._client.bulk
        try:
            job = await self._submit()
            while not job.has_ended and not self._has_ended:
                await asyncio.sleep(self._poll_s)
                job = await bulk.get(job.id)
                self.points.append((time.monotonic(), job.succeeded, job.tokens))
            if job.failed:
                self.errors["failed rows"] = job.failed
            if not job.has_ended:
                await bulk.cancel(job.id)
                await bulk.wait(job.id)
            await bulk.delete(job.id)
        finally:
            await self._client.close()

    def end(self) -> None:
        """Has the job cancelled."""
        self._has_ended = True

    async def _submit(self) -> Any:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            lines = (json.dumps({"text": text.text}) for text in self._texts)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            self.points[0] = (time.monotonic(), 0, 0)
            return await self._client.bulk.submit(path, model=self._model, task="embed", text_column="text")
