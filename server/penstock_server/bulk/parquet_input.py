"""Reads Parquet, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.rows import InputRow
from penstock_server.bulk.tables import READ_ROWS, check_columns, names_of, rows_of
from penstock_server.bulk.unpacked import first_line
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import InputColumns


def read_parquet(path: Path, columns: InputColumns, limits: BulkLimits) -> Iterator[InputRow]:
    """Yields the rows of a Parquet file.

    Raises:
        InvalidRequest: The file cannot be read, lacks a column, or a column has a type that cannot be used.
    """
    with _open(path) as file:
        check_columns(file.schema_arrow, columns)
        row = 0
        try:
            for batch in file.iter_batches(
                batch_size=READ_ROWS, columns=names_of(columns), use_threads=False
            ):
                yield from rows_of(batch, row, columns, limits)
                row += batch.num_rows
        except (pa.ArrowException, OSError) as err:
            raise InvalidRequest(
                f"The Parquet file cannot be read past row {row:,}; it is corrupt ({first_line(err)})."
            ) from err


def _open(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as err:
        raise InvalidRequest(
            f"The input is not a readable Parquet file; it may be cut short ({first_line(err)})."
        ) from err
