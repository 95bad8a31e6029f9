"""The models folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_server.domain.errors import ModelBroken, UnknownModel
from penstock_server.domain.model import ModelKey
from penstock_server.models.repository import ModelRepository
from tests.support.reference_model_tiny import write_model

EMBED = 'task = "embed"'


def test_no_folder_means_no_models(tmp_path: Path) -> None:
    assert ModelRepository(tmp_path / "none").keys() == []


def test_flat_models_have_version_1_and_others_are_sorted_newest_first(tmp_path: Path) -> None:
    write_model(tmp_path / "flat", settings=EMBED)
    for version in ("2", "10", "9", "v1", "03"):
        write_model(tmp_path / "many" / version, settings=EMBED)
    repository = ModelRepository(tmp_path)
    assert repository.keys() == [("flat", "1"), ("many", "10"), ("many", "9"), ("many", "2")]
    assert repository.newest("many") == ModelKey("many", "10")
    assert repository.manifest(ModelKey("many", "9")).folder == tmp_path / "many" / "9"
    assert repository.manifest(ModelKey("flat", "1")).key == ModelKey("flat", "1")


def test_hidden_and_foreign_folders_are_no_models(tmp_path: Path) -> None:
    write_model(tmp_path / ".downloads", settings=EMBED)
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").touch()
    assert ModelRepository(tmp_path).keys() == []


def test_broken_model_is_listed_and_its_manifest_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    repository = ModelRepository(tmp_path)
    assert repository.keys() == [ModelKey("half", "1")]
    with pytest.raises(ModelBroken, match="has no ONNX file"):
        repository.manifest(ModelKey("half", "1"))


def test_unknown_names_and_versions_list_what_there_is(tmp_path: Path) -> None:
    write_model(tmp_path / "known", settings=EMBED)
    repository = ModelRepository(tmp_path)
    with pytest.raises(UnknownModel, match="known@1"):
        repository.manifest(ModelKey("known", "2"))
    with pytest.raises(UnknownModel, match="There is no model other"):
        repository.newest("other")
    with pytest.raises(UnknownModel):
        repository.manifest(ModelKey("..", "1"))


def test_model_beside_its_own_versions_is_an_error(tmp_path: Path) -> None:
    write_model(tmp_path / "mixed", settings=EMBED)
    write_model(tmp_path / "mixed" / "2", settings=EMBED)
    repository = ModelRepository(tmp_path)
    with pytest.raises(ModelBroken, match="Move the model's files"):
        repository.manifest(repository.newest("mixed"))
