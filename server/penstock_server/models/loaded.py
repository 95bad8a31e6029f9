"""A model version that is ready to take texts."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.domain.errors import InvalidRequest
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


def check_tokens_max(
    model: LoadedModel,
    tokens_max: int | None,
    *,
    pairs: bool,
    bounded: bool = True,
    field: str = "options.tokens_max",
) -> None:
    """Refuses a token limit that leaves no room for a token of each text, or is above the model's.

    Args:
        model: The model.
        tokens_max: The limit asked for; None is always right.
        pairs: Whether there are pairs, which have more special tokens.
        bounded: Whether the model's own limit holds.
        field: What the limit is called in the request.

    Raises:
        InvalidRequest: It is out of range.
    """
    if tokens_max is None:
        return
    low = model.tokenizer.special_tokens_count(pairs) + (2 if pairs else 1)
    high = model.manifest.tokens_max if bounded else tokens_max
    if not low <= tokens_max <= high:
        allowed = f"{low} to {high}" if bounded else f"{low} and more"
        raise InvalidRequest.of_field(
            field, f"is {tokens_max}; this model allows {allowed} (0 for its default)"
        )
