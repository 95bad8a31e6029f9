"""``penstock bulk submit --engine ray``, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock_server.domain.job import FileFormat, InputColumns, JobProgress
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import Task, TaskOptions, Truncation
from penstock_server.ray import library
from penstock_server.ray.job import RayJobResult
from penstock_server.ray.model import ModelOrder
from penstock_server.ray.plan import RayJob
from tests.unit.cli.conftest import Penstock, json_of
from tests.unit.client.scripted import Script

RESULT = RayJobResult(
    output_url="s3://bucket/out",
    model=ModelKey("minilm", "1"),
    task=Task.EMBED,
    progress=JobProgress(total=5000, succeeded=4990, failed=10, rows_per_s=250.4),
    parts=2,
    parts_computed=1,
    seconds=190.0,
)


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "rows.csv").write_text("id,review\n1,fine\n")
    return str(tmp_path / "rows.csv")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RayJob, dict[str, Any]]]:
    """What the command has run; nothing runs."""
    found: list[tuple[RayJob, dict[str, Any]]] = []

    def run(job: RayJob, **options: Any) -> RayJobResult:
        options.pop("on_progress")(RESULT.progress)
        found.append((job, options))
        return RESULT

    monkeypatch.setattr("penstock_server.ray.job.run_ray_job", run)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return found


def submit(penstock: Penstock, source: str, *options: str) -> Any:
    return penstock("bulk", "submit", source, "--engine", "ray", "--model", "minilm", *options)


def test_options_make_the_job(
    penstock: Penstock, script: Script, calls: list[tuple[RayJob, dict[str, Any]]], source: str
) -> None:
    result = submit(
        penstock,
        source,
        "--output=s3://bucket/out",
        "--models=/models",
        "--task=embed",
        "--text-column=review",
        "--key-column=id",
        "--carry=id",
        "--format=csv",
        "--truncation=error",
        "--tokens-max=64",
        "--workers=8",
        "--address=head:6379",
    )
    assert result.exit_code == 0, result.stderr
    job = RayJob(
        input_url=source,
        output_url="s3://bucket/out",
        model=ModelOrder(
            models="/models",
            model="minilm",
            task=TaskOptions(Task.EMBED),
            truncation=Truncation.ERROR,
            tokens_max=64,
        ),
        columns=InputColumns(text="review", key="id", carried=("id",)),
        input_format=FileFormat.CSV,
    )
    assert calls == [(job, {"address": "head:6379", "workers": 8})]
    # No server was asked for anything, though PENSTOCK_ADDRESS names one.
    assert script.requests == []
    header, row, told = result.stdout.splitlines()
    assert header.split() == ["model", "task", "total", "succeeded", "failed", "rows/s"]
    assert row.split() == ["minilm@1", "embed", "5,000", "4,990", "10", "250"]
    assert told == "computed 1 of 2 parts in 3 min 10 s; the rows are in s3://bucket/out"


def test_paths_are_made_absolute_and_the_rest_left_to_the_model(
    penstock: Penstock,
    calls: list[tuple[RayJob, dict[str, Any]]],
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(source).parent)
    monkeypatch.setenv("RAY_ADDRESS", "cluster:6379")
    assert submit(penstock, "rows.csv", "--output-url", "out").exit_code == 0
    ((job, options),) = calls
    folder = Path(source).parent
    assert (job.input_url, job.output_url) == (source, str(folder / "out"))
    assert job.model == ModelOrder(models=str(folder / "models"), model="minilm")
    assert options == {"address": "cluster:6379", "workers": None}


def test_json_is_one_document(
    penstock: Penstock, calls: list[tuple[RayJob, dict[str, Any]]], source: str
) -> None:
    document = json_of(submit(penstock, source, "--output", "/out", "--json"))
    assert (document["total"], document["succeeded"] + document["failed"], document["pending"]) == (
        5000,
        5000,
        0,
    )
    assert (document["parts"], document["parts_computed"], document["model"]) == (2, 1, "minilm")
    assert calls[0][1]["address"] is None


@pytest.mark.parametrize(
    "option",
    [
        "--name=night", "--weight=3", "--expire-in=1h", "--not-before=2027-01-01T00:00",
        "--window=0 22 * * * 8h", "--failed-rows-max=1", "--timeout=3", "--tls", "--token=t",
    ],
)  # fmt: skip
def test_what_only_a_server_does_is_refused(
    penstock: Penstock, calls: list[tuple[RayJob, dict[str, Any]]], source: str, option: str
) -> None:
    result = submit(penstock, source, "--output", "/out", option)
    assert result.exit_code == 2
    assert f"{option.partition('=')[0]} goes with --engine server" in result.stderr
    assert calls == []


@pytest.mark.parametrize("option", ["--models=/models", "--workers=3"])
def test_what_only_ray_does_is_refused_for_a_server(penstock: Penstock, source: str, option: str) -> None:
    result = penstock("bulk", "submit", source, "--model", "m", option)
    assert result.exit_code == 2
    assert f"{option.partition('=')[0]} goes with --engine ray" in result.stderr


def test_a_folder_for_the_results_is_needed(penstock: Penstock, source: str) -> None:
    result = submit(penstock, source)
    assert result.exit_code == 2
    assert "--engine ray needs --output" in result.stderr


def test_an_interrupted_job_says_how_to_go_on(
    penstock: Penstock, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock_server.ray.job.run_ray_job", interrupted)
    result = submit(penstock, source, "--output", "/out")
    assert result.exit_code == 130
    assert "the same command goes on from there" in result.stderr


def test_without_ray_the_line_says_what_to_install(
    penstock: Penstock, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(library, "import_module", missing)
    result = submit(penstock, source, "--output", "/out")
    assert result.exit_code == 1
    assert result.stderr == (
        "penstock: This needs Ray, which is not installed (No module named 'ray'); "
        "run: pip install 'penstock-server[ray]'\n"
    )
