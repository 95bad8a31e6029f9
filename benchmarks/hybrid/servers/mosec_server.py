"""The worker that mosec runs: each request is one text, a batch is what mosec puts together."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.hybrid.servers.encoder import Encoder

_mosec: Any = import_module("mosec")
# As in Triton's configuration.
_BATCH_ROWS_MAX = 8
_WAIT_MS_MAX = 1


class EncoderWorker(_mosec.Worker):  # type: ignore[misc]
    """One process with a session of one thread."""

    def __init__(self) -> None:
        self._encoder = Encoder(Path(os.environ["MODEL_FOLDER"]), 1)

    def deserialize(self, data: bytes) -> str:
        """Takes the text out of a body: a JSON list of one."""
        (text,) = json.loads(data)
        return str(text)

    def forward(self, data: list[str]) -> list[bytes]:
        """Computes a batch."""
        return [vector.tobytes() for vector in self._encoder.encode(data)]

    def serialize(self, data: bytes) -> bytes:
        """Answers with the float32 numbers themselves."""
        return data


def main() -> None:
    """Serves until a signal."""
    server = _mosec.Server()
    server.append_worker(
        EncoderWorker,
        num=int(os.environ["WORKERS"]),
        max_batch_size=_BATCH_ROWS_MAX,
        max_wait_time=_WAIT_MS_MAX,
    )
    server.run()


if __name__ == "__main__":
    main()
