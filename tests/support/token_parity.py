"""One tokenizer.json on both sides: every output of the native core against Hugging Face tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as OracleTokenizer

from penstock_kernels import EncodeOptions, Tokenizer, TokenRows, TruncationStrategy
from penstock_kernels.blob import compile_tokenizer
from penstock_kernels.spec import TokenizerSpec
from penstock_server.text.tokenizer_json import read_spec

STRATEGIES = {
    TruncationStrategy.LONGEST_FIRST: "longest_first",
    TruncationStrategy.ONLY_FIRST: "only_first",
    TruncationStrategy.ONLY_SECOND: "only_second",
}
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ParityCase:
    """Options of one comparison.

    Attributes:
        tokens_max: Longest row; None for no truncation.
        strategy: Which text is cut.
        left: Cut on the left.
        overflow: Compare the rows of what was cut away, too.
        stride: Tokens that overflowing rows share.
        add_special_tokens: Whether the template's are added.
        split_special_tokens: Whether special tokens in the text are text.
        with_spans: Compare offsets, word ids and sequence ids; else ids and type ids alone (the fastest way).
        threads: Threads of the native call.
    """

    tokens_max: int | None = None
    strategy: TruncationStrategy = TruncationStrategy.LONGEST_FIRST
    left: bool = False
    overflow: bool = False
    stride: int = 0
    add_special_tokens: bool = True
    split_special_tokens: bool = False
    with_spans: bool = True
    threads: int = 1

    @property
    def options(self) -> EncodeOptions:
        """The same for the native tokenizer."""
        return EncodeOptions(
            tokens_max=self.tokens_max,
            truncation=self.strategy,
            truncate_left=self.left,
            return_overflow=self.overflow,
            stride=self.stride,
            add_special_tokens=self.add_special_tokens,
            split_special_tokens=self.split_special_tokens,
            return_offsets=self.with_spans,
            return_special_mask=self.with_spans,
            return_word_ids=self.with_spans,
            return_sequence_ids=self.with_spans,
            threads=self.threads,
        )


WITH_SPANS = ParityCase()
IDS_ONLY = ParityCase(with_spans=False)


class TokenizerPair:
    """One tokenizer.json, loaded by both sides.

    Args:
        content: The file's content.
        folder: Where to write it.

    Attributes:
        native: With its fast path, if it has one.
        general: Without.
        oracle: Hugging Face's; its truncation is set for each comparison.
    """

    def __init__(self, content: dict[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        self.spec = read_spec(path.read_bytes())
        self._blob = compile_tokenizer(self.spec)
        self.native = Tokenizer(self._blob)
        self.general = Tokenizer(self._blob, with_fast_path=False)
        self.oracle = OracleTokenizer.from_file(str(path))
        self.oracle.no_padding()

    def cold(self, threads_max: int | None = None) -> Tokenizer:
        """A native tokenizer whose caches are empty."""
        return Tokenizer(self._blob, threads_max=threads_max)

    def expect(
        self, texts: Sequence[str], pairs: Sequence[str | None] | None = None, case: ParityCase = WITH_SPANS
    ) -> Columns:
        """What the oracle computes."""
        self._set_up(case)
        inputs: list[str | tuple[str, str]] = list(texts)
        if pairs is not None:
            both = zip(texts, pairs, strict=True)
            inputs = [text if pair is None else (text, pair) for text, pair in both]
        encode = self.oracle.encode_batch if case.with_spans else self.oracle.encode_batch_fast
        return _columns(encode(inputs, add_special_tokens=case.add_special_tokens), case)

    def check(
        self,
        texts: Sequence[str],
        pairs: Sequence[str | None] | None = None,
        case: ParityCase = WITH_SPANS,
        tokenizers: Iterable[Tokenizer] | None = None,
    ) -> None:
        """Fails, showing the first row that differs. By default both native ways are compared."""
        expected = self.expect(texts, pairs, case)
        if case.overflow and pairs is not None and self.spec.single == TokenizerSpec(self.spec.model).single:
            # Without a post-processor the oracle loses the sequence ids of a pair's overflow; ours are right.
            expected.pop("sequence_ids", None)
        for tokenizer in tokenizers or (self.native, self.general):
            rows = tokenizer.encode(list(texts), None if pairs is None else list(pairs), options=case.options)
            compare(rows, expected, texts, pairs, f"{tokenizer.path_name} {case}")

    def check_tensors(
        self,
        texts: Sequence[str],
        *,
        tokens_max: int,
        width: int | None,
        multiple: int,
        left: bool,
        kind: type[np.int32 | np.int64],
        threads: int,
    ) -> None:
        """Fails where padded tensors differ from the oracle's padded encodings."""
        pad_id, pad_type_id = 1, 0
        self._set_up(ParityCase(tokens_max=tokens_max))
        self.oracle.enable_padding(  # pyright: ignore[reportUnknownMemberType]
            direction="left" if left else "right",
            pad_id=pad_id,
            pad_type_id=pad_type_id,
            length=width,
            pad_to_multiple_of=multiple,
        )
        wanted = self.oracle.encode_batch(list(texts))
        self.oracle.no_padding()
        options = EncodeOptions(
            tokens_max=tokens_max,
            pad_width=width,
            pad_multiple=multiple,
            pad_left=left,
            pad_id=pad_id,
            pad_type_id=pad_type_id,
            threads=threads,
        )
        ids, mask, type_ids = tensors = [np.full(len(texts) * 128, -1, kind) for _ in range(3)]
        tokenizer = self.cold(threads_max=threads)
        actual = tokenizer.encode_into(list(texts), ids, mask, type_ids, options=options)
        columns = [[e.ids for e in wanted], [e.attention_mask for e in wanted], [e.type_ids for e in wanted]]
        for tensor, column in zip(tensors, columns, strict=True):
            found = tensor[: len(texts) * actual].reshape(len(texts), actual)
            assert np.array_equal(found, np.array(column, kind)), (options, texts)

    def _set_up(self, case: ParityCase) -> None:
        self.oracle.encode_special_tokens = case.split_special_tokens
        if case.tokens_max is None:
            self.oracle.no_truncation()
            return
        self.oracle.enable_truncation(  # pyright: ignore[reportUnknownMemberType]
            case.tokens_max,
            stride=case.stride,
            strategy=STRATEGIES[case.strategy],
            direction="left" if case.left else "right",
        )


def compare(
    rows: TokenRows,
    expected: Columns,
    texts: Sequence[str],
    pairs: Sequence[str | None] | None,
    label: str,
) -> None:
    """Fails at the first row in which any column differs."""
    actual = actual_columns(rows)
    differing = [name for name, column in expected.items() if not np.array_equal(actual[name], column)]
    if not differing:
        return
    starts = expected["starts"]
    samples = expected.get("samples", np.arange(len(starts) - 1))
    for row in range(len(starts) - 1):
        is_wanted = {name: _row(expected, name, row) for name in differing}
        is_actual = {name: _row(actual, name, row) for name in differing}
        if is_wanted != is_actual:
            sample = int(samples[row])
            raise AssertionError(
                f"{label}: {differing} differ in row {row} of {texts[sample]!r} "
                f"{pairs[sample] if pairs else None!r}\nis     {is_actual}\nwanted {is_wanted}"
            )
    raise AssertionError(f"{label}: there are more rows than wanted")


def actual_columns(rows: TokenRows) -> Columns:
    """The columns of native rows, by the names that ``compare`` uses."""
    columns: Columns = {"ids": rows.ids, "type_ids": rows.type_ids, "starts": rows.starts}
    for name in ("offsets", "special_mask", "word_ids", "sequence_ids", "samples"):
        column = getattr(rows, name)
        if column is not None:
            columns[name] = column
    return columns


def _row(columns: Columns, name: str, row: int) -> object:
    starts = columns["starts"]
    if name in ("starts", "samples"):
        return columns[name][row : row + 2].tolist()
    return columns[name][starts[row] : starts[row + 1]].tolist() if row + 1 < len(starts) else None


def _columns(encodings: Sequence[Encoding], case: ParityCase) -> Columns:
    rows = [(sample, row) for sample, main in enumerate(encodings) for row in (main, *_overflow(main, case))]
    parts = [row for _, row in rows]
    flat = partial(_flat, parts)
    lengths = [len(part) for part in parts]
    columns: Columns = {
        "ids": flat(lambda part: part.ids, np.int32),
        "type_ids": flat(lambda part: part.type_ids, np.uint8),
        "starts": np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
    }
    if case.with_spans:
        columns["special_mask"] = flat(lambda part: part.special_tokens_mask, np.uint8)
        columns["offsets"] = flat(lambda part: chain.from_iterable(part.offsets), np.int32).reshape(-1, 2)
        columns["word_ids"] = flat(lambda part: _filled(part.word_ids), np.int32)
        columns["sequence_ids"] = flat(lambda part: _filled(part.sequence_ids), np.int8)
    if case.overflow:
        columns["samples"] = np.array([sample for sample, _ in rows], np.int32)
    return columns


def _overflow(main: Encoding, case: ParityCase) -> list[Encoding]:
    return main.overflowing if case.overflow else []


def _flat(parts: list[Encoding], column: Callable[[Encoding], Iterable[int]], dtype: Any) -> NDArray[Any]:
    return np.fromiter(chain.from_iterable(map(column, parts)), dtype)


def _filled(values: Sequence[int | None]) -> Iterable[int]:
    return (-1 if value is None else value for value in values)
