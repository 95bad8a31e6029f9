"""Fetching from the Hugging Face hub. The hub itself is out of reach of tests; its client is replaced."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from penstock_server.domain.errors import ModelBroken
from penstock_server.models import hub
from penstock_server.models.hub import find_graph, pull_from_hub, wanted_patterns
from penstock_server.models.pull import PullFailed
from tests.support.reference_model_tiny import write_model


class LocalHub:
    """huggingface_hub's two calls, over a local folder as the repository ``org/tiny``."""

    def __init__(self, repository: Path, scratch: Path) -> None:
        self._repository = repository
        self._scratch = scratch

    def HfApi(self) -> LocalHub:
        return self

    def list_repo_files(self, name: str, revision: str | None) -> list[str]:
        if name != "org/tiny":
            raise RuntimeError("404 Client Error.\nRepository Not Found")
        files = [path for path in self._repository.rglob("*") if path.is_file()]
        return [str(path.relative_to(self._repository)) for path in files]

    def snapshot_download(self, name: str, revision: str | None, allow_patterns: list[str]) -> str:
        for pattern in allow_patterns:
            for path in self._repository.glob(pattern):
                target = self._scratch / path.relative_to(self._repository)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
        return str(self._scratch)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    client = LocalHub(folder, tmp_path / "snapshot")
    monkeypatch.setattr(hub, "_import_hub", lambda: client)
    return folder


def ignore(line: str) -> None:
    """Takes a line of progress."""


def test_model_comes_with_what_it_needs_and_nothing_else(tmp_path: Path, repository: Path) -> None:
    write_model(
        repository,
        graph="onnx/model.onnx",
        files={
            "config.json": {"architectures": ["BertModel"]},
            "1_Pooling/config.json": {"pooling_mode_cls_token": True},
            "pytorch_model.bin": {},
        },
    )
    folder = pull_from_hub("org/tiny", tmp_path / "models", None, ignore)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"onnx/model.onnx", "config.json", "1_Pooling/config.json", "tokenizer.json"}
    with pytest.raises(PullFailed, match="exists already"):
        pull_from_hub("org/tiny", tmp_path / "models", None, ignore)


def test_model_that_cannot_be_served_leaves_nothing_behind(tmp_path: Path, repository: Path) -> None:
    write_model(repository, graph="onnx/model.onnx")
    with pytest.raises(ModelBroken, match="Set task"):
        pull_from_hub("org/tiny", tmp_path / "models", None, ignore)
    assert list((tmp_path / "models").iterdir()) == []


def test_unknown_repository_is_an_error_without_a_trace(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(PullFailed, match=r"\(404 Client Error\)\. Check the name"):
        pull_from_hub("org/none", tmp_path, None, ignore)


def test_repository_without_a_graph_says_how_to_export_one() -> None:
    with pytest.raises(PullFailed, match="optimum-cli export onnx --model org/x"):
        find_graph("org/x", ["config.json", "model.safetensors"])


def test_repository_with_other_graphs_lists_them() -> None:
    with pytest.raises(PullFailed, match=r"but onnx/model_O4\.onnx"):
        find_graph("org/x", ["onnx/model_O4.onnx"])


def test_weights_beside_the_graph_are_wanted() -> None:
    assert find_graph("x", ["model.onnx", "onnx/model.onnx"]) == "onnx/model.onnx"
    assert {"onnx/model.onnx", "onnx/model.onnx_data"} <= set(wanted_patterns("onnx/model.onnx"))


def test_missing_library_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PullFailed, match=r"pip install 'penstock-server\[hub\]'"):
        pull_from_hub("org/tiny", tmp_path, None, ignore)
