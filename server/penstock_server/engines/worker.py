"""The bulk worker: a process of its own in which bulk lanes compute at idle priority.

Why a process: an idle-priority thread that holds the interpreter lock while live work fills the cores would
stop the server's event loop. It also keeps a crash on a poison row away from live traffic.

The server starts ``python -m penstock_server.engines.worker_main`` with one inherited socket and one
inherited memory file for each lane. A lane is a thread; it serves its commands in order, so the server can
send the next batch while one runs. Ids and outputs travel through the memory file, commands by the socket.
"""

from __future__ import annotations

import mmap
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection

from penstock_server.domain.errors import EngineFailed, PenstockError
from penstock_server.domain.model import ModelKey, ModelManifest
from penstock_server.engines.factory import build_engine
from penstock_server.engines.protocol import Engine
from penstock_server.engines.worker_protocol import BatchDone, Prepare, Prepared, RunBatch, SlotLayout


class EngineTable:
    """The engines of this process, shared by its lanes; each is built once."""

    def __init__(self) -> None:
        self._engines: dict[ModelKey, Engine] = {}
        self._building = threading.Lock()

    def prepare(self, manifest: ModelManifest) -> Engine:
        """Returns the engine of a model version, building it the first time."""
        with self._building:
            if manifest.key not in self._engines:
                self._engines[manifest.key] = build_engine(manifest, threads=1)
            return self._engines[manifest.key]

    def get(self, key: ModelKey) -> Engine:
        """Returns an engine that has been prepared."""
        return self._engines[key]


class WorkerLane:
    """One lane of the worker: reads commands, computes, answers."""

    def __init__(
        self, connection: Connection, memory: mmap.mmap, layout: SlotLayout, engines: EngineTable
    ) -> None:
        self._connection = connection
        self._memory = memory
        self._layout = layout
        self._engines = engines

    def serve(self) -> None:
        """Serves commands until the server closes its end."""
        # The server's death shows as either error; there is nobody left to tell.
        with suppress(EOFError, OSError):
            while True:
                command: Prepare | RunBatch = self._connection.recv()
                answer = self._prepare(command) if isinstance(command, Prepare) else self._run(command)
                self._connection.send(answer)

    def _prepare(self, command: Prepare) -> Prepared:
        key = command.manifest.key
        try:
            return Prepared(key, self._engines.prepare(command.manifest).ids_dtype.name)
        except PenstockError as err:
            return Prepared(key, "", err.message)
        except Exception as err:  # noqa: BLE001 - a lane that died would leave the server waiting
            return Prepared(key, "", f"building the engine failed: {type(err).__name__}: {err}")

    def _run(self, command: RunBatch) -> BatchDone:
        start_ns, start_cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        width, error = 0, ""
        try:
            width = self._compute(command)
        except PenstockError as err:
            error = err.message
        except Exception as err:  # noqa: BLE001 - a lane that died would leave the server waiting
            error = f"The engine failed: {type(err).__name__}."
        cpu_ns = time.thread_time_ns() - start_cpu_ns
        return BatchDone(command.slot, width, start_ns, time.monotonic_ns(), cpu_ns, error)

    def _compute(self, command: RunBatch) -> int:
        """Runs a batch and leaves its outputs in its slot; returns their width."""
        engine = self._engines.get(command.key)
        batch = self._layout.batch(
            self._memory, command.slot, command.rows, command.padded_length, engine.ids_dtype
        )
        outputs = engine.run(batch)
        if outputs.size > self._layout.outputs_max:
            raise EngineFailed(f"The outputs ({outputs.size:,} numbers) are larger than the lane's memory.")
        width = int(outputs.shape[1])
        self._layout.outputs(self._memory, command.slot, command.rows, width)[:] = outputs
        return width


def serve_lanes(arguments: list[str]) -> None:
    """Runs the lanes until the server closes their sockets.

    Args:
        arguments: slots, tokens_max, outputs_max, then a socket and a memory file descriptor for each lane.
    """
    slots, tokens_max, outputs_max, *descriptors = map(int, arguments)
    layout = SlotLayout(slots, tokens_max, outputs_max)
    engines = EngineTable()
    threads: list[threading.Thread] = []
    for socket_fd, memory_fd in zip(descriptors[::2], descriptors[1::2], strict=True):
        memory = mmap.mmap(memory_fd, layout.file_bytes)
        lane = WorkerLane(Connection(socket_fd), memory, layout, engines)
        threads.append(threading.Thread(target=lane.serve, name=f"bulk-lane-{len(threads)}"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
