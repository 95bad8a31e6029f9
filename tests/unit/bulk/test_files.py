"""The process that reads inputs: its answers, its errors, and what happens when it dies."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_server.bulk import durable
from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.durable import make_folder, replacing, storage_errors
from penstock_server.bulk.file_process import encode_order
from penstock_server.bulk.inputs import InputOrder
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.spool import Spool
from penstock_server.domain.errors import InvalidRequest, PenstockError, StorageFailed, StorageFull
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


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageFailed),
        (errno.EROFS, StorageFailed),
        (errno.ENOENT, FileNotFoundError),
    ],
)
def test_what_the_disk_says_is_told_with_what_to_do(code: int, error: type[Exception]) -> None:
    with pytest.raises(error) as caught, storage_errors():
        raise OSError(code, os.strerror(code))
    if isinstance(caught.value, PenstockError):
        assert "try again" in caught.value.message.lower()


def test_a_file_whose_fsync_failed_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporaries: list[Path] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fail)
        with pytest.raises(StorageFailed):
            _write_whole(tmp_path / "file", temporaries)
    assert list(tmp_path.iterdir()) == []
    _write_whole(tmp_path / "file", temporaries)
    assert temporaries[0] != temporaries[1]


def test_a_folder_whose_name_may_be_lost_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(durable, "fsync_folder", _fail)
        with pytest.raises(StorageFailed):
            make_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    for _ in range(2):
        make_folder(tmp_path / "folder")
    assert (tmp_path / "folder").is_dir()


def _fail(_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _write_whole(path: Path, temporaries: list[Path]) -> None:
    with replacing(path) as temporary:
        temporaries.append(temporary)
        temporary.write_bytes(b"whole")


def _write_half(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
