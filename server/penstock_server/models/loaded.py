"""A model version that is ready to take texts."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.domain.model import ModelManifest
from penstock_server.domain.tasks import TaskOptions, Truncation
from penstock_server.models.heads import check_options
from penstock_server.text.tokenizer import Tokenizer, TokenizerLimits


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A manifest with its tokenizer. Engines belong to lanes, heads are functions (`models.heads`).

    Immutable, and safe to share between threads.
    """

    manifest: ModelManifest
    tokenizer: Tokenizer

    def check_options(self, options: TaskOptions) -> None:
        """Checks that the model can do what is asked; see `heads.check_options`."""
        check_options(self.manifest, options)


def load_model(manifest: ModelManifest, limits: TokenizerLimits) -> LoadedModel:
    """Opens a model's tokenizer, compiled the first time; blocking.

    Args:
        manifest: The model.
        limits: What its tokenizer may use.

    Raises:
        ModelBroken: ``tokenizer.json`` cannot be used; the message says why.
    """
    tokenizer = Tokenizer.from_file(manifest.tokenizer_path, limits)
    # The first call takes 6 ms, later ones 10 us: no caller's call should be the first.
    tokenizer.encode(["warm-up"], tokens_max=None, truncation=Truncation.RIGHT)
    return LoadedModel(manifest=manifest, tokenizer=tokenizer)
