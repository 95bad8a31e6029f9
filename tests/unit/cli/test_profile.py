from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock_server.cli import cli
from penstock_server.config import usable_cores
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.models.repository import ModelRepository
from penstock_server.runtime.cost_store import CostStore, cost_key
from penstock_server.runtime.data_folder import lock_folder
from penstock_server.scheduling.cost import CostTable
from tests.support.reference_model_tiny import write_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_model(tmp_path / "models" / "tiny", settings='task = "embed"\ntokens_max = 64')
    return tmp_path / "models"


def run(models: Path, *arguments: str) -> Result:
    # Thirty rounds of a table lookup take no second, however busy the machine.
    fixed = ["profile", "tiny", "--models", str(models), "--seconds", "20", "--rows", "1,4,8"]
    return CliRunner().invoke(cli, [*fixed, "--lengths", "8,32,128", *arguments])


def points(result: Result, lane: int = 0) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["lanes"][lane]["points"]
    return found


def test_table_tells_latency_and_throughput_and_marks_the_best(models: Path) -> None:
    result = run(models)
    assert result.exit_code == 0, result.output
    assert f"live lane, {usable_cores()} thread" in result.stdout
    assert "bulk lane, 1 thread" in result.stdout
    assert result.stdout.count("tokens a second") == 2
    # The model takes 64 tokens, so nothing was run with 128.
    assert "32 tokens" in result.stdout
    assert "128 tokens" not in result.stdout
    assert result.stdout.count("●") >= 4


def test_json_has_every_shape_and_one_best_of_each_length(models: Path) -> None:
    result = run(models, "--json", "--lane", "live", "--threads", "1")
    found = points(result)
    assert {(point["rows"], point["length"]) for point in found} == {
        (rows, length) for rows in (1, 4, 8) for length in (8, 32)
    }
    for length in (8, 32):
        of_length = [point for point in found if point["length"] == length]
        assert sum(point["best"] for point in of_length) == 1
        assert of_length[0]["efficient"]
    assert all(point["median_ms"] > 0 and point["worst_ms"] >= point["median_ms"] for point in found)


def test_largest_batch_is_bounded(models: Path) -> None:
    found = points(run(models, "--json", "--lane", "bulk", "--batch-tokens", "32"))
    assert {(point["rows"], point["length"]) for point in found} == {(1, 8), (4, 8), (1, 32)}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_picture_is_drawn(models: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"costs.{suffix}"
    assert run(models, "--plot", str(path)).exit_code == 0
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])


def test_suffix_that_cannot_be_drawn_is_refused_before_measuring(models: Path, tmp_path: Path) -> None:
    result = run(models, "--plot", str(tmp_path / "costs.doc"))
    assert result.exit_code == 2
    assert ".png, .svg or .pdf" in result.output
    assert "measuring" not in result.output


def test_without_matplotlib_it_says_what_to_install(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run(models, "--plot", "costs.png")
    assert result.exit_code == 2
    assert "penstock-server[plot]" in result.output


def test_saved_costs_are_what_the_server_starts_with(models: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    result = run(models, "--json", "--save", "--data", str(data), "--threads", "1")
    manifest = ModelRepository(models).manifest(ModelKey("tiny", "1"))
    for index, lane in enumerate(LaneKind):
        state = CostStore(data / "costs").load(cost_key(manifest, lane, 1))
        assert state is not None
        table = CostTable(lane, manifest.tokens_max)
        assert table.restore(state)
        measured = next(
            point for point in points(result, index) if (point["rows"], point["length"]) == (8, 32)
        )
        # Neighbours that noise has put in the wrong order meet between.
        assert table.predict(8, 32).median_ns == pytest.approx(measured["median_ms"] * 1e6, rel=0.3)


def test_costs_are_not_saved_under_a_running_server(models: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "data"):
        result = run(models, "--save", "--data", str(tmp_path / "data"))
    assert result.exit_code == 1
    assert "is used by another server" in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rows", "1,x"), "not a list of counts"),
        (("--rows", ""), "not a list of counts"),
        (("--rows", "0"), "a count below 1"),
        (("--lengths", "65"), "takes at most 64 tokens"),
        (("--seconds", "0"), "--seconds"),
    ],
)
def test_wrong_options_are_explained(models: Path, arguments: tuple[str, ...], says: str) -> None:
    result = run(models, *arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_model_that_is_not_there_is_named_with_those_that_are(models: Path) -> None:
    result = CliRunner().invoke(cli, ["profile", "nope", "--models", str(models)])
    assert result.exit_code == 1
    assert "tiny@1" in result.output
    assert run(models).exit_code == 0
    of_version = CliRunner().invoke(cli, ["profile", "tiny@7", "--models", str(models)])
    assert "tiny@7" in of_version.output
