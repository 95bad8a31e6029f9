"""Heads: numbers into answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from penstock_server.domain.errors import InvalidRequest, NotBuilt, TaskNotSupported
from penstock_server.domain.model import ModelKey, ModelManifest, Pooling
from penstock_server.domain.tasks import (
    ClassifyOptions,
    EmbedOptions,
    ScoreFunction,
    Task,
    TaskOptions,
    Truncation,
)
from penstock_server.models.heads import check_options, finish_classify, finish_embed

EMBEDDER = ModelManifest(
    key=ModelKey("m", "1"),
    folder=Path("m"),
    onnx_path=Path("m/model.onnx"),
    tokenizer_path=Path("m/tokenizer.json"),
    task=Task.EMBED,
    tokens_max=16,
    truncation=Truncation.RIGHT,
    width=3,
    pooling=Pooling.MEAN,
    normalize=True,
    labels=(),
    score_function=ScoreFunction.NONE,
    output_name="last_hidden_state",
    precision="fp32",
    pad_id=0,
)
CLASSIFIER = replace(
    EMBEDDER,
    task=Task.CLASSIFY,
    labels=("a", "b", "c"),
    score_function=ScoreFunction.SOFTMAX,
    normalize=False,
)
LOGITS = np.array([[0.0, 2.0, 1.0]], np.float32)


def test_vectors_are_cut_before_they_are_normalised() -> None:
    outputs = np.array([[3.0, 4.0, 12.0]], np.float32)
    cut = finish_embed(outputs, EMBEDDER, EmbedOptions(dimensions=2))
    np.testing.assert_allclose(cut, [[0.6, 0.8]], rtol=1e-6)
    assert cut.flags.c_contiguous
    assert cut.dtype == np.float32
    np.testing.assert_array_equal(outputs, [[3.0, 4.0, 12.0]])


def test_a_request_may_turn_normalisation_off_and_on() -> None:
    outputs = np.array([[3.0, 0.0, 4.0]], np.float32)
    np.testing.assert_array_equal(finish_embed(outputs, EMBEDDER, EmbedOptions(normalize=False)), outputs)
    plain = replace(EMBEDDER, normalize=False)
    np.testing.assert_array_equal(finish_embed(outputs, plain, EmbedOptions()), outputs)
    np.testing.assert_allclose(
        finish_embed(outputs, plain, EmbedOptions(normalize=True)), [[0.6, 0.0, 0.8]], rtol=1e-6
    )


def test_zero_vectors_stay_zero() -> None:
    np.testing.assert_array_equal(finish_embed(np.zeros((2, 3), np.float32), EMBEDDER, EmbedOptions()), 0)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_unit_length_at_any_scale(scale: float) -> None:
    outputs = np.array([[1.0, 2.0, 2.0]], np.float32) * np.float32(scale)
    np.testing.assert_allclose(
        finish_embed(outputs, EMBEDDER, EmbedOptions()), [[1 / 3, 2 / 3, 2 / 3]], rtol=1e-6
    )


def test_labels_come_best_first() -> None:
    answer = finish_classify(LOGITS, CLASSIFIER, ClassifyOptions())
    np.testing.assert_array_equal(answer.label_ids, [[1, 2, 0]])
    np.testing.assert_allclose(answer.scores, [[0.66524096, 0.24472847, 0.09003057]], rtol=1e-6)
    assert answer.labels == ("a", "b", "c")
    assert answer.label_ids.dtype == np.int32
    assert answer.scores.dtype == np.float32


def test_equal_scores_keep_the_order_of_labels() -> None:
    logits = np.array([[1.0, 1.0, 1.0], [0.0, 5.0, 5.0]], np.float32)
    answer = finish_classify(logits, CLASSIFIER, ClassifyOptions(top_k=2))
    np.testing.assert_array_equal(answer.label_ids, [[0, 1], [1, 2]])


def test_top_k_above_the_number_of_labels_means_all() -> None:
    assert finish_classify(LOGITS, CLASSIFIER, ClassifyOptions(top_k=99)).scores.shape == (1, 3)


def test_score_functions() -> None:
    sigmoid = finish_classify(LOGITS, CLASSIFIER, ClassifyOptions(score_function=ScoreFunction.SIGMOID))
    np.testing.assert_allclose(sigmoid.scores, [[0.880797, 0.7310586, 0.5]], rtol=1e-6)
    raw = finish_classify(LOGITS, CLASSIFIER, ClassifyOptions(score_function=ScoreFunction.NONE))
    np.testing.assert_array_equal(raw.scores, [[2.0, 1.0, 0.0]])


@pytest.mark.parametrize("function", list(ScoreFunction))
@given(
    logits=npst.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 5)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_scores_are_finite_ordered_and_in_range(function: ScoreFunction, logits: np.ndarray) -> None:
    labels = tuple(f"l{i}" for i in range(logits.shape[1]))
    model = replace(CLASSIFIER, labels=labels, width=len(labels), score_function=function)
    answer = finish_classify(logits, model, ClassifyOptions())
    assert np.isfinite(answer.scores).all()
    assert (np.diff(answer.scores, axis=1) <= 0).all()
    if function is not ScoreFunction.NONE:
        assert ((answer.scores >= 0) & (answer.scores <= 1)).all()
    if function is ScoreFunction.SOFTMAX:
        np.testing.assert_allclose(answer.scores.sum(axis=1), 1.0, rtol=1e-5)


def test_wrong_task_names_the_right_one() -> None:
    with pytest.raises(TaskNotSupported, match="does not do classify; it does embed") as caught:
        check_options(EMBEDDER, TaskOptions(Task.CLASSIFY))
    assert caught.value.metadata["supported"] == "embed"


@pytest.mark.parametrize("task", [Task.TAG, Task.RERANK])
def test_tasks_of_later_releases_are_refused_as_such(task: Task) -> None:
    with pytest.raises(NotBuilt):
        check_options(replace(CLASSIFIER, task=task), TaskOptions(task))


@pytest.mark.parametrize("dimensions", [-1, 0, 4])
def test_dimensions_out_of_range_are_refused(dimensions: int) -> None:
    with pytest.raises(InvalidRequest, match="from 1 to 3") as caught:
        check_options(EMBEDDER, TaskOptions(Task.EMBED, embed=EmbedOptions(dimensions=dimensions)))
    assert caught.value.violations[0].field == "embed.dimensions"


def test_top_k_below_one_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"classify\.top_k"):
        check_options(CLASSIFIER, TaskOptions(Task.CLASSIFY, classify=ClassifyOptions(top_k=0)))


def test_good_options_pass() -> None:
    check_options(EMBEDDER, TaskOptions(Task.EMBED, embed=EmbedOptions(dimensions=3)))
    check_options(CLASSIFIER, TaskOptions(Task.CLASSIFY, classify=ClassifyOptions(top_k=9)))
