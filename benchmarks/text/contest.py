"""Runs a work: every contender in a process of its own on one core, taking turns, one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.text.adapters import Ids
from benchmarks.text.environment import PYTHON, ROOT
from benchmarks.text.works import FOREIGN, REFERENCE, Work

# All of them keep to one thread: what is compared is the work of a core.
_ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
_STOP_TIMEOUT_S = 30.0
OWN, TENSORS = "own", "tensors"


class ContenderFailed(Exception):
    """A contender cannot do a work; the text is the library's own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often to measure.

    Attributes:
        processes: How often all contenders are started anew; each start gives one cold sample.
        rounds: Warm samples of each kind in each process.
        divisor: Part of the texts to take.
        core: The core to run on.
    """

    processes: int
    rounds: int
    divisor: int
    core: int


@dataclass(slots=True)
class Score:
    """What was measured of one contender in one work: processor seconds of a pass, over all processes.

    ``differing`` counts the texts whose ids are not the reference's, ``differing_inside`` those that differ
    with all special tokens taken out of both.
    """

    contender: str
    version: str = ""
    cold_s: list[float] = field(default_factory=list[float])
    own_s: list[float] = field(default_factory=list[float])
    tensors_s: list[float] = field(default_factory=list[float])
    load_s: list[float] = field(default_factory=list[float])
    differing: int | None = None
    differing_inside: int | None = None
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The scores of a work, with the size of its texts."""

    work: Work
    texts: int
    bytes: int
    scores: tuple[Score, ...]


class Contender:
    """The running process of a contender."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Sends a command and waits for the answer.

        Raises:
            ContenderFailed: The library threw something, or took the process down with it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ContenderFailed(f"its process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderFailed(" ".join(answer["error"].split()))
        return answer


@contextmanager
def started(name: str, core: int) -> Generator[Contender]:
    """Starts a contender's process in the environment that has its library, and stops it afterwards."""
    python = str(PYTHON) if name in FOREIGN else sys.executable
    with subprocess.Popen(
        [python, "-m", "benchmarks.text.worker", str(core)],
        cwd=ROOT,
        env=os.environ | _ONE_THREAD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield Contender(process)
        finally:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def run(work: Work, tokenizer: Path, plan: Plan, missing: Mapping[str, str]) -> Outcome:
    """Measures all contenders of a work and compares their ids with the reference's.

    Args:
        work: What to do.
        tokenizer: Its tokenizer.json.
        plan: How often.
        missing: Packages that are not installed, and why.
    """
    scores = {name: Score(name, absent=missing.get(FOREIGN.get(name, ""))) for name in work.contenders}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        count, size = work.write_texts(texts, plan.divisor)
        for number in range(plan.processes):
            with ExitStack() as stack:
                running = {
                    name: contender
                    for name, score in scores.items()
                    if (contender := _enter(stack, work, score, tokenizer, texts, plan.core)) is not None
                }
                _measure(running, scores, plan.rounds)
                if number == 0:
                    compare(running, scores, Path(folder), tokenizer)
    return Outcome(work, count, size, tuple(scores.values()))


def _enter(
    stack: ExitStack, work: Work, score: Score, tokenizer: Path, texts: Path, core: int
) -> Contender | None:
    """Starts and loads a contender, or notes why it is absent."""
    if score.absent is not None:
        return None
    contender = stack.enter_context(started(score.contender, core))
    try:
        loaded = contender.ask("load", contender=score.contender, path=str(tokenizer))
        contender.ask("texts", path=str(texts), batch=work.batch)
    except ContenderFailed as err:
        score.absent = str(err)
        return None
    score.version = loaded["version"]
    score.load_s.append(loaded["load_s"])
    return contender


def _measure(running: dict[str, Contender], scores: dict[str, Score], rounds: int) -> None:
    """One cold pass of each, then warm samples in turns that begin with another contender each time."""
    names = list(running)
    for name in names:
        scores[name].cold_s.append(running[name].ask("cold")["cpu_s"])
    for number in range(rounds):
        for what in (OWN, TENSORS):
            for index in range(len(names)):
                name = names[(index + number) % len(names)]
                sample = running[name].ask("sample", what=what)["cpu_s"]
                (scores[name].own_s if what == OWN else scores[name].tensors_s).append(sample)


def compare(running: dict[str, Contender], scores: dict[str, Score], folder: Path, tokenizer: Path) -> None:
    """Counts the texts whose ids differ from the reference's, if that takes part."""
    if REFERENCE not in running:
        return
    special_ids = _special_ids(tokenizer)
    names = enumerate(running.items())
    rows = {name: _ids(contender, folder / f"{index}.npz") for index, (name, contender) in names}
    expected = rows[REFERENCE]
    inside = [_without(row, special_ids) for row in expected]
    for name, found in rows.items():
        score = scores[name]
        score.differing = _differing(found, expected)
        score.differing_inside = _differing([_without(row, special_ids) for row in found], inside)


def _differing(found: list[Ids], expected: list[Ids]) -> int:
    return sum(not np.array_equal(row, wanted) for row, wanted in zip(found, expected, strict=True))


def _without(row: Ids, special_ids: list[int]) -> Ids:
    return row[~np.isin(row, special_ids)]


def _special_ids(tokenizer: Path) -> list[int]:
    """Ids that the post-processor adds."""
    processor: dict[str, Any] = json.loads(tokenizer.read_text(encoding="utf-8"))["post_processor"] or {}
    tokens: dict[str, dict[str, list[int]]] = processor.get("special_tokens", {})
    around = [int(processor[name][1]) for name in ("cls", "sep") if name in processor]
    return [*around, *(token_id for token in tokens.values() for token_id in token["ids"])]


def _ids(contender: Contender, path: Path) -> list[Ids]:
    contender.ask("ids", path=str(path))
    with np.load(path) as saved:
        return np.split(saved["ids"], np.cumsum(saved["lengths"])[:-1])
