"""A window of a job on its way: tokenised, computed row by row, written as a part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from penstock_server.bulk.bad_rows import bad_rows
from penstock_server.bulk.durable import storage_errors
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.journal import JobStore, WindowRecord
from penstock_server.bulk.parts import Part, RowStatus, merge_answers, read_part, write_part
from penstock_server.bulk.spool import Spool
from penstock_server.bulk.twins import first_alike
from penstock_server.domain.errors import DeadlineUnmeetable, PenstockError
from penstock_server.domain.job import JobSpec, RowFailure
from penstock_server.domain.tasks import RequestClass, Truncation
from penstock_server.domain.work import BatchTimes, Work
from penstock_server.models.heads import finish
from penstock_server.models.loaded import LoadedModel
from penstock_server.runtime.job_pace import Pace
from penstock_server.runtime.job_progress import JobTracker
from penstock_server.runtime.result_cache import FoundRows, ResultCache

if TYPE_CHECKING:
    from penstock_kernels import TokenRows


@dataclass(frozen=True, slots=True, eq=False)
class PreparedWindow:
    """A window ready to be computed.

    Attributes:
        number: Its place in the job.
        tokens: The tokens of all rows; bad rows have some too, which are not computed.
        part: What is known of its rows already; the others are pending.
        recorded: Its record in the journal, or None.
        fresh_failures: Rows found to be bad now, which no record counts yet.
        first_alike: int32 ``[rows]``: the first row with the same tokens.
        found: Pending rows whose outputs are there already; None for none.
    """

    number: int
    tokens: TokenRows
    part: Part
    recorded: WindowRecord | None
    fresh_failures: int
    first_alike: NDArray[np.int32]
    found: FoundRows | None


def prepare_window(
    spool: Spool,
    folder: JobFolder,
    number: int,
    recorded: WindowRecord | None,
    spec: JobSpec,
    model: LoadedModel,
    cache: ResultCache | None,
) -> PreparedWindow:
    """Reads and tokenises a window, and looks for outputs that are there; blocking. Goes on from its part."""
    window = spool.window(number)
    truncation = spec.options.truncation or model.manifest.truncation
    tokens_max = spec.options.tokens_max or model.manifest.tokens_max
    tokens = model.tokenizer.encode_arrow(
        window.text.data,
        window.text.offsets,
        tokens_max=tokens_max,
        truncation=truncation,
        pair_data=window.pair.data if window.pair else None,
        pair_offsets=window.pair.offsets if window.pair else None,
    )
    if recorded is not None:
        part = read_part(folder.part_path(recorded.file_name))
        found = _find(part, tokens, spec, model, cache)
        return PreparedWindow(number, tokens, part, recorded, 0, first_alike(tokens), found)
    failures = bad_rows(window.failures, tokens, tokens_max if truncation is Truncation.ERROR else None)
    status = np.full(window.rows, RowStatus.PENDING, np.uint8)
    status[list(failures)] = RowStatus.FAILED
    part = Part(status, None, failures)
    found = _find(part, tokens, spec, model, cache)
    return PreparedWindow(number, tokens, part, None, len(failures), first_alike(tokens), found)


def _find(
    part: Part, tokens: TokenRows, spec: JobSpec, model: LoadedModel, cache: ResultCache | None
) -> FoundRows | None:
    if cache is None:
        return None
    pending = np.flatnonzero(part.status == RowStatus.PENDING).astype(np.int32)
    return cache.find(model.manifest.key, spec.options.tenant, tokens, pending)


class WindowRun:
    """The rows of a window as their outputs arrive. Owned by the event loop; a RowSink.

    Of rows with the same tokens one is computed, and answers for all of them.

    Attributes:
        number: The window's place in the job.
        settled: Set when nothing more is to come of the rows that were given to the lanes.
        saved_ns: When it was written last, or begun, on the server's clock.
        is_late: Whether rows were given up because the job's time has run out; they stay pending.
    """

    def __init__(
        self,
        prepared: PreparedWindow,
        model: LoadedModel,
        tracker: JobTracker,
        changed: Callable[[], None],
        now_ns: int,
        pace: Pace | None = None,
    ) -> None:
        self.number = prepared.number
        self.settled = asyncio.Event()
        self.is_late = False
        self._tokens = prepared.tokens
        self._lengths = prepared.tokens.lengths
        self._model = model
        self._tracker = tracker
        self._changed = changed
        self.saved_ns = now_ns
        self._pace = pace
        self._status = prepared.part.status.copy()
        self._failures = dict(prepared.part.failures)
        self._outputs = np.zeros((prepared.tokens.rows, model.manifest.width), np.float32)
        self._written = prepared.part
        self._recorded = prepared.recorded
        self._tokens_done = prepared.recorded.tokens if prepared.recorded else 0
        self._rows_left = prepared.part.count(RowStatus.PENDING)
        self._is_closed = False
        if prepared.found is not None:
            self._take_found(prepared.found)
        # Rows with the same tokens are found all or none.
        pending = np.flatnonzero(self._status == RowStatus.PENDING)
        computed, self._twins = _grouped(pending, prepared.first_alike)
        # Longest first, so that pieces of it are of like length as well.
        self._to_compute = computed[np.argsort(-self._lengths[computed], kind="stable")]
        self._in_lanes = 0
        self._leads = np.zeros(prepared.tokens.rows, np.bool_)
        self._leads[list(self._twins)] = True
        tracker.add(failed=prepared.fresh_failures)
        self._settle_if_done()

    @property
    def is_done(self) -> bool:
        """Whether no row is pending."""
        return self._rows_left == 0

    @property
    def is_waiting(self) -> bool:
        """Whether rows that were given to the lanes are pending."""
        return self._in_lanes > 0

    @property
    def has_more(self) -> bool:
        """Whether rows are pending that were not given to the lanes yet."""
        return len(self._to_compute) > 0 and not self.is_late

    def next_rows(self, tokens_max: int | None = None) -> NDArray[np.int32]:
        """Takes rows that are to be given to the lanes: all, or about so many tokens of them."""
        count = len(self._to_compute)
        if tokens_max is not None:
            tokens = np.cumsum(self._lengths[self._to_compute])
            count = max(1, int(np.searchsorted(tokens, tokens_max, side="right")))
        rows, self._to_compute = self._to_compute[:count], self._to_compute[count:]
        self._in_lanes = len(rows)
        self.settled.clear()
        return np.sort(rows)

    def work(
        self,
        rows: NDArray[np.int32],
        job_id: str,
        spec: JobSpec,
        arrival_ns: int,
        deadline_ns: int | None,
        weight: float,
    ) -> Work:
        """Rows as work for the scheduler; times are on its clock."""
        return Work(
            model=self._model.manifest.key,
            request_class=RequestClass.BULK,
            tokens=self._tokens,
            rows=rows,
            sink=self,
            arrival_ns=arrival_ns,
            deadline_ns=deadline_ns,
            tenant=spec.options.tenant,
            flow=job_id,
            weight=weight,
        )

    def deliver(self, rows: NDArray[np.int32], outputs: NDArray[np.float32], times: BatchTimes) -> None:
        """Takes the outputs of some rows. A row whose numbers are not finite has failed."""
        if self._is_closed:
            return
        tokens = int(self._lengths[rows].sum())
        self._tokens_done += tokens
        self._in_lanes -= len(rows)
        if self._pace is not None:
            self._pace.charge(tokens, times.cpu_ns)
        rows, outputs = self._with_twins(rows, outputs)
        if not np.isfinite(outputs).all():
            finite = np.isfinite(outputs).all(axis=1)
            failure = RowFailure("ENGINE_FAILED", "The model's output for this row is not a finite number.")
            self._fail(rows[~finite], failure)
            rows, outputs = rows[finite], outputs[finite]
        self._outputs[rows] = outputs
        self._status[rows] = RowStatus.SUCCEEDED
        self._tracker.add(succeeded=len(rows), tokens=tokens)
        self._settled_rows(len(rows))

    def fail(self, rows: NDArray[np.int32], error: PenstockError) -> None:
        """Takes the reason why some rows have no outputs."""
        if self._is_closed:
            return
        if isinstance(error, DeadlineUnmeetable):
            # Nothing is wrong with the rows.
            self.is_late = True
            self.settled.set()
            return
        self._in_lanes -= len(rows)
        rows, _ = self._with_twins(rows, np.empty((len(rows), 0), np.float32))
        self._fail(rows, RowFailure(error.reason, error.message))

    def close(self) -> None:
        """Takes no more outputs; what is pending stays so. Idempotent."""
        self._is_closed = True

    def snapshot(self) -> WindowSnapshot:
        """What is done now, to be written on another thread while more outputs arrive."""
        return WindowSnapshot(
            number=self.number,
            status=self._status.copy(),
            failures=dict(self._failures),
            outputs=self._outputs,
            tokens=self._tokens_done,
            written=self._written,
            recorded=self._recorded,
        )

    def was_written(self, part: Part, record: WindowRecord, now_ns: int) -> None:
        """Takes note of what is on disk now."""
        self._written, self._recorded, self.saved_ns = part, record, now_ns

    def _take_found(self, found: FoundRows) -> None:
        self._outputs[found.rows] = found.outputs
        self._status[found.rows] = RowStatus.SUCCEEDED
        self._rows_left -= len(found.rows)
        self._tracker.add(succeeded=len(found.rows))

    def _with_twins(
        self, rows: NDArray[np.int32], outputs: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Adds the rows that those computed answer for."""
        if not self._leads[rows].any():
            return rows, outputs
        groups = [self._twins.get(row, ()) for row in rows.tolist()]
        twins = np.array([twin for group in groups for twin in group], np.int32)
        places = np.repeat(np.arange(len(rows)), [len(group) for group in groups])
        return np.concatenate([rows, twins]), np.concatenate([outputs, outputs[places]])

    def _fail(self, rows: NDArray[np.int32], failure: RowFailure) -> None:
        self._status[rows] = RowStatus.FAILED
        self._failures.update(dict.fromkeys(rows.tolist(), failure))
        self._tracker.add(failed=len(rows))
        self._settled_rows(len(rows))

    def _settled_rows(self, count: int) -> None:
        self._rows_left -= count
        self._settle_if_done()
        self._changed()

    def _settle_if_done(self) -> None:
        if self._in_lanes == 0:
            self.settled.set()


def _grouped(
    pending: NDArray[np.int64], first_alike: NDArray[np.int32]
) -> tuple[NDArray[np.int32], dict[int, list[int]]]:
    """Which of some rows are computed, and the others that each of them answers for."""
    _, first, group = np.unique(first_alike[pending], return_index=True, return_inverse=True)
    computed = np.sort(pending[first]).astype(np.int32)
    if len(computed) == len(pending):
        return computed, {}
    leads = pending[first][group]
    twins: dict[int, list[int]] = {}
    for row, lead in zip(pending.tolist(), leads.tolist(), strict=True):
        if row != lead:
            twins.setdefault(lead, []).append(row)
    return computed, twins


@dataclass(frozen=True, slots=True, eq=False)
class WindowSnapshot:
    """What is done of a window at some moment; see ``WindowRun``.

    ``outputs`` is shared with the run: only rows that ``status`` calls SUCCEEDED may be read.
    """

    number: int
    status: NDArray[np.uint8]
    failures: dict[int, RowFailure]
    outputs: NDArray[np.float32]
    tokens: int
    written: Part
    recorded: WindowRecord | None

    @property
    def has_news(self) -> bool:
        """Whether more rows are done than are on disk."""
        if self.recorded is None:
            return bool((self.status != RowStatus.PENDING).any())
        return not np.array_equal(self.status, self.written.status)

    def commit(
        self, folder: JobFolder, store: JobStore, job_id: str, spec: JobSpec, model: LoadedModel
    ) -> tuple[Part, WindowRecord]:
        """Writes the part, then the journal, then drops the part it replaces; blocking.

        Raises:
            StorageFull: The disk has no room; the journal still names the earlier part.
            StorageFailed: The disk failed; as above.
        """
        part = self._part(spec, model)
        record = WindowRecord(
            number=self.number,
            rows=part.rows,
            succeeded=part.count(RowStatus.SUCCEEDED),
            failed=part.count(RowStatus.FAILED),
            tokens=self.tokens,
            file_name=folder.part_name(self.number, self.recorded.file_name if self.recorded else ""),
        )
        write_part(folder.part_path(record.file_name), part)
        replaced = store.commit_window(job_id, record)
        if replaced is not None:
            with storage_errors():
                folder.part_path(replaced.file_name).unlink(missing_ok=True)
        return part, record

    def _part(self, spec: JobSpec, model: LoadedModel) -> Part:
        fresh = (self.status == RowStatus.SUCCEEDED) & (self.written.status != RowStatus.SUCCEEDED)
        answers = finish(self.outputs[fresh], model.manifest, spec.task) if fresh.any() else None
        merged = merge_answers(len(self.status), fresh, answers, self.written.answers)
        return Part(self.status, merged, self.failures)
