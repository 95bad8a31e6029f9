"""What the server and the bulk worker say to each other, and how they share memory."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.model import ModelKey, ModelManifest
from penstock_server.domain.work import Batch, IdArray


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """Where a slot's arrays lie in the lane's memory file.

    Three id arrays of ``tokens_max`` elements of 8 bytes, then the outputs, float32.
    """

    slots: int
    tokens_max: int
    outputs_max: int

    @property
    def slot_bytes(self) -> int:
        """Size of one slot."""
        return 3 * 8 * self.tokens_max + 4 * self.outputs_max

    @property
    def file_bytes(self) -> int:
        """Size of the memory file."""
        return self.slots * self.slot_bytes

    def batch(
        self, memory: mmap.mmap, slot: int, rows: int, padded_length: int, dtype: np.dtype[np.generic]
    ) -> Batch:
        """Views a slot's id arrays as a batch; no copy."""
        shape = (rows, padded_length)
        views = [
            np.ndarray(shape, dtype, memory, slot * self.slot_bytes + index * 8 * self.tokens_max)
            for index in range(3)
        ]
        return Batch(*(cast("IdArray", view) for view in views))

    def outputs(self, memory: mmap.mmap, slot: int, rows: int, width: int) -> NDArray[np.float32]:
        """Views a slot's outputs; no copy."""
        offset = slot * self.slot_bytes + 3 * 8 * self.tokens_max
        return np.ndarray((rows, width), np.float32, memory, offset)


@dataclass(frozen=True, slots=True)
class Prepare:
    """Command: build the engine of a model version."""

    manifest: ModelManifest


@dataclass(frozen=True, slots=True)
class Prepared:
    """Answer to Prepare: the dtype of the ids the engine reads, or why it cannot be built."""

    key: ModelKey
    ids_dtype: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class RunBatch:
    """Command: run the batch that lies in a slot."""

    key: ModelKey
    slot: int
    rows: int
    padded_length: int


@dataclass(frozen=True, slots=True)
class BatchDone:
    """Answer to RunBatch: the outputs lie in the slot, or why there are none; and what it took.

    ``cpu_ns`` is the CPU time of the lane's thread, which is the only one that computes.
    """

    slot: int
    width: int
    start_ns: int
    end_ns: int
    cpu_ns: int
    error: str = ""
