"""The worker of a job on Ray: an actor with a tokenizer and an engine, which computes windows one by one."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.bulk.parts import Part, RowStatus
from penstock_server.bulk.result_table import result_batch
from penstock_server.bulk.results import ResultRows
from penstock_server.bulk.spool import Spool, Window
from penstock_server.domain.errors import InvalidRequest, PlaceFailed
from penstock_server.domain.model import ModelManifest
from penstock_server.ray.apart import ApartEngine
from penstock_server.ray.attempts import begin
from penstock_server.ray.library import load_ray
from penstock_server.ray.model import build_computer, open_model
from penstock_server.ray.output import OutputFolder, PartCounts
from penstock_server.ray.rows import RowComputer, RowOptions


@dataclass(frozen=True, slots=True)
class WindowOrder:
    """What a worker computes; picklable.

    Attributes:
        manifest: The model, in the same folder on every node.
        options: How rows are computed.
        output: The job's folder.
        schema: Arrow schema of the parts.
        attempts: Handle of the actor that counts how often windows are begun.
    """

    manifest: ModelManifest
    options: RowOptions
    output: OutputFolder
    schema: Any
    attempts: Any


class WindowWorker:
    """Computes windows that Ray Data names, and writes the part of each.

    A window that is computed twice, because its first node was lost, gives the same part under the same name.

    Args:
        order: What it computes.

    Raises:
        ModelBroken: The model cannot be loaded on this node.
    """

    def __init__(self, order: WindowOrder) -> None:
        self._order = order
        self._ray = load_ray()
        self._model = open_model(order.manifest)
        self._computer = build_computer(self._model, order.options)

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        """Computes some windows.

        Args:
            batch: ``window`` and ``start_row``, the number of each window and of its first row.

        Returns:
            ``succeeded`` and ``failed`` rows of each.

        Raises:
            PlaceFailed: The job's folder cannot be reached from this node.
            RayJobFailed: A window was begun too often.
        """
        numbers, starts = batch["window"].tolist(), batch["start_row"].tolist()
        counts = [self._compute(number, start) for number, start in zip(numbers, starts, strict=True)]
        return {
            "succeeded": np.array([each.succeeded for each in counts]),
            "failed": np.array([each.failed for each in counts]),
        }

    def _compute(self, number: int, start_row: int) -> PartCounts:
        begun = begin(self._ray, self._order.attempts, number, start_row)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "window.arrow"
            try:
                self._order.output.fetch_window(number, path)
            except InvalidRequest as err:
                raise PlaceFailed(
                    f"{err.message} Every node must reach the output folder by its URL."
                ) from err
            with closing(Spool(path)) as spool:
                rows = self._rows(spool, start_row, is_suspect=begun > 1)
        counts = PartCounts(rows.part.count(RowStatus.SUCCEEDED), rows.part.count(RowStatus.FAILED))
        self._order.output.write_part(number, result_batch(rows, self._order.schema), counts)
        return counts

    def _rows(self, spool: Spool, start_row: int, *, is_suspect: bool) -> ResultRows:
        window = spool.window(0)
        part = self._computed_apart(window) if is_suspect else self._computer.compute(window)
        return ResultRows(start_row, np.arange(part.rows), part, spool.keys(0), spool.carried(0))

    def _computed_apart(self, window: Window) -> Part:
        """Computes a window under which a worker has died: the row that kills an engine fails alone."""
        engine = ApartEngine(self._order.manifest)
        with closing(RowComputer(self._model, engine, self._order.options)) as computer:
            return computer.compute(window)
