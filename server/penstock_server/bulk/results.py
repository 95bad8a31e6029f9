"""Reads finished rows of a job in input order, while it runs or after."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from penstock_server.bulk.carried import Carried
from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.journal import WindowRecord
from penstock_server.bulk.parts import Part, RowStatus, read_part
from penstock_server.bulk.rows import Key
from penstock_server.bulk.sources import Sources, read_sources
from penstock_server.bulk.spool import Spool
from penstock_server.domain.job import RowSelection

_STATUSES = {
    RowSelection.ALL: (RowStatus.SUCCEEDED, RowStatus.FAILED),
    RowSelection.SUCCEEDED: (RowStatus.SUCCEEDED,),
    RowSelection.FAILED: (RowStatus.FAILED,),
}


@dataclass(frozen=True, slots=True, eq=False)
class ResultRows:
    """Finished rows of one window.

    Attributes:
        start_row: The job's row number of the window's first row.
        indices: int64, rising: which rows of the window are meant.
        part: What became of all rows of the window.
        keys: Keys of all rows of the window.
        carried: Their further columns.
    """

    start_row: int
    indices: NDArray[np.int64]
    part: Part
    keys: Sequence[Key]
    carried: Sequence[Carried]

    def some(self, indices: NDArray[np.int64]) -> ResultRows:
        """The same with other indices."""
        return replace(self, indices=indices)


def read_results(
    folder: JobFolder,
    windows: Sequence[WindowRecord],
    *,
    has_ended: bool,
    start_row: int = 0,
    rows_max: int = 0,
    selection: RowSelection = RowSelection.ALL,
) -> Generator[ResultRows]:
    """Yields finished rows in input order.

    Args:
        folder: The job's folder.
        windows: Its windows in the journal, in order.
        has_ended: False: rows after the first pending one are left out, so that a reader can go on later
            without gaps. True: pending rows will never be done and are skipped.
        start_row: First row to read.
        rows_max: Most rows to read; 0: all.
        selection: Which rows.
    """
    rows_left = rows_max or np.iinfo(np.int64).max
    spool, sources = Spool(folder.spool_path), read_sources(folder.sources_path)
    try:
        expected = spool.window_of_row(start_row)
        for window in windows:
            if window.number < expected:
                continue
            if window.number > expected and not has_ended:
                return
            expected = window.number + 1
            rows = _rows_of(folder, spool, window, selection, start_row, has_ended=has_ended)
            rows = _first_rows(rows, rows_left)
            if sources is not None:
                rows = replace(rows, part=_with_sources(rows.part, spool, window.number, sources))
            rows_left -= len(rows.indices)
            if len(rows.indices):
                yield rows
            if not rows_left or (not window.is_whole and not has_ended):
                return
    finally:
        spool.close()


def _rows_of(
    folder: JobFolder,
    spool: Spool,
    window: WindowRecord,
    selection: RowSelection,
    start_row: int,
    *,
    has_ended: bool,
) -> ResultRows:
    part = read_part(folder.part_path(window.file_name))
    first_row = spool.start_row(window.number)
    chosen = np.isin(part.status, _STATUSES[selection])
    chosen[: max(0, start_row - first_row)] = False
    if not has_ended:
        pending = np.flatnonzero(part.status == RowStatus.PENDING)
        if len(pending):
            chosen[pending[0] :] = False
    keys, carried = spool.keys(window.number), spool.carried(window.number)
    return ResultRows(first_row, np.flatnonzero(chosen), part, keys, carried)


def _with_sources(part: Part, spool: Spool, number: int, sources: Sources) -> Part:
    """Says of rows that failed while they were computed which file they are from; the others say it."""
    bad = spool.window(number).failures
    first_row = spool.start_row(number)
    failures = {
        index: failure
        if index in bad
        else replace(failure, message=f"{sources.of_row(first_row + index)}: {failure.message}")
        for index, failure in part.failures.items()
    }
    return replace(part, failures=failures)


def _first_rows(rows: ResultRows, count: int) -> ResultRows:
    if len(rows.indices) <= count:
        return rows
    return rows.some(rows.indices[:count])
