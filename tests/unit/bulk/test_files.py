"""The process that reads inputs: its answers, its errors, and what happens when it dies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.durable import replacing
from penstock_server.bulk.file_process import encode_order
from penstock_server.bulk.inputs import InputOrder
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.spool import Spool
from penstock_server.domain.errors import InvalidRequest, StorageFull
from penstock_server.domain.job import FileFormat, InputColumns
from penstock_server.runtime.job_files import FileProcesses


def parquet_order(tmp_path: Path, column: str = "text") -> InputOrder:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    return InputOrder(path, tmp_path / "spool", FileFormat.PARQUET, InputColumns(column), BulkLimits())


async def test_an_input_is_read_in_a_process_of_its_own(tmp_path: Path) -> None:
    order = parquet_order(tmp_path)
    assert await FileProcesses().materialise(order) == 2
    spool = Spool(order.spool_path)
    assert spool.rows == 2
    spool.close()


async def test_what_is_wrong_with_the_input_comes_back_from_the_process(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no column 'body'"):
        await FileProcesses().materialise(parquet_order(tmp_path, "body"))


async def test_cancelling_ends_the_process_and_leaves_no_file(tmp_path: Path) -> None:
    # A pipe that nobody writes to: reading it never ends.
    os.mkfifo(tmp_path / "in.parquet")
    order = InputOrder(
        tmp_path / "in.parquet", tmp_path / "spool", FileFormat.PARQUET, InputColumns(), BulkLimits()
    )
    task = asyncio.create_task(FileProcesses().materialise(order))
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    # The kernel tells of a new child by no event.
    while not children.read_text().split():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not order.spool_path.exists()


def test_the_process_ends_when_the_server_is_gone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in.parquet")
    order = InputOrder(
        tmp_path / "in.parquet", tmp_path / "spool", FileFormat.PARQUET, InputColumns(), BulkLimits()
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock_server.bulk.file_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    # communicate() closes standard input, as the death of the server does.
    output, _ = process.communicate(encode_order(order), timeout=60)
    assert (process.returncode, output) == (1, b"")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(StorageFull):
        _write_half(path)
    assert list(tmp_path.iterdir()) == []
    with replacing(path) as temporary:
        temporary.write_bytes(b"whole")
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("file", b"whole")]


def _write_half(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
