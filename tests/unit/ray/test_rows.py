"""Rows of a window computed in one thread, by engines that tests can follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_server.bulk.parts import RowStatus
from penstock_server.bulk.rows import InputRow
from penstock_server.domain.answer import Classifications, Vectors
from penstock_server.domain.errors import EngineFailed
from penstock_server.domain.job import RowFailure
from penstock_server.domain.tasks import EmbedOptions, Task, TaskOptions, Truncation
from penstock_server.domain.work import Batch
from penstock_server.engines.null import NullEngine
from penstock_server.engines.protocol import IdsDtype
from penstock_server.models.loaded import LoadedModel
from penstock_server.ray.model import ModelOrder, open_model
from penstock_server.ray.rows import RowComputer, RowOptions, window_of
from tests.support.reviews import reviews
from tests.support.server import MODELS

POISON = "poison"
RAW = TaskOptions(Task.EMBED, embed=EmbedOptions(normalize=False))
OPTIONS = RowOptions(RAW, Truncation.RIGHT, tokens_max=32, batch_tokens=128)


class WatchedEngine:
    """A null engine that keeps the shapes of its batches, and refuses those with certain rows."""

    def __init__(self, model: LoadedModel, refuses: Callable[[Batch], bool] = lambda batch: False) -> None:
        self._null = NullEngine(model.manifest)
        self._refuses = refuses
        self.shapes: list[tuple[int, int]] = []

    @property
    def name(self) -> str:
        return "watched"

    @property
    def ids_dtype(self) -> IdsDtype:
        return self._null.ids_dtype

    def run(self, batch: Batch) -> NDArray[np.float32]:
        self.shapes.append((batch.rows, batch.padded_length))
        if self._refuses(batch):
            raise EngineFailed("This batch is refused.")
        return self._null.run(batch)

    def close(self) -> None:
        self._null.close()


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return open_model(ModelOrder(models=str(MODELS), model="minilm").manifest())


def rows_of(texts: Sequence[str]) -> list[InputRow]:
    return [InputRow(text.encode()) for text in texts]


def counts_of(part_answers: Vectors | Classifications | None) -> list[float]:
    """The null engine's first number of each row: its token count."""
    assert isinstance(part_answers, Vectors)
    counts: list[float] = part_answers.values[:, 0].tolist()
    return counts


def test_batches_are_of_like_length_within_the_budget_and_answers_in_order(model: LoadedModel) -> None:
    engine = WatchedEngine(model)
    texts = [review[: 10 + 7 * index] for index, review in enumerate(reviews(40))]
    part = RowComputer(model, engine, OPTIONS).compute(window_of(rows_of(texts), has_pairs=False))
    lengths = model.tokenizer.encode(texts, tokens_max=32, truncation=Truncation.RIGHT).lengths
    assert counts_of(part.answers) == lengths.tolist()
    assert part.count(RowStatus.SUCCEEDED) == 40
    padded = [length for _, length in engine.shapes]
    assert padded == sorted(padded, reverse=True)
    assert all(rows * length <= 128 for rows, length in engine.shapes)
    assert len(engine.shapes) < 12


def test_a_row_longer_than_the_budget_is_a_batch_of_its_own(model: LoadedModel) -> None:
    engine = WatchedEngine(model)
    window = window_of(rows_of(["a film", next(reviews(1))]), has_pairs=False)
    RowComputer(model, engine, replace(OPTIONS, batch_tokens=16)).compute(window)
    assert engine.shapes == [(1, 32), (1, 4)]


def test_rows_with_the_same_tokens_are_computed_once(model: LoadedModel) -> None:
    engine = WatchedEngine(model)
    window = window_of(rows_of(["A film.", "a play", "a  film.", "A FILM."]), has_pairs=False)
    part = RowComputer(model, engine, OPTIONS).compute(window)
    assert sum(rows for rows, _ in engine.shapes) == 2
    assert counts_of(part.answers) == [5, 4, 5, 5]


def test_a_row_that_makes_the_engine_fail_fails_alone_with_those_like_it(model: LoadedModel) -> None:
    bad = int(model.tokenizer.encode([POISON], tokens_max=None, truncation=Truncation.RIGHT).ids[1])
    engine = WatchedEngine(model, lambda batch: bool((batch.token_ids == bad).any()))
    texts = [f"film number {row}" for row in range(60)]
    texts[17] = texts[44] = POISON
    part = RowComputer(model, engine, OPTIONS).compute(window_of(rows_of(texts), has_pairs=False))
    assert part.failures == dict.fromkeys((17, 44), RowFailure("ENGINE_FAILED", "This batch is refused."))
    assert part.count(RowStatus.SUCCEEDED) == 58
    counts = counts_of(part.answers)
    assert counts[17] == counts[44] == 0
    assert min(counts[:17] + counts[18:44] + counts[45:]) == 5


def test_bad_rows_keep_their_reasons_and_cost_nothing(model: LoadedModel) -> None:
    engine = WatchedEngine(model)
    rows = [
        InputRow(None, failure=RowFailure("EMPTY_TEXT", "Row 0 is empty.")),
        InputRow(b"fine"),
        InputRow(b"\xff"),
        InputRow(b"long " * 50),
    ]
    options = replace(OPTIONS, truncation=Truncation.ERROR)
    part = RowComputer(model, engine, options).compute(window_of(rows, has_pairs=False))
    assert {index: failure.code for index, failure in part.failures.items()} == {
        0: "EMPTY_TEXT",
        2: "INVALID_UTF8",
        3: "TOO_MANY_TOKENS",
    }
    assert part.failures[3].message == "The text has more than 32 tokens, and truncation is off."
    assert engine.shapes == [(1, 3)]


def test_a_window_of_bad_rows_only_has_no_answers(model: LoadedModel) -> None:
    rows = [InputRow(None, failure=RowFailure("EMPTY_TEXT", "Nothing."))] * 3
    part = RowComputer(model, WatchedEngine(model), OPTIONS).compute(window_of(rows, has_pairs=False))
    assert part.answers is None
    assert part.count(RowStatus.FAILED) == 3
