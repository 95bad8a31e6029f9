"""``penstock.toml``: what a model folder's other files cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from penstock_server.domain.errors import ModelBroken

SETTINGS_FILE = "penstock.toml"


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of ``penstock.toml``. All are optional; what is given wins over everything derived.

    Attributes:
        task: What the model computes.
        tokens_max: Longest row in tokens, special tokens included.
        truncation: What happens to longer rows unless a request says otherwise.
        pooling: How token vectors become one vector (embed).
        normalize: Whether vectors are scaled to unit length by default (embed).
        labels: Names of the outputs, in the order of the logits (classify).
        score_function: How scores follow from logits by default (classify).
        output_name: Which output of the graph is read.
        onnx: The graph, relative to the folder.
        precision: Precision of the weights, for people's eyes only.
    """

    task: Literal["embed", "classify", "tag", "rerank"] | None = None
    tokens_max: Annotated[int, msgspec.Meta(ge=1)] | None = None
    truncation: Literal["error", "right", "left"] | None = None
    pooling: Literal["mean", "cls", "none"] | None = None
    normalize: bool | None = None
    labels: tuple[str, ...] | None = None
    score_function: Literal["softmax", "sigmoid", "none"] | None = None
    output_name: str | None = None
    onnx: str | None = None
    precision: str | None = None


def read_settings(folder: Path) -> ModelSettings:
    """Reads a folder's ``penstock.toml``; a folder without one gets empty settings.

    Raises:
        ModelBroken: The file is not TOML, or has a key or value that is not valid; the message names it and,
            for keys, lists the valid ones.
    """
    path = folder / SETTINGS_FILE
    try:
        raw: dict[str, object] = msgspec.toml.decode(path.read_bytes())
    except FileNotFoundError:
        return ModelSettings()
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as err:
        raise ModelBroken(f"{path} is not readable TOML: {err}. Correct the file.", path=str(path)) from err
    valid = ModelSettings.__struct_fields__
    unknown = sorted(set(raw) - set(valid))
    if unknown:
        raise ModelBroken(
            f"{path} has the unknown key {unknown[0]!r}. Remove it, or use one of: "
            f"{', '.join(sorted(valid))}.",
            path=str(path),
            key=unknown[0],
        )
    try:
        return msgspec.convert(raw, ModelSettings)
    except msgspec.ValidationError as err:
        raise ModelBroken(f"{path}: {err}. Correct the value.", path=str(path)) from err
