"""What a model can do for a whole input."""

from __future__ import annotations

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, InputColumns
from penstock_server.domain.tasks import Task, TaskOptions
from penstock_server.models.loaded import LoadedModel, check_tokens_max


def check_spec(
    model: LoadedModel,
    task: TaskOptions,
    columns: InputColumns,
    input_format: FileFormat | None,
    tokens_max: int | None,
) -> None:
    """Refuses what the model cannot do, before any row is read.

    Raises:
        TaskNotSupported: The model does another task.
        NotBuilt: The model does the task, but this release does not.
        InvalidRequest: An option is out of the model's range, or the input does not suit the task.
    """
    model.check_options(task)
    if input_format is FileFormat.OPENAI_BATCH and task.task is not Task.EMBED:
        raise InvalidRequest.of_field("spec.input_format", "OPENAI_BATCH is for embeddings")
    has_pairs = columns.pair is not None
    if has_pairs and task.task is Task.EMBED:
        raise InvalidRequest.of_field(
            "spec.text_pair_column", "must be empty; this task takes single texts only"
        )
    check_tokens_max(model, tokens_max, pairs=has_pairs, field="spec.options.tokens_max")
