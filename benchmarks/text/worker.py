"""A process that drives one contender: reads commands, one JSON object a line, and answers each in one line.

Run as ``python -m benchmarks.text.worker CORE`` by ``contest.py``, in the environment that has the library.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from benchmarks.text.adapters import Calls, load

# A sample lasts at least this long, so that one of a fast contender is many passes.
_SAMPLE_S = 0.05


class Worker:
    """One loaded contender and the texts it works on."""

    def __init__(self) -> None:
        self._calls: Calls | None = None
        self._batches: list[list[str]] = []
        self._is_single = False

    def load(self, contender: str, path: str) -> dict[str, object]:
        """Loads a tokenizer."""
        begin_s = time.process_time()
        self._calls, version = load(contender, path)
        return {"version": version, "load_s": time.process_time() - begin_s}

    def texts(self, path: str, batch: int) -> dict[str, object]:
        """Reads the texts; a batch of 0 stands for one call a text."""
        with open(path, encoding="utf-8") as file:
            texts: list[str] = json.load(file)
        self._is_single = batch == 0
        size = batch or 1
        self._batches = [texts[first : first + size] for first in range(0, len(texts), size)]
        gc.collect()
        gc.freeze()
        return {}

    def cold(self) -> dict[str, object]:
        """One pass, which must be the first: processor seconds up to tensors."""
        return {"cpu_s": self._pass(self._step("tensors"))}

    def sample(self, what: str) -> dict[str, object]:
        """Processor seconds of a pass, on average over as many as make a sample."""
        step = self._step(what)
        first_s = self._pass(step)
        if first_s >= _SAMPLE_S:
            return {"cpu_s": first_s}
        total_s, passes = 0.0, 0
        while total_s < _SAMPLE_S:
            total_s += self._pass(step)
            passes += 1
        return {"cpu_s": total_s / passes}

    def ids(self, path: str) -> dict[str, object]:
        """Writes the ids of all texts to a file."""
        assert self._calls is not None
        rows = [np.asarray(row, np.int32) for batch in self._batches for row in self._calls.rows(batch)]
        np.savez(path, ids=np.concatenate(rows), lengths=np.array([len(row) for row in rows]))
        return {}

    def _step(self, what: str) -> Callable[[list[str]], object]:
        calls = self._calls
        assert calls is not None
        if self._is_single:
            one = calls.tensor_one if what == "tensors" else calls.own_one
            return lambda batch: one(batch[0])
        return calls.tensors if what == "tensors" else calls.own

    def _pass(self, step: Callable[[list[str]], object]) -> float:
        gc.disable()
        begin_s = time.process_time()
        for batch in self._batches:
            step(batch)
        elapsed_s = time.process_time() - begin_s
        gc.enable()
        return elapsed_s


def serve(commands: TextIO, answers: TextIO) -> None:
    """Answers commands until there are none left; an error is answered by its text."""
    worker = Worker()
    for line in commands:
        command: dict[str, Any] = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except BaseException as err:  # noqa: BLE001 - A panic of a Rust library is none of Exception.
            answer = {"error": f"{type(err).__name__}: {err}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Takes the core to run on, and keeps what libraries print away from the answers."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
