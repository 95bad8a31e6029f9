"""Heads: from what an engine computes to what a caller gets. Pure functions over arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.answer import Classifications, Vectors
from penstock_server.domain.errors import InvalidRequest, NotBuilt, TaskNotSupported
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.tasks import ClassifyOptions, EmbedOptions, ScoreFunction, Task, TaskOptions

_BUILT_TASKS = frozenset({Task.EMBED, Task.CLASSIFY})


def check_options(manifest: ModelManifest, options: TaskOptions) -> None:
    """Checks that a model can do what is asked, before anything is computed.

    Raises:
        TaskNotSupported: The model does another task.
        NotBuilt: The model does the task, but this release does not.
        InvalidRequest: An option is out of the model's range.
    """
    if options.task is not manifest.task:
        raise TaskNotSupported(
            f"Model {manifest.key} does not do {options.task.value}; it does {manifest.task.value}. "
            "Use that call, or a model made for the task.",
            model=str(manifest.key),
            task=options.task.value,
            supported=manifest.task.value,
        )
    if options.task not in _BUILT_TASKS:
        raise NotBuilt(
            f"Task {options.task.value} is not in this release of Penstock yet.", task=options.task.value
        )
    if options.task is Task.EMBED:
        _check_embed(manifest, options.embed)
    else:
        _check_classify(options.classify)


def finish(
    outputs: NDArray[np.float32], manifest: ModelManifest, options: TaskOptions
) -> Vectors | Classifications:
    """Turns an engine's outputs into answers with the head of the task."""
    if options.task is Task.EMBED:
        return Vectors(finish_embed(outputs, manifest, options.embed))
    return finish_classify(outputs, manifest, options.classify)


def finish_embed(
    outputs: NDArray[np.float32], manifest: ModelManifest, options: EmbedOptions
) -> NDArray[np.float32]:
    """Cuts vectors to the dimensions asked for, then scales them to unit length if asked or by default.

    Args:
        outputs: Pooled vectors, float32 ``[n, manifest.width]``; not changed.
        manifest: The model.
        options: Checked by `check_options`.

    Returns:
        float32 ``[n, d]``, C-contiguous; it is `outputs` itself if there is nothing to do. A vector of zeros
        stays one.
    """
    vectors = outputs if options.dimensions is None else outputs[:, : options.dimensions]
    normalize = manifest.normalize if options.normalize is None else options.normalize
    if not normalize:
        return np.ascontiguousarray(vectors)
    # In float64, or the squares of large components would overflow and of small ones vanish.
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    norms[norms == 0.0] = 1.0
    return np.ascontiguousarray(vectors / norms[:, np.newaxis], dtype=np.float32)


def finish_classify(
    outputs: NDArray[np.float32], manifest: ModelManifest, options: ClassifyOptions
) -> Classifications:
    """Scores labels and sorts them, best first; equal scores keep the order of the labels.

    Args:
        outputs: Logits, float32 ``[n, labels]``; not changed.
        manifest: The model.
        options: Checked by `check_options`; ``top_k`` above the number of labels means all.

    Returns:
        Label ids int32 ``[n, k]`` and scores float32 ``[n, k]``.
    """
    scores = _score(outputs, options.score_function or manifest.score_function)
    labels_count = outputs.shape[1]
    k = labels_count if options.top_k is None else min(options.top_k, labels_count)
    # Sorted by logits: scores may round to the same value where logits still differ.
    order = np.argsort(-outputs, axis=1, kind="stable")[:, :k]
    return Classifications(
        label_ids=np.ascontiguousarray(order, dtype=np.int32),
        scores=np.ascontiguousarray(np.take_along_axis(scores, order, axis=1), dtype=np.float32),
        labels=manifest.labels,
    )


def _score(logits: NDArray[np.float32], function: ScoreFunction) -> NDArray[np.float32]:
    if function is ScoreFunction.NONE:
        return logits
    if function is ScoreFunction.SIGMOID:
        # exp of a negative number only: exp(-|x|) cannot overflow.
        decay: NDArray[np.float32] = np.exp(-np.abs(logits))
        numerator: NDArray[np.float32] = np.where(logits >= 0, np.ones_like(decay), decay)
        return numerator / (1 + decay)
    powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _check_embed(manifest: ModelManifest, options: EmbedOptions) -> None:
    dimensions = options.dimensions
    if dimensions is not None and not 1 <= dimensions <= manifest.width:
        raise InvalidRequest.of_field(
            "embed.dimensions",
            f"must be from 1 to {manifest.width}, the width of model {manifest.key}, but is {dimensions}",
        )


def _check_classify(options: ClassifyOptions) -> None:
    if options.top_k is not None and options.top_k < 1:
        raise InvalidRequest.of_field("classify.top_k", f"must be at least 1, but is {options.top_k}")
