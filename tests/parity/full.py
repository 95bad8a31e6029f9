"""Compares the text core with Hugging Face tokenizers 0.23.3 on everything: ``python -m tests.parity.full``.

Vocabularies times corpora are cut into tasks that as many processes as there are cores work through; every
output of every text is compared (``tests/parity/proof.py``). ``--write`` keeps the report that is committed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path

import tokenizers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from tests.parity.proof import prove, prove_options, prove_tensors
from tests.parity.test_text_parity import REFUSED, sample
from tests.support.corpora import CORPORA, Corpus
from tests.support.token_oracle import spelling_tokenizer
from tests.support.token_parity import TokenizerPair
from tests.support.vocabularies import VOCABULARIES

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Whole corpora of code points for these: one for each chain of stages that people use.
EVERY_CODE_POINT = (
    "bert-base-uncased",
    "bert-base-multilingual-cased",
    "gpt2",
    "roberta-base",
    "modernbert-shape",
    "deberta-v3",
    "xlm-roberta-ranked",
    "xlnet-ranked",
    "albert-shape",
    "unigram-bytes",
)
# These with every code point for each of them; the other contexts of code points for those in WHOLE.
EVERYWHERE = ("code points alone", "code points between letters")
# The most of any other corpus: for those above, and for the others.
TEXTS_MAX = 60_000
TEXTS_MAX_OF_OTHERS = 6_000
# All of these, too, for one vocabulary of each model.
WHOLE = ("bert-base-uncased", "gpt2", "xlm-roberta-ranked")
WHOLE_CORPORA = (
    "english sentences",
    "udhr elements",
    "udhr paragraphs",
    "words of 42 languages",
    "adversarial",
)
NORMALIZERS = [
    {"clean_text": clean, "handle_chinese_chars": spaced, "strip_accents": strip, "lowercase": lower}
    for clean in (True, False)
    for spaced in (True, False)
    for strip in (True, False)
    for lower in (True, False)
]
BLOCK = 0x8000
# Fewer are no proof: something was not there.
TEXTS_WANTED = 10_000_000


@dataclass(frozen=True, slots=True)
class Task:
    """Some texts for one vocabulary. "spelling" stands for one vocabulary for each block of code points."""

    vocabulary: str
    corpus: str
    texts_max: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task."""

    task: Task
    texts: int
    seconds: float
    mismatch: str | None


def plan() -> Iterator[Task]:
    """All tasks, those of one vocabulary together."""
    for vocabulary in VOCABULARIES:
        if vocabulary.name in REFUSED:
            continue
        is_main = vocabulary.name in EVERY_CODE_POINT
        for corpus in CORPORA:
            yield Task(vocabulary.name, corpus.name, _texts_max(vocabulary.name, corpus, is_main))
        yield Task(vocabulary.name, "options", 40 if is_main else 16)
        yield Task(vocabulary.name, "tensors", 40 if is_main else 16)
    for part in range(len(NORMALIZERS)):
        yield Task("spelling", "every code point", 0, part)


def _texts_max(name: str, corpus: Corpus, is_main: bool) -> int:
    if corpus.name in EVERYWHERE and is_main:
        return corpus.count
    if corpus.name.startswith("code points") and name in WHOLE:
        return corpus.count
    if name in WHOLE and corpus.name in WHOLE_CORPORA:
        return corpus.count
    if corpus.name.startswith("giants"):
        return 30 if is_main else 6
    return TEXTS_MAX if is_main else TEXTS_MAX_OF_OTHERS


def run(task: Task) -> Outcome:
    """Does one task in this process."""
    begin = time.monotonic()
    mismatch = None
    texts = 0
    try:
        texts = _compare(task)
    except AssertionError as err:
        mismatch = str(err)[:2_000]
    return Outcome(task, texts, time.monotonic() - begin, mismatch)


@lru_cache(maxsize=1)
def _pair(name: str) -> TokenizerPair | None:
    """The pair of a vocabulary, or None where it cannot be had; tasks come ordered by vocabulary."""
    vocabulary = next(each for each in VOCABULARIES if each.name == name)
    if vocabulary.unavailable() is not None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return TokenizerPair(vocabulary.content(), Path(folder))


def _compare(task: Task) -> int:
    if task.vocabulary == "spelling":
        return _spell_every_code_point(NORMALIZERS[task.part])
    pair = _pair(task.vocabulary)
    if pair is None:
        return 0
    if task.corpus == "options":
        return prove_options(pair, sample(), random.Random(task.vocabulary), cases=task.texts_max)
    if task.corpus == "tensors":
        return prove_tensors(pair, sample(), random.Random(task.vocabulary), cases=task.texts_max)
    corpus = next(each for each in CORPORA if each.name == task.corpus)
    if corpus.unavailable() is not None:
        return 0
    step = 1 if corpus.is_endless else max(1, corpus.count // task.texts_max)
    return prove(pair, islice(corpus.texts(), 0, step * task.texts_max, step))


def _spell_every_code_point(settings: dict[str, bool]) -> int:
    """With a vocabulary for each block that can spell all of it: nothing hides in an unknown token."""
    count = 0
    for first in range(0, 0x110000, BLOCK):
        texts = [f"a{chr(c)}b" for c in range(first, first + BLOCK) if not 0xD800 <= c <= 0xDFFF]
        if texts:
            with tempfile.TemporaryDirectory() as folder:
                pair = TokenizerPair(spelling_tokenizer(texts, **settings), Path(folder))
            count += prove(pair, texts)
    return count


def report(outcomes: list[Outcome], seconds: float) -> dict[str, object]:
    """What is committed: counts by vocabulary and corpus, and the versions."""
    by_vocabulary: dict[str, dict[str, int]] = {}
    for outcome in sorted(outcomes, key=lambda each: (each.task.vocabulary, each.task.corpus)):
        counts = by_vocabulary.setdefault(outcome.task.vocabulary, {})
        counts[outcome.task.corpus] = counts.get(outcome.task.corpus, 0) + outcome.texts
    return {
        "reference": f"tokenizers {tokenizers.__version__}",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "texts": sum(outcome.texts for outcome in outcomes),
        "mismatches": [asdict(outcome) for outcome in outcomes if outcome.mismatch],
        "minutes": round(seconds / 60, 1),
        "by_vocabulary": by_vocabulary,
    }


def main() -> int:
    """Runs all tasks; returns 1 if anything differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="write the report, as JSON, here")
    parser.add_argument("--only", help="only vocabularies whose name holds this")
    parser.add_argument("--skip", nargs="*", default=[], help="vocabularies to leave out")
    parser.add_argument("--thin", type=int, default=1, help="only one in so many texts of a corpus")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    tasks = [
        replace(task, texts_max=max(1, task.texts_max // arguments.thin))
        for task in plan()
        if (not arguments.only or arguments.only in task.vocabulary) and task.vocabulary not in arguments.skip
    ]
    console = Console(stderr=True)
    begin = time.monotonic()
    outcomes: list[Outcome] = []
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Ended by a signal, it still tells what it has compared.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with ProcessPoolExecutor(arguments.processes) as pool, Progress(*columns, console=console) as progress:
        bar = progress.add_task("comparing", total=len(tasks))
        try:
            for future in as_completed([pool.submit(run, task) for task in tasks]):
                outcome = future.result()
                outcomes.append(outcome)
                if outcome.mismatch:
                    console.print(f"{outcome.task}: {outcome.mismatch}", markup=False)
                progress.update(bar, advance=1, description=f"{sum(each.texts for each in outcomes):,} texts")
        except (SystemExit, KeyboardInterrupt):
            pool.shutdown(wait=False, cancel_futures=True)
    found = report(outcomes, time.monotonic() - begin) | {"tasks_left_out": len(tasks) - len(outcomes)}
    if arguments.write:
        arguments.write.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    differing = sum(outcome.mismatch is not None for outcome in outcomes)
    empty = sum(not outcome.texts for outcome in outcomes if not outcome.mismatch)
    console.print(
        f"{found['texts']:,} texts, {len(outcomes)} comparisons, {differing} with a difference, "
        f"{empty} without their texts, {found['minutes']} minutes"
    )
    if differing:
        return 1
    if len(outcomes) < len(tasks):
        console.print(f"{len(tasks) - len(outcomes)} comparisons were left out.")
        return 1
    if not (arguments.only or arguments.skip) and (
        empty or sum(each.texts for each in outcomes) < TEXTS_WANTED
    ):
        console.print(
            f"This proves too little: every corpus must be there, and {TEXTS_WANTED:,} texts in all."
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
