"""What is known of a model version before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from penstock_server.domain.tasks import ScoreFunction, Task, Truncation

# Longest row that any model may have, in tokens: what a lane has memory for.
TOKENS_MAX = 32_768


class ModelKey(NamedTuple):
    """Name and version: together they name one immutable folder."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Pooling(Enum):
    """How token vectors become one vector a text."""

    MEAN = "mean"
    CLS = "cls"
    # The graph's output is one vector a text already.
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """Everything an engine, a tokenizer and a head need to know of a model version.

    Immutable and picklable: engines in other processes are built from it.

    Attributes:
        key: Name and version.
        folder: The version's folder.
        onnx_path: The graph.
        tokenizer_path: ``tokenizer.json``.
        task: What the model computes.
        tokens_max: Longest row in tokens, special tokens included.
        truncation: What happens to longer rows unless a request says otherwise.
        width: Numbers a row in the engine's output: dimensions (embed) or labels (classify).
        pooling: How token vectors become one vector (embed).
        normalize: Whether vectors are scaled to unit length by default (embed).
        labels: Names of the outputs (classify).
        score_function: How scores follow from logits by default (classify).
        output_name: Which output of the graph is read.
        precision: Precision of the weights as stored.
        pad_id: Token id that fills up short rows.
    """

    key: ModelKey
    folder: Path
    onnx_path: Path
    tokenizer_path: Path
    task: Task
    tokens_max: int
    truncation: Truncation
    width: int
    pooling: Pooling
    normalize: bool
    labels: tuple[str, ...]
    score_function: ScoreFunction
    output_name: str
    precision: str
    pad_id: int
