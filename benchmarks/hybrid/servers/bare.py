"""The ceiling: rows already in tokens, sorted by length, over one session of one thread for each core.

    python -m benchmarks.hybrid.servers.bare MODEL_FOLDER TEXTS CORES BATCH_TOKENS

Prints how long the rows took. Nothing is read, tokenised, sent or stored within that time.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.hybrid.servers.encoder import Encoder, open_tokenizer

_Batch: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


def batches(rows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[_Batch]:
    """Packs rows, longest first, into padded batches of at most so many tokens, or of one row."""
    ordered = sorted(rows, key=len, reverse=True)
    first = 0
    while first < len(ordered):
        length = len(ordered[first])
        chosen = ordered[first : first + max(1, batch_tokens // length)]
        ids = np.zeros((len(chosen), length), np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(chosen):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        yield ids, mask
        first += len(chosen)


def main(folder: Path, texts: Path, cores: int, batch_tokens: int) -> None:
    """Runs all rows once."""
    chosen = [text for text, _ in json.loads(texts.read_text(encoding="utf-8"))]
    rows = [encoding.ids for encoding in open_tokenizer(folder).encode_batch_fast(chosen)]
    waiting = list(reversed(list(batches(rows, batch_tokens))))
    encoders = [Encoder(folder, 1) for _ in range(cores)]
    for encoder in encoders:
        encoder.compute(*waiting[0])

    def work(encoder: Encoder) -> None:
        while waiting:
            try:
                batch = waiting.pop()
            except IndexError:
                return
            encoder.compute(*batch)

    threads = [threading.Thread(target=work, args=(encoder,)) for encoder in encoders]
    begin_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"rows": len(rows), "elapsed_s": time.monotonic() - begin_s}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
