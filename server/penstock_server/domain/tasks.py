"""What can be asked for: tasks, classes and options."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum


class Task(Enum):
    """What a model computes from a text."""

    EMBED = "embed"
    CLASSIFY = "classify"
    TAG = "tag"
    RERANK = "rerank"


class RequestClass(IntEnum):
    """How urgent a request is; a smaller number goes first."""

    LIVE_CRITICAL = 1
    LIVE = 2
    FLEX = 3
    BULK = 4


class OverloadPolicy(Enum):
    """What may happen to a request that cannot be computed in time."""

    REJECT = "reject"
    DEMOTE_TO_FLEX = "demote_to_flex"
    DEMOTE_TO_BULK = "demote_to_bulk"


class Truncation(Enum):
    """What happens to a text of more tokens than the limit."""

    ERROR = "error"
    RIGHT = "right"
    LEFT = "left"


class ScoreFunction(Enum):
    """How scores follow from logits."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Options of every request. None means: as the server, the model or the kind of request has it."""

    request_class: RequestClass | None = None
    overload_policy: OverloadPolicy | None = None
    truncation: Truncation | None = None
    tokens_max: int | None = None
    tenant: str = ""
    explain: bool = False


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """Options of the embed head. None means the model's own setting."""

    normalize: bool | None = None
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """Options of the classify head. ``top_k`` None means all labels."""

    top_k: int | None = None
    score_function: ScoreFunction | None = None


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The task with the options of its head."""

    task: Task
    embed: EmbedOptions = field(default_factory=EmbedOptions)
    classify: ClassifyOptions = field(default_factory=ClassifyOptions)
