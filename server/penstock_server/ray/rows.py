"""Computes the rows of a window in one thread: native tokenizer, engine and head, as the server does."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import pack_rows
from penstock_server.bulk.bad_rows import bad_rows
from penstock_server.bulk.parts import Part, RowStatus, merge_answers
from penstock_server.bulk.rows import InputRow
from penstock_server.bulk.spool import TextColumn, Window
from penstock_server.bulk.twins import first_alike
from penstock_server.domain.errors import EngineFailed
from penstock_server.domain.job import RowFailure
from penstock_server.domain.tasks import TaskOptions, Truncation
from penstock_server.domain.work import Batch, IdArray
from penstock_server.engines.protocol import Engine
from penstock_server.models.heads import finish
from penstock_server.models.loaded import LoadedModel

if TYPE_CHECKING:
    from penstock_kernels import TokenRows


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How rows are computed; picklable.

    Attributes:
        task: The task with the options of its head.
        truncation: What happens to texts that are too long.
        tokens_max: Longest row in tokens, special tokens included.
        batch_tokens: Most tokens of a batch, padding included; a longer row is a batch of its own.
    """

    task: TaskOptions
    truncation: Truncation
    tokens_max: int
    batch_tokens: int


class RowComputer:
    """Computes rows, longest first, so that those of a batch are of like length. For one thread.

    Args:
        model: The model.
        engine: Its engine.
        options: How rows are computed; checked against the model.
    """

    def __init__(self, model: LoadedModel, engine: Engine, options: RowOptions) -> None:
        self._model = model
        self._engine = engine
        self._options = options

    def compute(self, window: Window) -> Part:
        """Computes a window; a bad row fails alone, and none is pending afterwards.

        Of rows with the same tokens one is computed, and answers for all of them.
        """
        tokens = self._tokenised(window)
        cuts = self._options.truncation is not Truncation.ERROR
        failures = bad_rows(window.failures, tokens, None if cuts else self._options.tokens_max)
        status = np.full(tokens.rows, RowStatus.SUCCEEDED, np.uint8)
        status[list(failures)] = RowStatus.FAILED
        wanted = np.flatnonzero(status == RowStatus.SUCCEEDED)
        _, first, group = np.unique(first_alike(tokens)[wanted], return_index=True, return_inverse=True)
        outputs, failed = self._outputs(tokens, wanted[first].astype(np.int32))
        for place in np.flatnonzero(np.isin(group, list(failed))).tolist():
            row = int(wanted[place])
            failures[row], status[row] = failed[int(group[place])], RowStatus.FAILED
        return self._finished(status, failures, outputs[group[status[wanted] == RowStatus.SUCCEEDED]])

    def close(self) -> None:
        """Frees the engine."""
        self._engine.close()

    def _tokenised(self, window: Window) -> TokenRows:
        return self._model.tokenizer.encode_arrow(
            window.text.data,
            window.text.offsets,
            tokens_max=self._options.tokens_max,
            truncation=self._options.truncation,
            pair_data=window.pair.data if window.pair else None,
            pair_offsets=window.pair.offsets if window.pair else None,
        )

    def _outputs(
        self, tokens: TokenRows, rows: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], dict[int, RowFailure]]:
        """Outputs of rows, float32 ``[len(rows), width]``, and why some have none, by place in ``rows``."""
        outputs = np.zeros((len(rows), self._model.manifest.width), np.float32)
        failed: dict[int, RowFailure] = {}
        for places in self._batches(tokens.lengths[rows]):
            self._run(tokens, rows, places, outputs, failed)
        return outputs, failed

    def _batches(self, lengths: NDArray[np.int32]) -> Generator[NDArray[np.intp]]:
        """Cuts rows into batches within the budget; yields their places, longest first."""
        order = np.argsort(-lengths, kind="stable")
        first = 0
        while first < len(order):
            padded_length = int(lengths[order[first]])
            count = max(1, self._options.batch_tokens // max(1, padded_length))
            yield order[first : first + count]
            first += count

    def _run(
        self,
        tokens: TokenRows,
        rows: NDArray[np.int32],
        places: NDArray[np.intp],
        outputs: NDArray[np.float32],
        failed: dict[int, RowFailure],
    ) -> None:
        """Computes a batch; one that fails is halved until the rows that fail are alone."""
        try:
            outputs[places] = self._engine.run(self._packed(tokens, rows[places]))
        except EngineFailed as err:
            if len(places) == 1:
                failed[int(places[0])] = RowFailure(err.reason, err.message)
                return
            middle = len(places) // 2
            self._run(tokens, rows, places[:middle], outputs, failed)
            self._run(tokens, rows, places[middle:], outputs, failed)

    def _packed(self, tokens: TokenRows, rows: NDArray[np.int32]) -> Batch:
        shape = (len(rows), int(tokens.lengths[rows].max()))
        ids, mask, types = (cast("IdArray", np.empty(shape, self._engine.ids_dtype)) for _ in range(3))
        pack_rows([(tokens, rows)], shape[1], self._model.manifest.pad_id, ids, mask, types)
        return Batch(ids, mask, types)

    def _finished(
        self, status: NDArray[np.uint8], failures: dict[int, RowFailure], outputs: NDArray[np.float32]
    ) -> Part:
        if not len(outputs):
            return Part(status, None, failures)
        answers = finish(outputs, self._model.manifest, self._options.task)
        done = status == RowStatus.SUCCEEDED
        return Part(status, merge_answers(len(status), done, answers, None), failures)


def window_of(rows: Sequence[InputRow], *, has_pairs: bool) -> Window:
    """Lays the texts of rows out one after the other; bad rows are empty."""
    return Window(
        number=0,
        start_row=0,
        rows=len(rows),
        text=_column([row.text or b"" for row in rows]),
        pair=_column([row.pair or b"" for row in rows]) if has_pairs else None,
        failures={index: row.failure for index, row in enumerate(rows) if row.failure is not None},
    )


def _column(texts: Sequence[bytes]) -> TextColumn:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return TextColumn(np.frombuffer(b"".join(texts), np.uint8), offsets)
