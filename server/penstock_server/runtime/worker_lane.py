"""Bulk lanes, which run in the worker process; this side starts it, feeds it and keeps it alive."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np
import structlog

from penstock_server.domain.errors import EngineFailed, ModelBroken
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey, ModelManifest
from penstock_server.domain.work import BatchPlan, BatchTimes
from penstock_server.engines.worker_protocol import BatchDone, Prepare, Prepared, RunBatch, SlotLayout
from penstock_server.runtime.gate import Gate
from penstock_server.runtime.lanes import BatchResult, LaneLost, pack

# How long the worker may take to end once its sockets are closed: one batch, generously.
_STOP_WAIT_S = 5.0
# Pause before the worker is started anew if it lived for less than this, so that a broken one does not spin.
_RESTART_PAUSE_S = 2.0

_log = structlog.get_logger(__name__)


class _Channel:
    """This side of one lane's socket and memory file, in one life of the worker process."""

    def __init__(self, index: int, layout: SlotLayout) -> None:
        with ExitStack() as undo:
            mine, theirs = map(undo.enter_context, socket.socketpair())
            self.memory_fd = os.memfd_create(f"penstock-lane-{index}")
            undo.callback(os.close, self.memory_fd)
            os.ftruncate(self.memory_fd, layout.file_bytes)
            self.memory = mmap.mmap(self.memory_fd, layout.file_bytes)
            undo.pop_all()
        self.connection = Connection(mine.detach())
        self.worker_fd = theirs.detach()

    def close_worker_ends(self) -> None:
        """Closes the descriptors that the worker has inherited."""
        os.close(self.worker_fd)
        os.close(self.memory_fd)

    def close(self) -> None:
        self.connection.close()


@dataclass(slots=True)
class _PreparedModel:
    """A model version on a lane, and what the present worker process has made of it."""

    manifest: ModelManifest
    ids_dtype: np.dtype[np.generic] = field(default_factory=lambda: np.dtype(np.int64))
    error: str = ""
    is_settled: asyncio.Event = field(default_factory=asyncio.Event)


class WorkerLane:
    """One bulk lane: a thread of the worker process with memory for ``slots`` batches."""

    kind = LaneKind.BULK

    def __init__(self, name: str, layout: SlotLayout, gate: Gate) -> None:
        self.name = name
        self._gate = gate
        self.slots = layout.slots
        self._layout = layout
        self._channel: _Channel | None = None
        self._on_loss: Callable[[], None] = self.detach
        self._free_slots: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(layout.slots):
            self._free_slots.put_nowait(slot)
        self._running: dict[int, asyncio.Future[BatchDone]] = {}
        self._preparing: dict[ModelKey, asyncio.Future[Prepared]] = {}
        self._models: dict[ModelKey, _PreparedModel] = {}

    async def prepare(self, manifest: ModelManifest) -> None:
        """Has the worker build the model version's engine."""
        model = self._models.setdefault(manifest.key, _PreparedModel(manifest))
        self._send(Prepare(manifest))
        future = asyncio.get_running_loop().create_future()
        self._preparing[manifest.key] = future
        prepared = await future
        model.error = prepared.error
        if not prepared.error:
            model.ids_dtype = np.dtype(prepared.ids_dtype)
        # Ready to run, or ready to say why it cannot: batches must not wait for an engine that never comes.
        model.is_settled.set()
        if prepared.error:
            raise ModelBroken(prepared.error)

    async def run(self, plan: BatchPlan, *, alone: bool = False) -> BatchResult:
        """Packs a batch into a free slot, has the worker run it and copies the outputs out."""
        model = self._models[plan.model]
        slot = await self._free_slots.get()
        try:
            async with self._gate.passing(alone=alone):
                # A worker that starts anew builds its engines first.
                await model.is_settled.wait()
                return await self._run_in(slot, plan, model)
        finally:
            self._free_slots.put_nowait(slot)

    async def close(self) -> None:
        """Fails what is under way and closes the socket."""
        self.detach()

    def attach(self, channel: _Channel, on_loss: Callable[[], None]) -> None:
        """Connects the lane to a new worker process.

        Args:
            channel: Its socket and memory.
            on_loss: Called when the process is found dead; must detach all its lanes before it returns, so
                that no batch is sent to it any more.
        """
        self._channel = channel
        self._on_loss = on_loss
        asyncio.get_running_loop().add_reader(channel.connection.fileno(), self._read, channel)

    def detach(self) -> None:
        """Disconnects from the worker process; everything under way fails with LaneLost. Idempotent."""
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel.connection.fileno())
            self._channel.close()
            self._channel = None
        lost = LaneLost(f"{self.name}: the bulk worker ended")
        for running in self._running.values():
            if not running.done():
                running.set_exception(lost)
        for preparing in self._preparing.values():
            if not preparing.done():
                preparing.set_exception(lost)
        self._running.clear()
        self._preparing.clear()
        for model in self._models.values():
            model.is_settled.clear()

    def prepared_manifests(self) -> list[ModelManifest]:
        """Model versions that a new worker process must build again."""
        return [model.manifest for model in self._models.values()]

    async def _run_in(self, slot: int, plan: BatchPlan, model: _PreparedModel) -> BatchResult:
        if model.error:
            raise EngineFailed(f"The bulk worker could not build the engine of {plan.model}.")
        if plan.rows * plan.padded_length > self._layout.tokens_max:
            raise EngineFailed("The batch is larger than the lane's memory.")
        if self._channel is None:
            # Settled in the very turn of the loop in which the process was found dead: wait for the next one.
            model.is_settled.clear()
            raise self._not_sent()
        memory = self._channel.memory
        batch = self._layout.batch(memory, slot, plan.rows, plan.padded_length, model.ids_dtype)
        pack(plan, batch, model.manifest.pad_id)
        self._send(RunBatch(plan.model, slot, plan.rows, plan.padded_length))
        future = asyncio.get_running_loop().create_future()
        self._running[slot] = future
        done = await future
        if done.error:
            raise EngineFailed(done.error)
        outputs = self._layout.outputs(memory, slot, plan.rows, done.width).copy()
        return BatchResult(outputs, BatchTimes(done.start_ns, done.end_ns, done.cpu_ns))

    def _send(self, command: Prepare | RunBatch) -> None:
        if self._channel is None:
            raise self._not_sent()
        try:
            self._channel.connection.send(command)
        except OSError as err:
            self._on_loss()
            raise self._not_sent() from err

    def _not_sent(self) -> LaneLost:
        return LaneLost(f"{self.name}: the bulk worker is starting", is_suspect=False)

    def _read(self, channel: _Channel) -> None:
        try:
            answer: Prepared | BatchDone = channel.connection.recv()
        except (EOFError, OSError):
            self._on_loss()
            return
        if isinstance(answer, Prepared):
            future = self._preparing.pop(answer.key, None)
            if future is not None and not future.done():
                future.set_result(answer)
        else:
            running = self._running.pop(answer.slot, None)
            if running is not None and not running.done():
                running.set_result(answer)


class BulkWorker:
    """The worker process with its lanes. Owns the process; starts it anew when it dies.

    Args:
        count: Number of lanes.
        layout: Memory of each lane.
    """

    def __init__(self, count: int, layout: SlotLayout) -> None:
        gate = Gate()
        self.lanes = tuple(WorkerLane(f"bulk-{index}", layout, gate) for index in range(count))
        self._layout = layout
        self._process: subprocess.Popen[bytes] | None = None
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._preparing: list[asyncio.Task[None]] = []
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the worker, or None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the process and the task that keeps it alive."""
        self._spawn()
        self._keeper = asyncio.create_task(self._keep_alive(), name="bulk-worker-keeper")

    async def close(self) -> None:
        """Ends the process; idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        for task in self._preparing:
            task.cancel()
        await asyncio.gather(*self._preparing, return_exceptions=True)
        for lane in self.lanes:
            lane.detach()
        await asyncio.to_thread(self._reap)

    def _lose(self) -> None:
        """Takes note that the process has died, whichever lane found out."""
        # All lanes at once: one that had not heard yet would send a batch after the process, and that batch
        # would be blamed for its death.
        for lane in self.lanes:
            lane.detach()
        self._lost.set()

    def _spawn(self) -> None:
        self._lost = asyncio.Event()
        channels: list[_Channel] = []
        try:
            channels += (_Channel(index, self._layout) for index in range(len(self.lanes)))
            self._process = self._popen(channels)
        except OSError:
            for channel in channels:
                channel.close()
            raise
        finally:
            for channel in channels:
                channel.close_worker_ends()
        for lane, channel in zip(self.lanes, channels, strict=True):
            lane.attach(channel, self._lose)

    def _popen(self, channels: Sequence[_Channel]) -> subprocess.Popen[bytes]:
        descriptors = [fd for channel in channels for fd in (channel.worker_fd, channel.memory_fd)]
        numbers = (self._layout.slots, self._layout.tokens_max, self._layout.outputs_max, *descriptors)
        command = [sys.executable, "-m", "penstock_server.engines.worker_main", *map(str, numbers)]
        return subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)

    async def _keep_alive(self) -> None:
        while True:
            started_s = time.monotonic()
            await self._lost.wait()
            await asyncio.to_thread(self._reap)
            self.restarts += 1
            lived_s = time.monotonic() - started_s
            _log.warning("bulk_worker_ended", lived_s=round(lived_s, 3), restarts=self.restarts)
            if lived_s < _RESTART_PAUSE_S:
                await asyncio.sleep(_RESTART_PAUSE_S)
            await self._spawn_again()
            # Not awaited in line: the new process may die as well, which this task must see.
            self._preparing = [asyncio.create_task(self._prepare_again(lane)) for lane in self.lanes]

    async def _spawn_again(self) -> None:
        """Starts the process, again and again while the system has no memory or descriptors for it."""
        while True:
            try:
                self._spawn()
            except OSError as err:
                _log.error("bulk_worker_not_started", error=str(err))
                await asyncio.sleep(_RESTART_PAUSE_S)
            else:
                return

    async def _prepare_again(self, lane: WorkerLane) -> None:
        for manifest in lane.prepared_manifests():
            try:
                await lane.prepare(manifest)
            except LaneLost:
                return
            except ModelBroken as err:
                _log.error("bulk_engine_broken", model=str(manifest.key), error=err.message)

    def _reap(self) -> None:
        """Waits for the process to end, and kills it if it does not."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(_STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None
