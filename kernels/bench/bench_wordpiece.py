"""MB/s and texts/s of the tokenizer on one core, beside Hugging Face tokenizers on the same texts.

Usage: ``python kernels/bench/bench_wordpiece.py [--tokenizer tokenizer.json] [--texts file] [--batch 64]``
where the file has one text a line. Without a file, generated English is used (say so when quoting numbers).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tokenizers import Tokenizer as HuggingFace  # noqa: E402

from penstock_server.domain.tasks import Truncation  # noqa: E402
from penstock_server.text.tokenizer import Tokenizer  # noqa: E402
from tests.support.reviews import review_sentences  # noqa: E402


def best_seconds(encode: Callable[[list[str]], object], texts: list[str], batch: int, repeats: int) -> float:
    """CPU time of the fastest pass over all texts in batches."""
    batches = [texts[i : i + batch] for i in range(0, len(texts), batch)]
    times: list[float] = []
    for _ in range(repeats):
        start = time.process_time()
        for part in batches:
            encode(part)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "models" / "injection" / "tokenizer.json")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    texts = (
        options.texts.read_text(encoding="utf-8").splitlines() if options.texts else review_sentences(20_000)
    )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    native = Tokenizer.from_file(options.tokenizer)
    other = HuggingFace.from_file(str(options.tokenizer))
    other.no_truncation()
    other.no_padding()
    encoders: dict[str, Callable[[list[str]], object]] = {
        "penstock": lambda part: native.encode(part, tokens_max=None, truncation=Truncation.RIGHT),
        "penstock_offsets": lambda part: native.encode(
            part, tokens_max=None, truncation=Truncation.RIGHT, return_offsets=True
        ),
        "huggingface": other.encode_batch_fast,
        "huggingface_offsets": other.encode_batch,
    }
    size = sum(len(text.encode()) for text in texts)
    results: dict[str, Any] = {"texts": len(texts), "bytes": size, "batch": options.batch, "results": {}}
    for name, encode in encoders.items():
        seconds = best_seconds(encode, texts, options.batch, options.repeats)
        results["results"][name] = {
            "mb_per_s": round(size / seconds / 1e6, 1),
            "texts_per_s": round(len(texts) / seconds),
        }
    print(json.dumps(results, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
