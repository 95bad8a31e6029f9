"""A million rows through a bulk job, beside a bare loop of the same engine: overhead and memory.

    python -m benchmarks.jobs --rows 1000000 --write

The model is cheap (one layer of MiniLM), so that whatever is not the engine shows. The bare loop computes a
part of the same rows, already tokens and sorted by length, over one session of one thread for each core;
reading, tokenising, transport, journal and files are in the job's time alone. Rows are sentences of film
reviews, over and over.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import onnx
import safetensors.numpy

import penstock
from benchmarks.hybrid.processes import ROOT
from benchmarks.machine import describe_machine, process_tree
from benchmarks.texts import TextKind, bulk_texts
from penstock import JobState
from penstock_server.config import LaneConfig, usable_cores
from tests.support.proc import command_of, memory_bytes, status_of
from tests.support.reference_model import build_bert, reference_model_folder
from tests.support.server import ServerProcess

_onnx: Any = onnx
_safetensors: Any = safetensors.numpy
MODELS = ROOT / "build" / "jobs-models"
MODEL = "minilm-1-layer"
RESULT = ROOT / "docs" / "benchmarks" / "jobs.json"
# More would not fit into the memory of the loop, and tell no more.
_BARE_ROWS = 60_000
# Sentences that differ; more than a window has rows, so that no row is spared for being there twice.
_TEXTS = 200_000
_POLL_S = 0.5
_MIB = 1 << 20


@click.command(context_settings={"show_default": True})
@click.option("--rows", type=click.IntRange(1_000, 100_000_000), default=1_000_000, help="Rows of the job.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--write", is_flag=True, help=f"Write {RESULT.relative_to(ROOT)}.")
def main(rows: int, is_json: bool, write: bool) -> None:
    """Measure what a bulk job costs beside its engine, and how much memory it takes."""
    _prepare_model()
    with tempfile.TemporaryDirectory(prefix="jobs-") as scratch:
        folder = Path(scratch)
        path = folder / "rows.jsonl"
        _write_rows(path, rows)
        bare_rows_s = [_bare(folder, path)]
        job = _job(folder, path)
        bare_rows_s.append(_bare(folder, path))
    bare = sum(bare_rows_s) / 2
    result = {
        "machine": describe_machine(),
        "rows": rows,
        "bare_rows_per_s": [round(each, 1) for each in bare_rows_s],
        **job,
        "job_over_bare": round(job["rows_per_s"] / bare, 4),
        "computing_over_bare": round(job["computing_rows_per_s"] / bare, 4),
    }
    text = json.dumps(result, indent=2)
    if write:
        RESULT.write_text(text + "\n", encoding="utf-8")
    click.echo(text if is_json else _table(result))


def _prepare_model() -> None:
    """Makes a model of MiniLM's embeddings and first layer."""
    target = MODELS / MODEL
    if (target / "model.onnx").is_file():
        return
    source = reference_model_folder(progress=print)
    (target / "1_Pooling").mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        shutil.copy(source / name, target / name)
    config = json.loads((source / "config.json").read_bytes())
    config["num_hidden_layers"] = 1
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (target / "penstock.toml").write_text('precision = "fp32"\n', encoding="ascii")
    _onnx.save(
        build_bert(_safetensors.load_file(source / "model.safetensors"), config), target / "model.part"
    )
    (target / "model.part").replace(target / "model.onnx")


def _write_rows(path: Path, rows: int) -> None:
    texts = list(bulk_texts(TextKind.SENTENCES, _TEXTS))
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(islice(cycle(texts), rows)):
            file.write(json.dumps({"id": number, "text": text}) + "\n")


def _bare(folder: Path, path: Path) -> float:
    """Rows a second of the bare loop over the first rows."""
    with path.open(encoding="utf-8") as file:
        texts = [[json.loads(line)["text"], ""] for line in islice(file, _BARE_ROWS)]
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.hybrid.servers.bare", str(MODELS / MODEL)]
    command += [str(folder / "texts.json"), str(usable_cores()), str(LaneConfig().bulk_batch_tokens)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    answer: dict[str, float] = json.loads(output.splitlines()[-1])
    return answer["rows"] / answer["elapsed_s"]


def _job(folder: Path, path: Path) -> dict[str, Any]:
    """Uploads the rows, runs a job over them and looks at the server meanwhile."""
    server = ServerProcess(folder / "data", "--models", str(MODELS))
    memory = _Memory(server.process.pid)
    try:
        with penstock.Client(server.address) as client:
            begin_s = time.monotonic()
            upload_id = client.bulk.upload(path)
            uploaded_s = time.monotonic()
            job = client.bulk.create(upload_id, model=MODEL, task="embed", key_column="id")
            entered_s: dict[JobState, float] = {}
            while not job.has_ended:
                entered_s.setdefault(job.state, time.monotonic())
                time.sleep(_POLL_S)
                job = client.bulk.get(job.id)
            ended_s = time.monotonic()
            if job.state is not JobState.SUCCEEDED or job.failed:
                raise click.ClickException(f"the job ended as {job}")
            read = sum(1 for _ in client.bulk.results(job.id))
            read_s = time.monotonic()
            if read != job.total:
                raise click.ClickException(f"{read:,} of {job.total:,} rows were read")
    finally:
        memory.stop()
        server.terminate()
    running_s = entered_s.get(JobState.RUNNING, uploaded_s)
    finalizing_s = entered_s.get(JobState.FINALIZING, ended_s)
    return {
        "seconds": {
            "upload": round(uploaded_s - begin_s, 2),
            "validating": round(running_s - uploaded_s, 2),
            "computing": round(finalizing_s - running_s, 2),
            "finalizing": round(ended_s - finalizing_s, 2),
            "reading": round(read_s - ended_s, 2),
        },
        "rows_per_s": round(job.total / (ended_s - begin_s), 1),
        "computing_rows_per_s": round(job.total / (finalizing_s - running_s), 1),
        "memory_mib": memory.figures(),
    }


class _Memory:
    """Looks at the memory of the server and of the processes that it starts: without mapped files."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: dict[str, list[float]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._stopped.set()
        self._thread.join()

    def figures(self) -> dict[str, dict[str, float]]:
        """For each process the peak, and the median of the second and of the last tenth of its time."""
        found: dict[str, dict[str, float]] = {}
        for name, values in self._seen.items():
            tenth = max(1, len(values) // 10)
            found[name] = {
                "peak": round(max(values), 1),
                "early": round(sorted(values[tenth : 2 * tenth] or values)[tenth // 2], 1),
                "late": round(sorted(values[-tenth:])[tenth // 2], 1),
            }
        return found

    def _watch(self) -> None:
        while not self._stopped.wait(_POLL_S):
            for pid in process_tree(self._pid):
                name = "server" if pid == self._pid else _name_of(pid)
                with suppress(OSError):
                    if name:
                        self._seen.setdefault(name, []).append(memory_bytes(status_of(pid)) / _MIB)


def _name_of(pid: int) -> str:
    command = command_of(pid)
    return "worker" if "worker_main" in command else "file process" if "file_process" in command else ""


def _table(result: dict[str, Any]) -> str:
    seconds = ", ".join(f"{name} {value:,.1f}" for name, value in result["seconds"].items())
    bare = " and ".join(f"{each:,.0f}" for each in result["bare_rows_per_s"])
    lines = [
        f"{result['rows']:,} rows; bare loop {bare} rows/s",
        f"job: {result['rows_per_s']:,.0f} rows/s in all, {result['computing_rows_per_s']:,.0f} computing",
        f"over the bare loop: {result['job_over_bare']:.3f} in all, "
        f"{result['computing_over_bare']:.3f} computing",
        f"seconds: {seconds}",
    ]
    for name, each in result["memory_mib"].items():
        lines.append(
            f"memory of the {name}, MiB: peak {each['peak']:,.0f}, early {each['early']:,.0f}, "
            f"late {each['late']:,.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
