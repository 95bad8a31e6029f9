"""The models folder: which models and versions there are, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path

from penstock_server.domain.errors import ModelBroken, UnknownModel
from penstock_server.domain.model import ModelKey, ModelManifest
from penstock_server.models.derive import derive_manifest
from penstock_server.models.settings import SETTINGS_FILE

FLAT_VERSION = "1"
# Any of these makes a folder a model, even a broken one that deserves an error rather than silence.
_MARKERS = ("model.onnx", "onnx/model.onnx", SETTINGS_FILE, "config.json", "tokenizer.json")


class ModelRepository:
    """Reads a folder of models; every call looks at the disk, nothing is cached.

    A model is ``ROOT/NAME`` itself (version "1") or has numbered versions ``ROOT/NAME/2``. Hidden folders are
    skipped.

    Args:
        root: The models folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def keys(self) -> list[ModelKey]:
        """Lists all versions, broken ones too, by name and newest first; none if there is no folder."""
        if not self._root.is_dir():
            return []
        folders = sorted(
            path for path in self._root.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
        return [key for folder in folders for key in _folder_keys(folder)]

    def newest(self, name: str) -> ModelKey:
        """Finds the highest version of a model.

        Raises:
            UnknownModel: There is no such model.
        """
        keys = [key for key in self.keys() if key.name == name]
        if not keys:
            raise self._unknown(name)
        return keys[0]

    def manifest(self, key: ModelKey) -> ModelManifest:
        """Reads what a model version says of itself.

        Raises:
            UnknownModel: There is no such version.
            ModelBroken: Its folder cannot be served; the message says what to do.
        """
        if key not in self.keys():
            raise self._unknown(str(key))
        folder = self._root / key.name
        versions = _version_folders(folder)
        if versions and _is_model(folder):
            raise ModelBroken(
                f"{folder} holds both a model and numbered versions of it. Move the model's files into a "
                "version folder of their own.",
                path=str(folder),
            )
        return derive_manifest(key, folder / key.version if versions else folder)

    def _unknown(self, name: str) -> UnknownModel:
        names = ", ".join(str(key) for key in self.keys()) or "none"
        return UnknownModel(f"There is no model {name} in {self._root}; there are: {names}.", model=name)


def _folder_keys(folder: Path) -> list[ModelKey]:
    versions = _version_folders(folder)
    if versions:
        return [ModelKey(folder.name, version) for version in versions]
    return [ModelKey(folder.name, FLAT_VERSION)] if _is_model(folder) else []


def _version_folders(folder: Path) -> list[str]:
    """Version numbers below a folder, newest first; a name such as "01" is no version, so none is twice."""
    names = [path.name for path in folder.iterdir() if path.is_dir() and _is_model(path)]
    numbers = [name for name in names if name.isascii() and name.isdecimal() and str(int(name)) == name]
    return sorted(numbers, key=int, reverse=True)


def _is_model(folder: Path) -> bool:
    return any((folder / marker).is_file() for marker in _MARKERS) or any(folder.glob("*.onnx"))
