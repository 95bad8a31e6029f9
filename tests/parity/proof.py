"""Comparing one tokenizer with the reference on streams of texts, every output in every way of encoding."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from penstock_kernels import Tokenizer, TokenRows, TruncationStrategy
from tests.support.token_parity import IDS_ONLY, WITH_SPANS, ParityCase, TokenizerPair, compare

BATCH_TEXTS = 1_000
BATCH_CHARS = 200_000
THREADS_MAX = 8
STRATEGIES = (TruncationStrategy.LONGEST_FIRST, TruncationStrategy.ONLY_FIRST, TruncationStrategy.ONLY_SECOND)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cuts a stream of texts into lists that both sides can encode at once."""
    batch: list[str] = []
    chars = 0
    for text in texts:
        if batch and (len(batch) == BATCH_TEXTS or chars + len(text) > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += len(text)
    if batch:
        yield batch


def prove(pair: TokenizerPair, texts: Iterable[str]) -> int:
    """Compares all outputs on all texts; returns how many there were.

    The oracle computes each text once. The native core computes it with empty caches and with warm ones, with
    spans and without, twice in a row, the general way, and on 2 to 8 threads.
    """
    count = 0
    warm, threaded = pair.cold(), pair.cold(threads_max=THREADS_MAX)
    for number, batch in enumerate(batches(texts)):
        expected = pair.expect(batch, None, WITH_SPANS)
        ids_only = {name: expected[name] for name in ("ids", "type_ids", "starts")}
        # A new cache costs megabytes to clear: now and then is often enough.
        cold = [pair.cold()] if number % 16 == 0 else []
        for tokenizer in (*cold, warm, warm, pair.general):
            label = f"{tokenizer.path_name}{' cold' if tokenizer in cold else ''}"
            for case, wanted in ((WITH_SPANS, expected), (IDS_ONLY, ids_only)):
                compare(_encode(tokenizer, batch, case), wanted, batch, None, label)
        threads = 2 + number % (THREADS_MAX - 1)
        shared = _encode(threaded, batch, replace(WITH_SPANS, threads=threads))
        compare(shared, expected, batch, None, f"{threads} threads")
        count += len(batch)
    return count


def option_cases(rng: random.Random, count: int) -> list[ParityCase]:
    """Random settings of everything that a call can ask for and the reference accepts."""
    everything = list(product(STRATEGIES, (False, True), (False, True), (False, True), (False, True)))
    cases: list[ParityCase] = []
    for strategy, left, overflow, add_special, split_special in rng.sample(everything, min(count, 48)):
        tokens_max = rng.choice((8, 9, 12, 17, 32, 33, 64))
        # The reference panics where a stride is not less than what truncation leaves of a text.
        may_stride = strategy is TruncationStrategy.LONGEST_FIRST and tokens_max > 16
        cases.append(
            ParityCase(
                tokens_max=tokens_max,
                strategy=strategy,
                left=left,
                overflow=overflow,
                stride=rng.choice((0, 1, 2)) if overflow and may_stride else 0,
                add_special_tokens=add_special,
                split_special_tokens=split_special,
            )
        )
    return cases


def prove_options(pair: TokenizerPair, texts: Sequence[str], rng: random.Random, cases: int) -> int:
    """Compares truncation, overflow, pairs and special tokens in random settings; returns how many rows."""
    count = 0
    for case in option_cases(rng, cases):
        firsts = rng.sample(texts, min(len(texts), 60))
        seconds: list[str | None] = [rng.choice(texts)[:300] if rng.random() < 0.6 else None for _ in firsts]
        kept = [
            (first, second)
            for first, second in zip(firsts, seconds, strict=True)
            if _fits(pair, first, second, case)
        ]
        if not kept:
            continue
        texts_kept = [first for first, _ in kept]
        pair.check(texts_kept, [second for _, second in kept], case)
        count += len(kept)
    return count


def prove_tensors(pair: TokenizerPair, texts: Sequence[str], rng: random.Random, cases: int) -> int:
    """Compares padded tensors of both widths in random settings of padding; returns how many rows."""
    for _ in range(cases):
        batch = rng.sample(texts, min(len(texts), 60))
        pair.check_tensors(
            [text for text in batch if len(text) < 2_000],
            tokens_max=rng.choice((8, 32, 64)),
            width=rng.choice((None, 64, 70)),
            multiple=rng.choice((1, 3, 8)),
            left=rng.random() < 0.5,
            kind=rng.choice((np.int32, np.int64)),
            threads=rng.randint(1, THREADS_MAX),
        )
    return 60 * cases


def _fits(pair: TokenizerPair, first: str, second: str | None, case: ParityCase) -> bool:
    """Whether the reference accepts the row: it raises where a text would be cut to nothing."""
    if case.strategy is TruncationStrategy.LONGEST_FIRST:
        return len(first) < 2_000
    if case.strategy is TruncationStrategy.ONLY_SECOND and second is None:
        return False
    try:
        pair.expect([first], [second], case)
    except Exception:  # noqa: BLE001  (the binding raises bare Exception)
        return False
    return len(first) < 2_000


def _encode(tokenizer: Tokenizer, texts: list[str], case: ParityCase) -> TokenRows:
    return tokenizer.encode(texts, options=case.options)
