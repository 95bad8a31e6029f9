"""Reads the files that Hugging Face and sentence-transformers exports carry beside the graph.

Only what Penstock needs is decoded; unknown keys are somebody else's business and are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from penstock_server.domain.decoding import decode_json
from penstock_server.domain.errors import ModelBroken
from penstock_server.domain.model import Pooling

# Tokenizers without a limit write 10^30 as model_max_length; no encoder we know reads more than a million.
_TOKENS_BELIEVABLE = 1_000_000
# RoBERTa and its kin start counting positions after the padding id, so two of them never hold a token.
_OFFSET_POSITION_MODELS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"})
_PAD_TOKENS = ("[PAD]", "<pad>")

_Decoded = TypeVar("_Decoded", bound=msgspec.Struct)


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of ``config.json``."""

    architectures: list[str] | None = None
    model_type: str | None = None
    hidden_size: int | None = None
    max_position_embeddings: int | None = None
    pad_token_id: int | None = None
    id2label: dict[str, str] | None = None
    problem_type: str | None = None


class _TokenizerConfig(msgspec.Struct, frozen=True):
    model_max_length: int | float | None = None


class _SentenceBertConfig(msgspec.Struct, frozen=True):
    max_seq_length: int | None = None


class _Module(msgspec.Struct, frozen=True):
    type: str
    path: str = ""


class _PoolingConfig(msgspec.Struct, frozen=True):
    pooling_mode: str | list[str] | None = None
    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False


class _AddedToken(msgspec.Struct, frozen=True):
    id: int
    content: str


class _Padding(msgspec.Struct, frozen=True):
    pad_id: int = 0


class _TokenizerFile(msgspec.Struct, frozen=True):
    padding: _Padding | None = None
    added_tokens: list[_AddedToken] = []


@dataclass(frozen=True, slots=True)
class SentenceModules:
    """What ``modules.json`` and the pooling folder say.

    Attributes:
        present: Whether the folder is a sentence-transformers model.
        pooling: How token vectors become one; None if it is not said.
        normalize: Whether vectors are scaled to unit length.
        others: Module types that change the vectors and that Penstock does not compute, such as ``Dense``.
    """

    present: bool
    pooling: Pooling | None
    normalize: bool
    others: tuple[str, ...]


def read_config(folder: Path) -> ModelConfig:
    """Reads ``config.json``; a folder without one gets an empty one."""
    return _read(folder / "config.json", ModelConfig) or ModelConfig()


def read_modules(folder: Path) -> SentenceModules:
    """Reads ``modules.json`` and the configuration of the pooling module it names."""
    path = folder / "modules.json"
    try:
        modules = decode_json(path.read_bytes(), list[_Module])
    except FileNotFoundError:
        pooling_only = _read_pooling(folder / "1_Pooling" / "config.json")
        return SentenceModules(present=False, pooling=pooling_only, normalize=False, others=())
    except (OSError, msgspec.DecodeError) as err:
        raise _unreadable(path, err) from err
    pooling: Pooling | None = None
    normalize = False
    others: list[str] = []
    for module in modules:
        kind = module.type.rpartition(".")[2]
        if kind == "Pooling":
            pooling = _read_pooling(folder / module.path / "config.json")
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            others.append(kind)
    return SentenceModules(present=True, pooling=pooling, normalize=normalize, others=tuple(others))


def read_tokens_max(folder: Path, config: ModelConfig) -> int | None:
    """Finds the longest row in tokens: sentence-transformers', then the tokenizer's, then the positions'."""
    sentence = _read(folder / "sentence_bert_config.json", _SentenceBertConfig)
    if sentence is not None and sentence.max_seq_length is not None:
        return sentence.max_seq_length
    positions = positions_max(config)
    tokenizer = _read(folder / "tokenizer_config.json", _TokenizerConfig)
    limit = tokenizer.model_max_length if tokenizer is not None else None
    if limit is not None and 0 < limit <= _TOKENS_BELIEVABLE:
        return min(int(limit), positions) if positions is not None else int(limit)
    return positions


def positions_max(config: ModelConfig) -> int | None:
    """Tokens for which the model has positions; None if ``config.json`` does not say."""
    if config.max_position_embeddings is None or config.max_position_embeddings <= 0:
        return None
    offset = 2 if config.model_type in _OFFSET_POSITION_MODELS else 0
    return config.max_position_embeddings - offset


def read_pad_id(tokenizer_path: Path, config: ModelConfig) -> int:
    """Finds the id that fills up short rows; 0 where nothing says (the attention mask hides it anyway)."""
    if config.pad_token_id is not None:
        return config.pad_token_id
    tokenizer = _read(tokenizer_path, _TokenizerFile)
    if tokenizer is None:
        return 0
    if tokenizer.padding is not None:
        return tokenizer.padding.pad_id
    return next((token.id for token in tokenizer.added_tokens if token.content in _PAD_TOKENS), 0)


def _read_pooling(path: Path) -> Pooling | None:
    config = _read(path, _PoolingConfig)
    if config is None:
        return None
    modes = _pooling_modes(config)
    known = {"mean": Pooling.MEAN, "cls": Pooling.CLS}
    if len(modes) == 1 and modes[0] in known:
        return known[modes[0]]
    raise ModelBroken(
        f"{path} asks for pooling {' + '.join(modes) or 'of no kind'}, which Penstock does not compute (it "
        "does mean and cls). Export the model with its pooling inside the graph, or set pooling in "
        "penstock.toml.",
        path=str(path),
    )


def _pooling_modes(config: _PoolingConfig) -> list[str]:
    if config.pooling_mode is not None:
        return [config.pooling_mode] if isinstance(config.pooling_mode, str) else config.pooling_mode
    flags = {
        "cls": config.pooling_mode_cls_token,
        "mean": config.pooling_mode_mean_tokens,
        "max": config.pooling_mode_max_tokens,
        "mean_sqrt_len": config.pooling_mode_mean_sqrt_len_tokens,
        "weightedmean": config.pooling_mode_weightedmean_tokens,
        "lasttoken": config.pooling_mode_lasttoken,
    }
    return [name for name, wanted in flags.items() if wanted]


def _read(path: Path, kind: type[_Decoded]) -> _Decoded | None:
    try:
        return decode_json(path.read_bytes(), kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as err:
        raise _unreadable(path, err) from err


def _unreadable(path: Path, err: Exception) -> ModelBroken:
    return ModelBroken(f"{path} cannot be read: {err}. Fetch or export the model again.", path=str(path))
