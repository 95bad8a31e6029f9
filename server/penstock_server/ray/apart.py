"""An engine in a process of its own, for rows that have killed a worker or may have."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.errors import EngineFailed, ModelBroken
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.work import Batch
from penstock_server.engines.protocol import IdsDtype


class ApartEngine:
    """Runs batches in a child process: one that kills it fails like any other, and the next gets a new child.

    Args:
        manifest: The model.

    Raises:
        ModelBroken: The child cannot build its engine.
    """

    def __init__(self, manifest: ModelManifest) -> None:
        self._manifest = manifest
        self._child: _Child | None = _Child(manifest)
        self._ids_dtype = self._child.ids_dtype

    @property
    def name(self) -> str:
        """Runtime and device."""
        return "apart/cpu"

    @property
    def ids_dtype(self) -> IdsDtype:
        """The dtype of batches."""
        return self._ids_dtype

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None while there is none."""
        return None if self._child is None else self._child.pid

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Computes a batch; see `Engine.run`."""
        if self._child is None:
            self._child = _Child(self._manifest)
        try:
            answer = self._child.run(batch)
        except (EOFError, OSError) as err:
            self.close()
            raise EngineFailed("The engine died on this row.", model=str(self._manifest.key)) from err
        if isinstance(answer, str):
            raise EngineFailed(answer, model=str(self._manifest.key))
        return answer

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.end()
            self._child = None


class _Child:
    """A process that has an engine; `apart_main` is its other side."""

    def __init__(self, manifest: ModelManifest) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # Ray puts folders on a worker's path that its environment does not name.
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock_server.ray.apart_main", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        self.pid = self._process.pid
        self._connection = Connection(ours.detach())
        try:
            self._connection.send(manifest)
            self.ids_dtype: IdsDtype = np.dtype(self._connection.recv())
        except (EOFError, OSError) as err:
            self.end()
            raise ModelBroken(f"The engine of model {manifest.key} dies when it is built.") from err

    def run(self, batch: Batch) -> NDArray[np.float32] | str:
        """Computes a batch; returns outputs, or why there are none. Raises EOFError or OSError if it died."""
        self._connection.send(batch)
        answer: NDArray[np.float32] | str = self._connection.recv()
        return answer

    def end(self) -> None:
        """Closes the connection, which ends the process unless it has."""
        self._connection.close()
        self._process.wait()
