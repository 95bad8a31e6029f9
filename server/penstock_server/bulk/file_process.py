"""Entry of the file process: ``python -m penstock_server.bulk.file_process``.

It takes one order (reads an input or failed rows, looks for files, writes or delivers result files), answers
with one line of JSON and ends. Parsing holds the interpreter for milliseconds at a time, which would stall
the server's event loop from a thread; and a file that crashes a parser must not take the server with it.
"""

from __future__ import annotations

import os
import pickle
import resource
import sys
import threading
from typing import BinaryIO

import msgspec

from penstock_server.bulk.delivery import DeliveryOrder, deliver_results
from penstock_server.bulk.export import ExportOrder, export
from penstock_server.bulk.file_sets import FindOrder, FoundFiles, find
from penstock_server.bulk.inputs import InputOrder, materialise
from penstock_server.bulk.retry import RetryOrder, spool_failed_rows
from penstock_server.domain.errors import PenstockError

_LOWEST_PRIORITY = 19
_LENGTH_BYTES = 8
# What the process may hold beside mapped files. Chosen: a record batch of a GiB can be read and unpacked, and
# a file that claims to hold more than the machine has ends its job, not the server.
_MEMORY_BYTES_MAX = 4 << 30

FileOrder = InputOrder | RetryOrder | ExportOrder | DeliveryOrder | FindOrder


class FileAnswer(msgspec.Struct, frozen=True):
    """What became of an order: rows counted, or files found, or reason and message of the error."""

    rows: int = 0
    found: FoundFiles = FoundFiles()
    reason: str = ""
    message: str = ""


def encode_order(order: FileOrder) -> bytes:
    """Writes an order as the process reads it."""
    data = pickle.dumps(order)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def carry_out(order: FileOrder) -> FileAnswer:
    """Carries an order out. Raises a PenstockError."""
    if isinstance(order, InputOrder):
        return FileAnswer(rows=materialise(order))
    if isinstance(order, RetryOrder):
        return FileAnswer(rows=spool_failed_rows(order))
    if isinstance(order, FindOrder):
        return FileAnswer(found=find(order))
    if isinstance(order, DeliveryOrder):
        deliver_results(order)
    else:
        export(order)
    return FileAnswer()


def main() -> None:
    """Carries out the order on standard input. Ends at once when that is closed: the server is gone then."""
    os.nice(_LOWEST_PRIORITY)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(
        resource.RLIMIT_DATA, (_MEMORY_BYTES_MAX if most < 0 else min(_MEMORY_BYTES_MAX, most), most)
    )
    orders = sys.stdin.buffer
    length = int.from_bytes(orders.read(_LENGTH_BYTES), "big")
    order: FileOrder = pickle.loads(orders.read(length))
    threading.Thread(target=_end_with, args=(orders,), daemon=True).start()
    try:
        answer = carry_out(order)
    except PenstockError as err:
        answer = FileAnswer(reason=err.reason, message=err.message)
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()
    # Not sys.exit: the daemon thread holds standard input, which finalisation would wait for.
    os._exit(0)


def _end_with(orders: BinaryIO) -> None:
    orders.read()
    os._exit(1)


if __name__ == "__main__":
    main()
