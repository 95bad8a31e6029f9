"""What callers of the tokenizer may give and get: inputs, buffers, options, errors, threads."""

from __future__ import annotations

import copy
import ctypes
import gc
import mmap
import os
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_kernels._tokenizer import Tokenizer
from penstock_kernels.blob import compile_tokenizer
from penstock_kernels.options import EncodeOptions, TruncationStrategy
from penstock_kernels.reference_encode import ReferenceTokenizer
from penstock_kernels.rows import ROW_INVALID, ROW_TRUNCATED, TokenRows
from penstock_kernels.spec import (
    AddedToken,
    BertNormalizer,
    BertPreTokenizer,
    Slot,
    TemplatePiece,
    TokenizerSpec,
    WordPiece,
)

AnyTokenizer = Tokenizer | ReferenceTokenizer
CLS, SEP = 2, 3
ALL = EncodeOptions(
    return_offsets=True, return_special_mask=True, return_word_ids=True, return_sequence_ids=True
)


@cache
def spec() -> TokenizerSpec:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "e", "!", "中", "##a", "##b", "a"]
    cls, sep = TemplatePiece(Slot.SPECIAL, 0, CLS), TemplatePiece(Slot.SPECIAL, 0, SEP)
    return TokenizerSpec(
        model=WordPiece({token: index for index, token in enumerate(tokens)}, unknown_id=1),
        normalizers=(BertNormalizer(),),
        pre_tokenizers=(BertPreTokenizer(),),
        added_tokens=(AddedToken("[SEP]", SEP, special=True),),
        single=(cls, TemplatePiece(Slot.FIRST), sep),
        pair=(
            cls,
            TemplatePiece(Slot.FIRST),
            sep,
            TemplatePiece(Slot.SECOND, 1),
            TemplatePiece(Slot.SPECIAL, 1, SEP),
        ),
    )


@cache
def native() -> Tokenizer:
    return Tokenizer(compile_tokenizer(spec()), threads_max=3)


@cache
def twin() -> ReferenceTokenizer:
    return ReferenceTokenizer(spec())


both = pytest.mark.parametrize("make", [native, twin])


def rows_of(rows: TokenRows) -> list[list[int]]:
    return [part.tolist() for part in np.split(rows.ids, rows.starts[1:-1])] if rows.rows else []


def assert_same(actual: TokenRows, wanted: TokenRows) -> None:
    for name in TokenRows.__slots__:
        one, other = getattr(actual, name), getattr(wanted, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype, name
            assert one.shape == other.shape, name
            assert np.array_equal(one, other), name


def column(texts: Sequence[bytes], dtype: Any) -> tuple[bytes, NDArray[Any]]:
    return b"".join(texts), np.cumsum([0, *map(len, texts)], dtype=dtype)


@both
def test_one_text_makes_one_row(make: Callable[[], AnyTokenizer]) -> None:
    tokenizer = make()
    assert rows_of(tokenizer.encode("unaffable")) == [[CLS, 4, 5, 6, SEP]]
    assert rows_of(tokenizer.encode(b"e", "!")) == [[CLS, 7, SEP, 8, SEP]]
    ids = np.zeros(5, np.int64)
    assert tokenizer.encode_into("e", ids, pairs="!") == 5
    assert ids.tolist() == [CLS, 7, SEP, 8, SEP]
    assert rows_of(tokenizer.encode([])) == []
    assert tokenizer.encode_into([], ids) == 0


@both
def test_what_was_not_asked_for_is_not_there(make: Callable[[], AnyTokenizer]) -> None:
    rows = make().encode(["e"])
    assert rows.offsets is None
    assert rows.special_mask is None
    assert rows.word_ids is None
    assert rows.sequence_ids is None
    assert rows.samples is None
    assert not rows.ids.flags.writeable


@both
def test_bytes_that_are_not_utf8_make_an_invalid_row(make: Callable[[], AnyTokenizer]) -> None:
    tokenizer = make()
    texts = [b"e", b"\xff", b"\xed\xa0\x80", b"a" * 70 + b"\xc3", "中".encode()]
    rows = tokenizer.encode(texts, options=ALL)
    assert rows.valid.tolist() == [True, False, False, False, True]
    assert rows.lengths.tolist() == [3, 0, 0, 0, 3]
    assert tokenizer.encode(["e"], [b"\xff"]).valid.tolist() == [False]
    ids, flags = np.full((5, 3), 9, np.int32), np.zeros(5, np.uint8)
    assert tokenizer.encode_into(texts, ids, flags=flags) == 3
    assert ids.tolist() == [[CLS, 7, SEP], [0, 0, 0], [0, 0, 0], [0, 0, 0], [CLS, 9, SEP]]
    assert flags.tolist() == [0, ROW_INVALID, ROW_INVALID, ROW_INVALID, 0]


@both
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_arrow_columns_are_encoded_like_lists(make: Callable[[], AnyTokenizer], dtype: Any) -> None:
    tokenizer = make()
    texts = [b"e !", b"", "中a".encode(), b"\xff"]
    first, second = column(texts, dtype), column(texts[::-1], dtype)
    assert_same(tokenizer.encode_arrow(*first, options=ALL), tokenizer.encode(texts, options=ALL))
    paired = tokenizer.encode(texts, texts[::-1], ALL)
    assert_same(tokenizer.encode_arrow(*first, *second, options=ALL), paired)
    ids, lengths = np.zeros((4, 9), dtype), np.zeros(4, np.int32)
    width = tokenizer.encode_arrow_into(
        *first, ids, None, None, lengths, None, second[0], second[1], EncodeOptions(pad_width=9)
    )
    assert width == 9
    assert lengths.tolist() == paired.lengths.tolist()
    assert ids[0, : lengths[0]].tolist() == rows_of(paired)[0]
    no_rows: NDArray[Any] = np.zeros(1, dtype)
    assert tokenizer.encode_arrow(b"", no_rows).rows == 0
    assert tokenizer.encode_arrow(bytearray(b"e"), np.array([0, 0, 1], dtype)).lengths.tolist() == [2, 3]


@both
@pytest.mark.parametrize("offsets", [[0, 5], [-1, 2], [2, 1], [0, 2, 1, 3]])
def test_arrow_offsets_outside_their_data_are_refused(
    make: Callable[[], AnyTokenizer], offsets: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"offsets of row .* do not lie within 3 bytes"):
        make().encode_arrow(b"abc", np.array(offsets, np.int32))


@both
def test_arrow_columns_of_another_shape_are_refused(make: Callable[[], AnyTokenizer]) -> None:
    tokenizer = make()
    with pytest.raises(ValueError, match="must be int32 or int64, not uint8"):
        tokenizer.encode_arrow(b"abc", np.zeros(2, np.uint8))  # type: ignore[arg-type] # pyright: ignore
    with pytest.raises(ValueError, match="one element more than there are rows"):
        tokenizer.encode_arrow(b"abc", np.zeros(0, np.int32))
    with pytest.raises(ValueError, match="belong together"):
        tokenizer.encode_arrow(b"abc", np.array([0, 3], np.int32), b"abc")
    with pytest.raises(ValueError, match="there are 1 texts but 2 pairs"):
        tokenizer.encode_arrow(*column([b"a"], np.int32), *column([b"a", b"b"], np.int32))


@both
def test_overflow_names_the_text_of_each_row(make: Callable[[], AnyTokenizer]) -> None:
    options = EncodeOptions(tokens_max=4, return_overflow=True, stride=1)
    rows = make().encode(["e", "e ! a", "", "! ! ! !"], options=options)
    assert rows.samples is not None
    assert rows.samples.tolist() == [0, 1, 1, 2, 3, 3, 3]
    assert rows.truncated.tolist() == [False, True, True, False, True, True, True]
    assert rows_of(rows)[1:3] == [[CLS, 7, 8, SEP], [CLS, 8, 12, SEP]]


@both
def test_words_keep_their_index_and_their_own_offsets(make: Callable[[], AnyTokenizer]) -> None:
    rows = make().encode_words([["unaffable", "", "e!"], []], [["a"], None], ALL)
    assert rows_of(rows) == [[CLS, 4, 5, 6, 7, 8, SEP, 12, SEP], [CLS, SEP]]
    assert rows.word_ids is not None
    assert rows.word_ids[:9].tolist() == [-1, 0, 0, 0, 2, 2, -1, 0, -1]
    assert rows.offsets is not None
    assert rows.offsets[1:6].tolist() == [[0, 2], [2, 5], [5, 9], [0, 1], [1, 2]]


REFUSED: list[tuple[str, dict[str, Any], str, str | None]] = [
    (
        "tokens_max is 1, below the special tokens of a row \\(2 for a text, 3 for a pair\\)",
        {"tokens_max": 1},
        "e",
        None,
    ),
    (
        "text 1 is too long and only second texts may be cut",
        {"tokens_max": 3, "truncation": TruncationStrategy.ONLY_SECOND},
        "e e",
        None,
    ),
    (
        "text 1 cannot be cut to tokens_max, 5, by ONLY_FIRST alone",
        {"tokens_max": 5, "truncation": TruncationStrategy.ONLY_FIRST},
        "e e",
        "e e e",
    ),
    (
        "text 1 cannot overflow with stride 1",
        {"tokens_max": 3, "return_overflow": True, "stride": 1},
        "e e",
        None,
    ),
    (
        "text 1 would overflow into more than overflow_tokens_max, 11, tokens",
        {"tokens_max": 3, "return_overflow": True, "overflow_tokens_max": 11},
        "e e e e",
        None,
    ),
]


@both
@pytest.mark.parametrize(("message", "settings", "text", "pair"), REFUSED)
def test_texts_that_cannot_be_encoded_as_asked_are_named(
    make: Callable[[], AnyTokenizer], message: str, settings: dict[str, Any], text: str, pair: str | None
) -> None:
    with pytest.raises(ValueError, match=message):
        make().encode(["", text], [None, pair], EncodeOptions(**settings))


def test_both_refuse_in_the_same_words() -> None:
    for _, settings, text, pair in REFUSED:
        messages: list[str] = []
        for tokenizer in (native(), twin()):
            with pytest.raises(ValueError, match=r".") as caught:
                tokenizer.encode([text], [pair], EncodeOptions(**settings))
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


@both
def test_inputs_that_are_no_texts_are_refused(make: Callable[[], Any]) -> None:
    tokenizer = make()
    for texts in ([1], [None], ["e", 2.0], ("e", bytearray(b"e"))):
        with pytest.raises(TypeError, match="texts must be str or bytes"):
            tokenizer.encode(texts)
    with pytest.raises(TypeError, match="words must be str, not bytes"):
        tokenizer.encode_words([["e", b"e"]])
    with pytest.raises(TypeError, match="sequences of sequences of words"):
        tokenizer.encode_words(["e"])
    with pytest.raises(TypeError, match="sequences of words, not None"):
        tokenizer.encode_words([None])
    with pytest.raises(TypeError, match="one text can have one pair"):
        tokenizer.encode("e", ["e"])
    with pytest.raises(TypeError, match="pairs must be a sequence"):
        tokenizer.encode(["e"], "e")
    with pytest.raises(ValueError, match="there are 1 texts but 2 pairs"):
        tokenizer.encode(["e"], ["e", None])
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode(["\ud800"])


@both
def test_outputs_that_cannot_be_written_are_refused(make: Callable[[], AnyTokenizer]) -> None:
    tokenizer = make()
    good = np.zeros(6, np.int32)
    frozen = good.copy()
    frozen.setflags(write=False)
    for bad in (frozen, np.zeros((6, 2), np.int32)[:, 0]):
        with pytest.raises(ValueError, match="ids must be a writable C-contiguous array"):
            tokenizer.encode_into("e", bad)
    for kind in (np.float32, np.uint32, np.uint8, np.float64, np.dtype(">i4")):
        with pytest.raises(ValueError, match="ids has elements of another type"):
            tokenizer.encode_into("e", np.zeros(6, kind))
    with pytest.raises(ValueError, match="mask has elements of another type"):
        tokenizer.encode_into("e", good, np.zeros(6, np.int64))
    with pytest.raises(ValueError, match="2 rows of 3 tokens need tensors of 6 elements, not 5"):
        tokenizer.encode_into(["e", ""], good, type_ids=np.zeros(5, np.int32))
    with pytest.raises(ValueError, match="lengths must have an element for each of 2 rows, not 1"):
        tokenizer.encode_into(["e", ""], good, lengths=np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="flags must have an element for each of 2 rows, not 0"):
        tokenizer.encode_into(["e", ""], good, flags=np.zeros(0, np.uint8))
    with pytest.raises(ValueError, match="one row a text"):
        tokenizer.encode_into("e", good, options=EncodeOptions(return_overflow=True))
    with pytest.raises(ValueError, match="text 1 has more tokens than pad_width, 2, is wide"):
        tokenizer.encode_into(["", "e"], good, options=EncodeOptions(pad_width=2))
    assert not good.any()


@both
def test_tensors_are_written_from_their_beginning(make: Callable[[], AnyTokenizer]) -> None:
    ids, flags = np.full((2, 8), -1, np.int64), np.zeros(2, np.uint8)
    options = EncodeOptions(tokens_max=4, pad_multiple=3, pad_left=True, pad_id=11)
    assert make().encode_into(["e ! a", "e"], ids, flags=flags, options=options) == 6
    wanted = [11, 11, CLS, 7, 8, SEP, 11, 11, 11, CLS, 7, SEP, -1, -1, -1, -1]
    assert ids.reshape(-1).tolist() == wanted
    assert flags.tolist() == [ROW_TRUNCATED, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens_max": 0}, "tokens_max must be at least 1, not 0"),
        ({"stride": -1}, "stride must be at least 0, not -1"),
        ({"pad_width": -1}, "pad_width must be at least 0"),
        ({"pad_multiple": 0}, "pad_multiple must be at least 1"),
        ({"pad_id": 2**31}, "pad_id must be at most 2147483647"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"tokens_max": 2**70}, "tokens_max must be at most"),
        ({"truncation": 256}, "256 is not a valid TruncationStrategy"),
        ({"truncation": "longest_first"}, "'longest_first' is not a valid TruncationStrategy"),
    ],
)
def test_options_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncodeOptions(**settings)


def test_options_do_not_change_with_use() -> None:
    options = EncodeOptions(tokens_max=5)
    wanted = rows_of(native().encode(["e ! a"], options=options))
    assert options == EncodeOptions(tokens_max=5)
    for copied in (copy.deepcopy(options), pickle.loads(pickle.dumps(options))):
        assert copied == options
        assert rows_of(native().encode(["e ! a"], options=copied)) == wanted
    assert "compiled" not in repr(options)
    with pytest.raises(FrozenInstanceError):
        options.tokens_max = 6  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


@both
def test_the_vocabulary_can_be_read(make: Callable[[], AnyTokenizer]) -> None:
    tokenizer = make()
    assert tokenizer.vocab_size == 13
    assert tokenizer.token(9) == "中"
    assert tokenizer.token_id("中") == 9
    assert tokenizer.token_id("missing") is None
    assert (tokenizer.special_tokens_count(False), tokenizer.special_tokens_count(True)) == (2, 3)
    assert tokenizer.pad_id == 0
    assert tokenizer.path_name
    for token_id in (-1, 13, 2**40):
        with pytest.raises(ValueError, match=f"there is no token with id {token_id}"):
            tokenizer.token(token_id)


def test_blobs_are_read_where_they_lie(tmp_path: Path) -> None:
    blob = compile_tokenizer(spec())
    path = tmp_path / "tokenizer.blob"
    path.write_bytes(blob)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    buffers: list[Any] = [mapped, memoryview(b"x" + blob)[1:], np.fromfile(path, np.uint8), bytearray(blob)]
    tokenizers = [Tokenizer(buffer) for buffer in buffers]
    buffers.clear()
    wanted = [[CLS, 4, 5, 6, 8, SEP]]
    assert all(rows_of(tokenizer.encode("unaffable!")) == wanted for tokenizer in tokenizers)
    with pytest.raises(BufferError):
        mapped.close()
    tokenizers.clear()
    gc.collect()
    mapped.close()


def test_broken_blobs_and_limits_are_refused() -> None:
    blob = compile_tokenizer(spec())
    for broken in (b"", blob[:100], b"x" * 200):
        with pytest.raises(ValueError, match="the compiled tokenizer is broken"):
            Tokenizer(broken)
    for threads_max in (0, -1, 4097, 2**62, 2**70):
        with pytest.raises(ValueError, match="threads_max must be from 1 to 4096, not"):
            Tokenizer(blob, threads_max=threads_max)
    for cache_bytes in (-1, 2**30 + 1, 2**62, 2**70):
        with pytest.raises(ValueError, match="cache_bytes must be from 0 to 1073741824, not"):
            Tokenizer(blob, cache_bytes=cache_bytes)
    assert Tokenizer(blob, threads_max=4096, cache_bytes=2**30).encode("e").rows == 1
    for threads in (0, 2**31, 2**62):
        with pytest.raises(ValueError, match="threads must be at"):
            EncodeOptions(threads=threads)


def many_texts(count: int, seed: int = 5) -> list[str | bytes]:
    rng = random.Random(seed)
    parts = ["unaffable", "e", "!", "中", " ", "[SEP]", "é", "a", "x" * 30]
    texts: list[str | bytes] = []
    for _ in range(count):
        text = " ".join(rng.choices(parts, k=rng.randint(0, 60)))
        texts.append(text if rng.random() < 0.5 else text.encode()[: rng.randint(0, 500)])
    return texts


@pytest.mark.parametrize("settings", [{}, {"tokens_max": 20}, {"tokens_max": 9, "return_overflow": True}])
def test_threads_change_no_result(settings: dict[str, Any]) -> None:
    texts = many_texts(3000)
    pairs: list[str | bytes | None] = [None if i % 3 else text for i, text in enumerate(texts[::-1])]
    extras: dict[str, Any] = {"return_offsets": True, "return_word_ids": True, "stride": 1}
    one = native().encode(texts, pairs, EncodeOptions(**settings, **extras))
    for threads in (2, 3, 16):
        options = EncodeOptions(**settings, **extras, threads=threads)
        assert_same(native().encode(texts, pairs, options), one)
    assert_same(
        twin().encode(texts[:100], pairs[:100], EncodeOptions(**settings, **extras)),
        native().encode(texts[:100], pairs[:100], EncodeOptions(**settings, **extras)),
    )


def test_threads_report_the_first_text_that_fails() -> None:
    texts = many_texts(2000) + ["e e e e"] * 2 + many_texts(500)
    settings: dict[str, Any] = {"tokens_max": 2000, "truncation": TruncationStrategy.ONLY_SECOND}
    long = [text if i not in (1500, 2300) else "e " * 3000 for i, text in enumerate(texts)]
    with pytest.raises(ValueError, match="text 1500 "):
        native().encode(long, options=EncodeOptions(**settings, threads=3))


def test_callers_share_a_tokenizer_with_fewer_contexts_than_threads() -> None:
    tokenizer = Tokenizer(compile_tokenizer(spec()), threads_max=2)
    texts = many_texts(300)
    wanted = tokenizer.encode(texts)
    options = EncodeOptions(threads=2)

    def call(index: int) -> bool:
        if index % 2:
            return bool(np.array_equal(tokenizer.encode(texts, options=options).ids, wanted.ids))
        ids = np.zeros(8, np.int32)
        return tokenizer.encode_into("unaffable", ids) == 5

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(200)))


def test_texts_may_call_the_tokenizer_that_reads_them() -> None:
    tokenizer = Tokenizer(compile_tokenizer(spec()), threads_max=1)

    class Nested(list[str | bytes]):
        def __iter__(self) -> Iterator[str | bytes]:
            assert tokenizer.encode("e").rows == 1
            return super().__iter__()

    assert tokenizer.encode(Nested(["e", "a"])).rows == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: ["e " * 2_000_000, "e"],
        lambda: ["e" * 8_000_000, "e"],
        lambda: ["e"] * 2_000_000,
    ],
    ids=["many words", "one word", "many rows"],
)
def test_large_batches_leave_a_small_tokenizer_behind(make: Callable[[], list[str]]) -> None:
    tokenizer = Tokenizer(compile_tokenizer(spec()), threads_max=1)
    tokenizer.encode(["e"], options=ALL)
    before = resident_bytes()
    for _ in range(2):
        texts = make()
        assert tokenizer.encode(texts).rows == len(texts)
        assert tokenizer.encode(texts, options=ALL).rows == len(texts)
        del texts
    assert resident_bytes() - before < 16 << 20


def test_many_empty_rows_do_not_hold_the_interpreter_lock() -> None:
    """Another thread goes on meanwhile, as the loop of a server must."""
    tokenizer, texts = native(), [""] * 1_000_000
    ends = threading.Event()
    steps: list[float] = []

    def tick() -> None:
        while not ends.is_set():
            steps.append(time.perf_counter())

    ticker = threading.Thread(target=tick)
    ticker.start()
    begin = time.perf_counter()
    tokenizer.encode(texts, options=EncodeOptions(tokens_max=2, add_special_tokens=False))
    end = time.perf_counter()
    ends.set()
    ticker.join()
    assert sum(begin < step < end for step in steps) > 10


def resident_bytes() -> int:
    """What is left when the allocator has given back all that it can."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_lists_may_change_while_they_are_encoded() -> None:
    wanted = rows_of(native().encode(many_texts(2000)))
    texts = many_texts(2000)
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            texts[:] = [b"%d" % i for i in range(2000)]
            texts[:] = many_texts(2000)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(20):
            rows = native().encode(texts)
            assert rows.rows in (0, 2000)
    finally:
        stop.set()
        thread.join()
    assert rows_of(native().encode(many_texts(2000))) == wanted


def test_a_forked_child_can_encode() -> None:
    texts = many_texts(2000)
    options = EncodeOptions(threads=3)
    wanted = native().encode(texts, options=options)
    child = os.fork()
    if child == 0:
        same = np.array_equal(native().encode(texts, options=options).ids, wanted.ids)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
