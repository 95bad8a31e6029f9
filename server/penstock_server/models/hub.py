"""Fetches models from the Hugging Face hub; needs the extra ``hub`` and a connection to it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from penstock_server.domain.errors import ModelBroken
from penstock_server.domain.model import ModelKey
from penstock_server.models.derive import derive_manifest
from penstock_server.models.pull import Progress, PullFailed
from penstock_server.models.repository import FLAT_VERSION

_SIDE_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "penstock.toml",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
_POOLING_PATTERN = "*_Pooling/config.json"
_GRAPHS = ("onnx/model.onnx", "model.onnx")


def pull_from_hub(name: str, root: Path, revision: str | None, progress: Progress) -> Path:
    """Fetches a model's ONNX graph, tokenizer and configuration from the Hugging Face hub.

    Only ``onnx/model.onnx`` (or ``model.onnx``) is taken of a repository's graphs, with its external weights.
    The model appears whole and only if Penstock can serve it. huggingface_hub keeps what it has fetched in
    its own cache, so an interrupted call goes on where it stopped.

    Args:
        name: Repository, such as ``sentence-transformers/all-MiniLM-L6-v2``; the model gets its last part.
        root: The models folder.
        revision: Branch, tag or commit; None for the default branch.
        progress: Takes one line of text a step.

    Returns:
        The model's folder.

    Raises:
        PullFailed: huggingface_hub is missing, the hub cannot be reached, the repository is not there or has
            no ONNX graph, or there is a model of this name already.
        ModelBroken: What was fetched cannot be served; nothing is left behind.
    """
    hub = _import_hub()
    folder = root / name.rpartition("/")[2]
    if folder.exists():
        raise PullFailed(f"{folder} exists already. Remove or rename it to fetch {name} again.")
    try:
        files = hub.HfApi().list_repo_files(name, revision=revision)
    except Exception as err:  # httpx errors and the hub's own share no base class but this
        raise _unreachable(name, err) from err
    graph = find_graph(name, files)
    progress(f"{name}: fetching {graph}")
    try:
        snapshot = Path(hub.snapshot_download(name, revision=revision, allow_patterns=wanted_patterns(graph)))
    except Exception as err:  # as above
        raise _unreachable(name, err) from err
    _place(snapshot, folder)
    progress(f"{name}: written to {folder}")
    return folder


def find_graph(name: str, files: Iterable[str]) -> str:
    """Chooses the graph among a repository's files.

    Raises:
        PullFailed: There is none; the message says how to export one.
    """
    present = set(files)
    for graph in _GRAPHS:
        if graph in present:
            return graph
    others = sorted(file for file in present if file.endswith(".onnx"))
    if others:
        raise PullFailed(
            f"{name} has no {_GRAPHS[0]}, but {', '.join(others)}. Fetch the one you want yourself and name "
            "it in penstock.toml (onnx = ...)."
        )
    raise PullFailed(
        f"{name} has no ONNX graph. Export one with `optimum-cli export onnx --model {name} models/NAME`."
    )


def wanted_patterns(graph: str) -> list[str]:
    """Patterns of the files to fetch: the graph, weights beside it, and what describes the model."""
    return [*_SIDE_FILES, _POOLING_PATTERN, graph, f"{graph}_data", f"{graph}.data"]


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as err:
        raise PullFailed(
            "Fetching from the Hugging Face hub needs huggingface_hub. Install it with "
            "`pip install 'penstock-server[hub]'`, or fetch the demo models with `penstock models pull demo`."
        ) from err
    return huggingface_hub


def _unreachable(name: str, err: Exception) -> PullFailed:
    first_line = next(iter(str(err).splitlines()), type(err).__name__).rstrip(".")
    return PullFailed(
        f"{name} cannot be fetched from the Hugging Face hub ({first_line}). Check the name, the revision "
        "and the connection; private models need a login (`hf auth login`)."
    )


def _place(snapshot: Path, folder: Path) -> None:
    """Copies a snapshot (links into the hub's cache) to a model's folder, if Penstock can serve it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pull-") as scratch:
            staging = Path(scratch) / folder.name
            shutil.copytree(snapshot, staging)
            derive_manifest(ModelKey(folder.name, FLAT_VERSION), staging)
            os.rename(staging, folder)
    except ModelBroken:
        raise
    except OSError as err:
        raise PullFailed(f"Cannot write {folder}: {err}. Free some room, or choose another folder.") from err
