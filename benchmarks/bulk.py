"""A bulk job that keeps the server busy beside live calls."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import penstock
from benchmarks.texts import TextKind, write_bulk_file

_BEGIN_TIMEOUT_S = 120.0
_POLL_S = 0.05


class BulkLoad:
    """Uploads rows once and runs jobs over them.

    Within a window of a job rows are computed in order of length, so over short times the token rate says how
    much work was done, and the row rate does not.
    """

    def __init__(self, address: str, model: str, task: str, texts: TextKind, rows: int) -> None:
        self._client = penstock.Client(address, timeout_s=60.0)
        self._model = model
        self._task = task
        self._job_ids: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            self.rows = write_bulk_file(path, texts, rows)
            self._upload_id = self._client.bulk.upload(path)

    def begin(self) -> BulkRun:
        """Starts a job and waits until it computes."""
        job = self._client.bulk.create(
            self._upload_id, model=self._model, task=self._task, text_column="text"
        )
        give_up_s = time.monotonic() + _BEGIN_TIMEOUT_S
        while self._client.bulk.get(job.id).succeeded == 0:
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"The bulk job {job.id} has not computed a row: see its error.")
            time.sleep(_POLL_S)
        return BulkRun(self._client, job.id)

    def close(self) -> None:
        """Deletes the jobs, which have to stay until now as they share their rows; closes the connection."""
        for job_id in self._job_ids:
            self._client.bulk.delete(job_id)
        self._client.close()


class BulkRun:
    """A running job, measured between ``mark`` and ``end``."""

    def __init__(self, client: penstock.Client, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._first = client.bulk.get(job_id)
        self._first_s = time.monotonic()

    def mark(self) -> None:
        """Begins the measurement."""
        self._first = self._client.bulk.get(self._job_id)
        self._first_s = time.monotonic()

    def end(self) -> dict[str, object]:
        """Ends the measurement and the job; returns its rates."""
        last = self._client.bulk.get(self._job_id)
        elapsed_s = time.monotonic() - self._first_s
        has_run_out = last.has_ended
        self._client.bulk.cancel(self._job_id)
        self._client.bulk.wait(self._job_id, timeout_s=60.0)
        return {
            "rows_per_s": round((last.succeeded - self._first.succeeded) / elapsed_s, 1),
            "tokens_per_s": round((last.tokens - self._first.tokens) / elapsed_s, 1),
            "failed_rows": last.failed,
            # The rates are then too low: give the job more rows.
            "has_run_out_of_rows": has_run_out,
        }
