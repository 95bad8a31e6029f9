"""Which model computes rows, named so that any machine can find it in its own folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock_server.domain.model import ModelKey, ModelManifest
from penstock_server.domain.tasks import TaskOptions, Truncation
from penstock_server.engines.factory import build_engine
from penstock_server.models.loaded import LoadedModel, load_model
from penstock_server.models.repository import ModelRepository
from penstock_server.ray.rows import RowComputer, RowOptions
from penstock_server.text.tokenizer import TokenizerLimits

# What a server has by default, and for the same reason (`config.LaneConfig.bulk_batch_tokens`).
_BATCH_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOrder:
    """Which model computes rows, and how; picklable. What is None is as the model has it.

    Attributes:
        models: The models folder, at the same path on every node.
        model: Name of the model, or ``name@version``; the newest version without one.
        task: The task with the options of its head.
        truncation: What happens to texts that are too long.
        tokens_max: Longest row in tokens, special tokens included.
        batch_tokens: Most tokens of a batch, padding included.
    """

    models: str
    model: str
    task: TaskOptions | None = None
    truncation: Truncation | None = None
    tokens_max: int | None = None
    batch_tokens: int = _BATCH_TOKENS

    def manifest(self) -> ModelManifest:
        """Finds the model on this machine.

        Raises:
            UnknownModel: It is not in the folder.
            ModelBroken: Its folder cannot be served.
        """
        repository = ModelRepository(Path(self.models))
        name, _, version = self.model.partition("@")
        return repository.manifest(ModelKey(name, version) if version else repository.newest(name))

    def options(self, manifest: ModelManifest) -> RowOptions:
        """How rows are computed, with what the model says where the order is silent."""
        return RowOptions(
            task=self.task or TaskOptions(manifest.task),
            truncation=self.truncation or manifest.truncation,
            tokens_max=self.tokens_max or manifest.tokens_max,
            batch_tokens=self.batch_tokens,
        )


def open_model(manifest: ModelManifest) -> LoadedModel:
    """Opens a model's tokenizer for the one thread that a worker has.

    Raises:
        ModelBroken: It cannot be used.
    """
    return load_model(manifest, TokenizerLimits(threads_max=1))


def build_computer(model: LoadedModel, options: RowOptions) -> RowComputer:
    """Builds and warms up an engine of one thread, as a bulk lane of a server has it.

    Raises:
        ModelBroken: The graph cannot be loaded or run.
    """
    return RowComputer(model, build_engine(model.manifest, threads=1), options)
