"""The spool: an input as the job computes it, cut into windows that are read by number.

An Arrow IPC file with one record batch a window and the columns text, pair, key_text, key_int, error_code,
error, carried. It is written once at validation; later reads map it into memory, so a restart costs nothing
and a job of any size needs the memory of its windows in flight only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.bulk.arrow import pa
from penstock_server.bulk.carried import Carried
from penstock_server.bulk.durable import replacing
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import InputRow, Key
from penstock_server.domain.job import RowFailure

_SCHEMA = pa.schema(
    [
        ("text", pa.large_binary()),
        ("pair", pa.large_binary()),
        ("key_text", pa.large_string()),
        ("key_int", pa.int64()),
        ("error_code", pa.string()),
        ("error", pa.string()),
        ("carried", pa.large_binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class TextColumn:
    """Texts one after the other, as the tokeniser reads them; of no use once their window is gone.

    Attributes:
        data: uint8; UTF-8 of all rows.
        offsets: int64 ``[rows + 1]``; row ``r`` is ``data[offsets[r]:offsets[r + 1]]``. Bad rows are empty.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of a job that are tokenised and computed together.

    Attributes:
        number: Place in the job, from 0.
        start_row: The job's row number of the first row.
        rows: Number of rows.
        text: The texts.
        pair: The second texts; None if the job has no pairs.
        failures: Why rows are bad already, by index in the window.
    """

    number: int
    start_row: int
    rows: int
    text: TextColumn
    pair: TextColumn | None
    failures: dict[int, RowFailure]


def write_spool(path: Path, rows: Iterable[InputRow], *, has_pairs: bool, limits: BulkLimits) -> int:
    """Writes a spool durably, in constant memory.

    Args:
        path: The file; in place only once it is whole.
        rows: The input's rows in order.
        has_pairs: Whether rows have second texts.
        limits: Says when a window is full.

    Returns:
        Number of rows.

    Raises:
        StorageFull: The disk has no room.
        StorageFailed: The disk failed.
    """
    total = 0
    schema = _SCHEMA.with_metadata({"has_pairs": "1" if has_pairs else "0"})
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as file:  # noqa: SIM117
        with pa.ipc.new_file(file, schema) as writer:
            for batch in _windows_of(rows, limits):
                writer.write_batch(pa.record_batch(_columns_of(batch), schema=schema))
                total += len(batch)
    return total


class Spool:
    """Reads a spool. Windows may be read from several threads."""

    def __init__(self, path: Path) -> None:
        self._map = pa.memory_map(str(path))
        self._reader = pa.ipc.open_file(self._map)
        metadata: dict[bytes, bytes] = self._reader.schema.metadata or {}
        self._has_pairs = metadata.get(b"has_pairs") == b"1"
        counts = [
            self._reader.get_batch(number).num_rows for number in range(self._reader.num_record_batches)
        ]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._starts[-1])

    @property
    def windows(self) -> int:
        """Number of windows."""
        return len(self._starts) - 1

    def start_row(self, number: int) -> int:
        """First row of a window; ``number`` may be ``windows``, one past the last."""
        return int(self._starts[number])

    def window_of_row(self, row: int) -> int:
        """The window that holds a row; ``windows`` for rows past the end."""
        return min(int(np.searchsorted(self._starts, row, side="right")) - 1, self.windows)

    def window(self, number: int) -> Window:
        """Reads a window; texts are not copied."""
        batch = self._reader.get_batch(number)
        return Window(
            number=number,
            start_row=self.start_row(number),
            rows=batch.num_rows,
            text=_text_of(batch.column("text")),
            pair=_text_of(batch.column("pair")) if self._has_pairs else None,
            failures=_failures_of(batch),
        )

    def extract(self, path: Path, number: int, first: int, rows: int) -> None:
        """Writes some rows of a window as a spool of their own, with a single window; not durably."""
        batch = self._reader.get_batch(number).slice(first, rows)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, self._reader.schema) as writer:
            writer.write_batch(batch)

    def keys(self, number: int) -> list[Key]:
        """Reads the keys of a window's rows."""
        batch = self._reader.get_batch(number)
        texts: list[str | None] = batch.column("key_text").to_pylist()
        numbers: list[int | None] = batch.column("key_int").to_pylist()
        return [text if text is not None else number for text, number in zip(texts, numbers, strict=True)]

    def carried(self, number: int) -> list[Carried]:
        """Reads the carried columns of a window's rows."""
        batch = self._reader.get_batch(number)
        if "carried" not in batch.schema.names:
            # Written by an earlier release.
            return [None] * int(batch.num_rows)
        values: list[Carried] = batch.column("carried").to_pylist()
        return values

    def key_columns(self, number: int) -> tuple[Any, Any]:
        """Keys of a window as two Arrow arrays: texts (large_string) and whole numbers (int64)."""
        batch = self._reader.get_batch(number)
        return batch.column("key_text"), batch.column("key_int")

    def key_kinds(self) -> tuple[bool, bool]:
        """Whether any key is a text, and whether any is a whole number."""
        texts = numbers = False
        for number in range(self.windows):
            text, integer = self.key_columns(number)
            texts = texts or text.null_count < len(text)
            numbers = numbers or integer.null_count < len(integer)
        return texts, numbers

    def close(self) -> None:
        """Frees the file; windows read before stay usable. Idempotent."""
        self._map.close()


def count_windows(path: Path) -> int:
    """Number of windows of a spool."""
    with pa.memory_map(str(path)) as file:
        return int(pa.ipc.open_file(file).num_record_batches)


def _windows_of(rows: Iterable[InputRow], limits: BulkLimits) -> Iterable[list[InputRow]]:
    window: list[InputRow] = []
    size_bytes = 0
    for row in rows:
        window.append(row)
        size_bytes += len(row.text or b"") + len(row.pair or b"")
        if len(window) == limits.window_rows or size_bytes >= limits.window_bytes:
            yield window
            window, size_bytes = [], 0
    if window:
        yield window


def _columns_of(rows: list[InputRow]) -> list[Any]:
    texts, pairs, keys, failures, carried = zip(*rows, strict=True)
    columns = (
        texts,
        pairs,
        [key if isinstance(key, str) else None for key in keys],
        [key if isinstance(key, int) else None for key in keys],
        [failure.code if failure else None for failure in failures],
        [failure.message if failure else None for failure in failures],
        carried,
    )
    return [pa.array(values, type=field.type) for values, field in zip(columns, _SCHEMA, strict=True)]


def _text_of(column: Any) -> TextColumn:
    """Views a large_binary array as bytes and offsets, as they lie in the file."""
    _, offsets, data = column.buffers()
    first, rows = column.offset, len(column)
    starts = np.frombuffer(offsets, np.int64, rows + 1, first * 8)
    # A column of empty texts only may have no data buffer at all.
    view = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    return TextColumn(view, starts)


def _failures_of(batch: Any) -> dict[int, RowFailure]:
    codes = batch.column("error_code")
    if codes.null_count == len(codes):
        return {}
    indices = np.flatnonzero(codes.is_valid().to_numpy(zero_copy_only=False))
    messages = batch.column("error")
    return {int(i): RowFailure(codes[int(i)].as_py(), messages[int(i)].as_py()) for i in indices}
