"""How the tokenizer's speed grows with threads: ``python -m benchmarks.text.threads --blocks``.

Wall time, by turns: as many cores must be idle as there are threads. ``--blocks`` compares instruction sets.
Tensors are padded int32 ids of a thousand texts a call, written into a buffer that is kept.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import click
import numpy as np

from benchmarks.text.environment import ROOT
from penstock_kernels import EncodeOptions, Tokenizer
from penstock_kernels.blob import compile_tokenizer
from penstock_server.text.tokenizer_json import read_spec
from tests.support.corpus_files import english_passages
from tests.support.vocabularies import vocabulary

VOCABULARIES = ("bert-base-uncased", "gpt2", "xlm-roberta-ranked")
BLOCKS = ("avx512", "avx2", "portable")
_TEXTS, _BATCH, _WIDTH = 4_000, 1_000, 512
# A pass takes some milliseconds: many of them even out what else the machine does.
_PASSES = 12


def measure(name: str, threads: Sequence[int], rounds: int) -> dict[int, float]:
    """MB/s by number of threads, medians of passes by turns, warm."""
    texts = [text.encode() for text in islice(english_passages(), _TEXTS)]
    megabytes = sum(map(len, texts)) / 1e6
    content = Path(vocabulary(name).path()).read_bytes()
    tokenizer = Tokenizer(compile_tokenizer(read_spec(content)), threads_max=max(threads))
    batches = [texts[first : first + _BATCH] for first in range(0, len(texts), _BATCH)]
    ids = np.empty((_BATCH, _WIDTH), np.int32)
    rates: dict[int, list[float]] = {count: [] for count in threads}
    for number in range(rounds + 1):
        for count in threads:
            options = EncodeOptions(tokens_max=_WIDTH, pad_width=_WIDTH, threads=count)
            begin = time.perf_counter()
            for _ in range(_PASSES):
                for batch in batches:
                    tokenizer.encode_into(batch, ids, options=options)
            if number:  # the first round fills the caches
                rates[count].append(_PASSES * megabytes / (time.perf_counter() - begin))
    return {count: statistics.median(found) for count, found in rates.items()}


def _measure_with(blocks: str, name: str, rounds: int) -> float:
    """MB/s of one thread that may use these instructions at most, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.text.threads", "--json", "--threads", "1"]
    command += ["--rounds", str(rounds), "--vocabulary", name]
    environment = os.environ | {"PENSTOCK_BLOCKS": blocks}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=600
    )
    return float(json.loads(done.stdout)["threads"][name]["1"])


@click.command(context_settings={"show_default": True})
@click.option(
    "--threads", multiple=True, type=click.IntRange(1, 256), default=(1, 2), help="Numbers of threads."
)
@click.option("--vocabulary", "names", multiple=True, default=VOCABULARIES, help="Which tokenizers.")
@click.option("--rounds", type=click.IntRange(1, 1_000), default=9, help="Turns of each.")
@click.option("--blocks", is_flag=True, help="Measure BERT's instruction sets, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(threads: tuple[int, ...], names: tuple[str, ...], rounds: int, blocks: bool, as_json: bool) -> None:
    """Measure threads and instruction sets."""
    found = {name: measure(name, sorted(set(threads)), rounds) for name in names}
    by_blocks = {each: _measure_with(each, VOCABULARIES[0], rounds) for each in BLOCKS} if blocks else {}
    if as_json:
        print(json.dumps({"threads": found, "blocks": by_blocks}))
        return
    for name, rates in found.items():
        one = rates[min(rates)]
        cells = ", ".join(f"{count}: {rate:,.0f} MB/s ({rate / one:.2f})" for count, rate in rates.items())
        print(f"{name}, by threads  {cells}")
    for each, rate in by_blocks.items():
        print(f"{VOCABULARIES[0]}, {each}  {rate:,.0f} MB/s")


if __name__ == "__main__":
    main()
