"""The failed rows of a job as the input of another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock_server.bulk.folder import JobFolder
from penstock_server.bulk.journal import WindowRecord
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.parts import RowStatus, read_part
from penstock_server.bulk.rows import InputRow
from penstock_server.bulk.spool import Spool, TextColumn, write_spool
from penstock_server.domain.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class RetryOrder:
    """Which rows are to be written where; picklable.

    Attributes:
        folder: The folder of the job whose failed rows are meant.
        windows: Its windows in the journal, in order.
        has_keys: Whether its rows have keys; if not, their numbers become the keys.
        has_pairs: Whether they have second texts.
        spool_path: The spool of the new job.
        limits: Say when a window is full.
    """

    folder: Path
    windows: tuple[WindowRecord, ...]
    has_keys: bool
    has_pairs: bool
    spool_path: Path
    limits: BulkLimits


def spool_failed_rows(order: RetryOrder) -> int:
    """Writes the spool of a job over failed rows.

    Rows that were bad in the input have no text that could be tried; they are there, and fail again.

    Returns:
        Number of rows.

    Raises:
        InvalidRequest: The job has been deleted meanwhile.
        StorageFull: The disk has no room.
        StorageFailed: The disk failed.
    """
    try:
        return write_spool(
            order.spool_path, _failed_rows(order), has_pairs=order.has_pairs, limits=order.limits
        )
    except FileNotFoundError as err:
        raise InvalidRequest("The job whose failed rows were to be tried again has been deleted.") from err


def _failed_rows(order: RetryOrder) -> Iterator[InputRow]:
    folder = JobFolder(order.folder)
    spool = Spool(folder.spool_path)
    try:
        for record in order.windows:
            if not record.failed:
                continue
            status = read_part(folder.part_path(record.file_name)).status
            window, keys = spool.window(record.number), spool.keys(record.number)
            carried = spool.carried(record.number)
            for index in np.flatnonzero(status == RowStatus.FAILED).tolist():
                key = keys[index] if order.has_keys else window.start_row + index
                failure = window.failures.get(index)
                if failure is not None:
                    yield InputRow(None, key=key, failure=failure, carried=carried[index])
                    continue
                pair = None if window.pair is None else _text_of(window.pair, index)
                yield InputRow(_text_of(window.text, index), pair, key, carried=carried[index])
    finally:
        spool.close()


def _text_of(column: TextColumn, index: int) -> bytes:
    return column.data[column.offsets[index] : column.offsets[index + 1]].tobytes()
