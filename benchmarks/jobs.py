"""A million rows through a bulk job, beside a bare loop of the same engine: overhead and memory.

    python -m benchmarks.jobs --rows 1000000 --write

The model is cheap (one layer of MiniLM), so that whatever is not the engine shows. The bare loop computes
some of the rows, already tokens and sorted by length, over one session of one thread for each core; reading,
tokenising, transport, journal and files are in the job's time alone. The two take turns: the job is paused
while the loop runs, since the speed of a machine changes. Rows are sentences of film reviews, over and over.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from itertools import cycle, islice, pairwise
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
from penstock_server.config import usable_cores
from tests.support.proc import command_of, memory_bytes, status_of, thread_cpu_s
from tests.support.reference_model import build_bert, reference_model_folder
from tests.support.server import ServerProcess

_onnx: Any = onnx
_safetensors: Any = safetensors.numpy
MODELS = ROOT / "build" / "jobs-models"
MODEL = "minilm-1-layer"
RESULT = ROOT / "docs" / "benchmarks" / "jobs.json"
_BARE_ROWS = 20_000
# No other size was faster (128 to 2,048; 2026-11-27).
_BARE_BATCH_TOKENS = 512
_SEED = 7
# Sentences that differ; more than a window has rows, so that no row is spared for being there twice.
_TEXTS = 200_000
_POLL_S = 0.5
_MIB = 1 << 20


@click.command(context_settings={"show_default": True})
@click.option("--rows", type=click.IntRange(1_000, 100_000_000), default=1_000_000, help="Rows of the job.")
@click.option("--rounds", type=click.IntRange(1, 100), default=10, help="Stretches of the job.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--write", is_flag=True, help=f"Write {RESULT.relative_to(ROOT)}.")
def main(rows: int, rounds: int, is_json: bool, write: bool) -> None:
    """Measure what a bulk job costs beside its engine, and how much memory it takes."""
    _prepare_model()
    with tempfile.TemporaryDirectory(prefix="jobs-") as scratch:
        folder = Path(scratch)
        result = {"machine": describe_machine(), "rows": rows, **_measure(folder, rows, rounds)}
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


def _measure(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Uploads the rows, runs a job over them, stops it for the bare loop now and then, and reads its rows."""
    texts = list(bulk_texts(TextKind.SENTENCES, _TEXTS))
    path = folder / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(islice(cycle(texts), rows)):
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    bare_texts = folder / "texts.json"
    sample = random.Random(_SEED).sample(texts, _BARE_ROWS)
    bare_texts.write_text(json.dumps([[text, ""] for text in sample]), encoding="utf-8")
    server = ServerProcess(folder / "data", "--models", str(MODELS))
    memory = _Memory(server.process.pid)
    try:
        with penstock.Client(server.address) as client:
            run = _Run(client, path, rows, server.process.pid)
            bare = [_bare(bare_texts)]
            computing: list[float] = []
            for number in range(1, rounds + 1):
                computing.append(run.compute(rows * number // rounds if number < rounds else None))
                bare.append(_bare(bare_texts))
            run.end()
    finally:
        memory.stop()
        server.terminate()
    around = [(before + after) / 2 for before, after in pairwise(bare)]
    ratios = [job / beside for job, beside in zip(computing, around, strict=True)]
    computing_over_bare = statistics.median(ratios)
    # As long as the bare loop takes for all rows, in the median.
    bare_s = rows / statistics.median(bare)
    fixed_s = sum(value for name, value in run.seconds.items() if name != "reading")
    # Threads beside the event loop tokenise windows, write parts and the journal.
    files_s = fixed_s + run.cpu_s["threads"] / usable_cores()
    return {
        "bare_rows_per_s": [round(each, 1) for each in bare],
        "computing_rows_per_s": [round(each, 1) for each in computing],
        "computing_over_bare": round(computing_over_bare, 4),
        "job_over_bare": round(bare_s / (bare_s / computing_over_bare + fixed_s), 4),
        "journal_and_formats_over_bare": round(files_s / bare_s, 4),
        "seconds": {name: round(value, 2) for name, value in run.seconds.items()},
        "cores": {name: round(value / run.computing_s, 3) for name, value in run.cpu_s.items()},
        "memory_mib": memory.figures(),
    }


def _bare(texts: Path) -> float:
    """Rows a second of the bare loop."""
    command = [sys.executable, "-m", "benchmarks.hybrid.servers.bare", str(MODELS / MODEL), str(texts)]
    command += [str(usable_cores()), str(_BARE_BATCH_TOKENS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    answer: dict[str, float] = json.loads(output.splitlines()[-1])
    return answer["rows"] / answer["elapsed_s"]


class _Run:
    """The job: uploaded and validated when made, and paused but within `compute`.

    Attributes:
        seconds: What each of its times took but for computing.
        computing_s: Time in which it computed.
        cpu_s: CPU time within that, of the server's event loop, its other threads, and the worker.
    """

    def __init__(self, client: penstock.Client, path: Path, rows: int, pid: int) -> None:
        self._bulk = client.bulk
        self._rows = rows
        self._pid = pid
        self.computing_s = 0.0
        self.cpu_s = {"event_loop": 0.0, "threads": 0.0, "worker": 0.0}
        begin_s = time.monotonic()
        upload_id = self._bulk.upload(path)
        uploaded_s = time.monotonic()
        self._job = self._bulk.create(upload_id, model=MODEL, task="embed", key_column="id")
        self._wait(JobState.RUNNING)
        validated_s = time.monotonic()
        self._bulk.pause(self._job.id)
        self._wait(JobState.PAUSED)
        self.seconds = {"upload": uploaded_s - begin_s, "validating": validated_s - uploaded_s}

    def compute(self, until: int | None) -> float:
        """Computes until so many rows are done, all if None; returns rows a second."""
        done = self._job.succeeded
        self._bulk.resume(self._job.id)
        while self._job.succeeded == done:
            self._look()
        first, first_s, first_cpu = self._job.succeeded, time.monotonic(), self._cpu_s()
        while self._job.state is not JobState.FINALIZING and not self._job.has_ended:
            if until is not None and self._job.succeeded >= until:
                break
            self._look()
        took_s = time.monotonic() - first_s
        rows_per_s = (self._job.succeeded - first) / took_s
        self.computing_s += took_s
        for name, value in self._cpu_s().items():
            self.cpu_s[name] += value - first_cpu[name]
        if until is None:
            begin_s = time.monotonic()
            while not self._job.has_ended:
                self._look()
            self.seconds["finalizing"] = time.monotonic() - begin_s
        else:
            self._bulk.pause(self._job.id)
            self._wait(JobState.PAUSED)
        return rows_per_s

    def end(self) -> None:
        """Reads the results of the job, each row of which must be there."""
        if self._job.state is not JobState.SUCCEEDED or self._job.failed:
            raise click.ClickException(f"the job ended as {self._job}")
        begin_s = time.monotonic()
        read = sum(1 for _ in self._bulk.results(self._job.id))
        if read != self._rows:
            raise click.ClickException(f"{read:,} of {self._rows:,} rows were read")
        self.seconds["reading"] = time.monotonic() - begin_s

    def _cpu_s(self) -> dict[str, float]:
        threads = thread_cpu_s(self._pid)
        event_loop = threads.pop(self._pid)
        workers = [pid for pid in process_tree(self._pid) if _name_of(pid) == "worker"]
        worker = sum(sum(thread_cpu_s(pid).values()) for pid in workers)
        return {"event_loop": event_loop, "threads": sum(threads.values()), "worker": worker}

    def _wait(self, state: JobState) -> None:
        while self._job.state is not state:
            if self._job.has_ended:
                raise click.ClickException(f"the job ended as {self._job}")
            self._look()

    def _look(self) -> None:
        time.sleep(_POLL_S)
        self._job = self._bulk.get(self._job.id)


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
    cores = ", ".join(f"{name} {value:.3f}" for name, value in result["cores"].items())
    bare, job = (statistics.median(result[f"{name}_rows_per_s"]) for name in ("bare", "computing"))
    ratios = f"{result['computing_over_bare']:.3f} computing, {result['job_over_bare']:.3f} in all"
    lines = [
        f"{result['rows']:,} rows; bare loop {bare:,.0f} rows/s, job {job:,.0f} while it computes (medians)",
        f"job over bare loop: {ratios}",
        f"journal and formats over bare loop: {result['journal_and_formats_over_bare']:.3f}",
        f"seconds beside computing: {seconds}",
        f"cores while computing: {cores}",
    ]
    for name, each in result["memory_mib"].items():
        lines.append(
            f"memory of the {name}, MiB: peak {each['peak']:,.0f}, early {each['early']:,.0f}, "
            f"late {each['late']:,.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
