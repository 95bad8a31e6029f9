"""What the tokenizer promises beside parity: errors, buffers, threads, and time bounded by the input."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

import penstock_kernels._wordpiece as native
from penstock_kernels import (
    AddedToken,
    IndexArray,
    Slot,
    TemplatePiece,
    TokenRows,
    WordPieceSpec,
    reference,
)
from tests.support.token_oracle import unpack
from tests.support.token_texts import varied_texts

VOCABULARY = {
    token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "!"])
}
SPEC = WordPieceSpec(
    vocabulary=VOCABULARY,
    unknown_id=1,
    added_tokens=(AddedToken("[SEP]", 3),),
    single=(
        TemplatePiece(Slot.SPECIAL, token_id=2),
        TemplatePiece(Slot.FIRST),
        TemplatePiece(Slot.SPECIAL, token_id=3),
    ),
)
Kernel = native.WordPieceTokenizer | reference.WordPieceTokenizer


@pytest.fixture(params=[native.WordPieceTokenizer, reference.WordPieceTokenizer], ids=["native", "reference"])
def make(request: pytest.FixtureRequest) -> Callable[[WordPieceSpec], Kernel]:
    kernel: Callable[[WordPieceSpec], Kernel] = request.param
    return kernel


def test_arrays_have_the_promised_types_and_are_read_only(make: Callable[[WordPieceSpec], Kernel]) -> None:
    rows = make(SPEC).encode(["a b", ""], return_offsets=True)
    assert rows.offsets is not None
    arrays = (rows.ids, rows.type_ids, rows.starts, rows.truncated, rows.valid, rows.offsets)
    assert [array.dtype.name for array in arrays] == ["int32", "uint8", "int64", "bool", "bool", "int32"]
    assert not any(array.flags.writeable for array in arrays)
    assert all(array.flags.c_contiguous for array in arrays)
    assert rows.offsets.shape == (6, 2)
    assert rows.lengths.tolist() == [4, 2]
    assert rows.rows == 2


def test_no_texts_make_no_rows(make: Callable[[WordPieceSpec], Kernel]) -> None:
    rows = make(SPEC).encode([], [], return_offsets=True)
    assert (rows.rows, len(rows.ids), rows.starts.tolist()) == (0, 0, [0])


def test_bytes_that_are_not_utf8_make_an_empty_invalid_row(make: Callable[[WordPieceSpec], Kernel]) -> None:
    rows = make(SPEC).encode([b"a", b"\xff", "b"], ["a", "a", b"\xc3"])
    assert rows.valid.tolist() == [True, False, False]
    assert rows.lengths.tolist() == [2, 0, 0]
    assert rows.truncated.tolist() == [False, False, False]


def test_truncated_says_whether_tokens_were_cut(make: Callable[[WordPieceSpec], Kernel]) -> None:
    tokenizer = make(SPEC)
    for left in (False, True):
        rows = tokenizer.encode(["a b", "a b a", "a" * 100_000], tokens_max=4, truncate_left=left)
        assert rows.truncated.tolist() == [False, True, False]
        assert rows.lengths.tolist() == [4, 4, 3]


def test_a_limit_of_exactly_the_special_tokens_leaves_only_them(
    make: Callable[[WordPieceSpec], Kernel],
) -> None:
    rows = make(SPEC).encode(["a", ""], tokens_max=2)
    assert rows.ids.tolist() == [2, 3, 2, 3]
    assert rows.truncated.tolist() == [True, False]


@pytest.mark.parametrize(
    ("tokens_max", "message"),
    [
        (1, r"tokens_max is 1, below the special tokens.*\(2 for a text, 0 for a pair\)"),
        (0, "at least 1"),
        (-5, "at least 1"),
    ],
)
def test_a_limit_without_room_is_refused(
    make: Callable[[WordPieceSpec], Kernel], tokens_max: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(SPEC).encode(["a"], tokens_max=tokens_max)


def test_lone_surrogates_are_refused(make: Callable[[WordPieceSpec], Kernel]) -> None:
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        make(SPEC).encode(["a", "\ud800"])


def test_one_text_instead_of_a_list_is_refused(make: Callable[[WordPieceSpec], Kernel]) -> None:
    with pytest.raises(TypeError, match="sequences of texts"):
        make(SPEC).encode("a b")
    with pytest.raises(TypeError, match="sequences of texts"):
        make(SPEC).encode(["a b"], "a")


def test_other_objects_are_refused(make: Callable[[WordPieceSpec], Kernel]) -> None:
    with pytest.raises(TypeError, match="str or bytes, not int"):
        make(SPEC).encode([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def test_pairs_of_another_number_are_refused(make: Callable[[WordPieceSpec], Kernel]) -> None:
    with pytest.raises(ValueError, match="there are 2 texts but 1 pairs"):
        make(SPEC).encode(["a", "b"], ["a"])


def test_negative_ids_are_refused(make: Callable[[WordPieceSpec], Kernel]) -> None:
    with pytest.raises(ValueError, match="'a' has the negative id -4"):
        make(WordPieceSpec(vocabulary={"a": -4}, unknown_id=0))


@pytest.mark.parametrize("contents", [["foo", "FOO"], ["\u00ad"]])
def test_added_tokens_that_normalise_to_the_same_are_refused(
    make: Callable[[WordPieceSpec], Kernel], contents: list[str]
) -> None:
    added = tuple(AddedToken(content, 10 + i, normalized=True) for i, content in enumerate(contents))
    with pytest.raises(ValueError, match="empty or the same as another once normalised"):
        make(WordPieceSpec(vocabulary=VOCABULARY, unknown_id=1, added_tokens=added))


def test_tokens_are_known_by_id(make: Callable[[WordPieceSpec], Kernel]) -> None:
    tokenizer = make(SPEC)
    assert tokenizer.token(6) == "##a"
    assert tokenizer.vocab_size == len(VOCABULARY)
    assert (tokenizer.special_tokens_count(False), tokenizer.special_tokens_count(True)) == (2, 0)
    with pytest.raises(ValueError, match="no token with id 99"):
        tokenizer.token(99)


def arrow(texts: list[bytes], width: int) -> tuple[NDArray[np.uint8], IndexArray]:
    ends = np.cumsum([0, *map(len, texts)])
    offsets: IndexArray = ends.astype(np.int32) if width == 32 else ends.astype(np.int64)
    return np.frombuffer(b"".join(texts), np.uint8), offsets


@pytest.mark.parametrize("width", [32, 64])
def test_arrow_columns_encode_like_lists(make: Callable[[WordPieceSpec], Kernel], width: int) -> None:
    texts = [text.encode() for text in varied_texts(300, seed=31)] + [b"\xff", b""]
    data, offsets = arrow(texts, width)
    pair_data, pair_offsets = arrow(texts[::-1], width)
    tokenizer = make(SPEC)
    rows = tokenizer.encode_arrow(
        data, offsets, pair_data=pair_data, pair_offsets=pair_offsets, tokens_max=20, return_offsets=True
    )
    assert unpack(rows) == unpack(tokenizer.encode(texts, texts[::-1], tokens_max=20, return_offsets=True))
    assert unpack(tokenizer.encode_arrow(data, offsets)) == unpack(tokenizer.encode(texts))


def test_an_arrow_column_may_be_sliced_and_empty(make: Callable[[WordPieceSpec], Kernel]) -> None:
    tokenizer = make(SPEC)
    sliced = tokenizer.encode_arrow(b"xxa bxx", np.array([2, 3, 5], np.int32))
    assert sliced.ids.tolist() == [2, 4, 3, 2, 5, 3]
    assert tokenizer.encode_arrow(b"", np.array([0, 0], np.int64)).ids.tolist() == [2, 3]
    assert tokenizer.encode_arrow(b"", np.array([0], np.int64)).rows == 0


@pytest.mark.parametrize("offsets", [[0, 9], [-1, 2], [2, 1], []])
def test_arrow_offsets_outside_the_data_are_refused(
    make: Callable[[WordPieceSpec], Kernel], offsets: list[int]
) -> None:
    with pytest.raises(ValueError, match="offsets"):
        make(SPEC).encode_arrow(b"abc", np.array(offsets, np.int64))


def test_arrow_pairs_must_come_with_offsets(make: Callable[[WordPieceSpec], Kernel]) -> None:
    with pytest.raises(ValueError, match="belong together"):
        make(SPEC).encode_arrow(b"a", np.array([0, 1]), pair_data=b"a")


def test_threads_share_a_tokenizer() -> None:
    tokenizer = native.WordPieceTokenizer(SPEC)
    texts = varied_texts(2_000, seed=32)
    alone = tokenizer.encode(texts, return_offsets=True)

    def encode(_: int) -> TokenRows:
        return tokenizer.encode(texts, return_offsets=True)

    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(encode, range(16)):
            np.testing.assert_array_equal(rows.ids, alone.ids)
            np.testing.assert_array_equal(rows.offsets, alone.offsets)


ADVERSARIAL = {
    "one word": "a",
    "spaces": " ",
    "marks": "\u0301\u0323",
    "unordered marks": "\u0345\u0323\u0301\u0334",
    "almost special": "[SE",
    "brackets": "[",
    "special": "[SEP]",
    "stripped spaces": " \u00a0",
    "stripped": "[S] ",
    "punctuation": "!",
    "ideographs": "\u4e2d",
    "syllables": "\uac01",
    "deleted": "\u200b",
    "NUL": "\x00",
    "unknown": "a? ",
}
ADVERSARIAL_SPEC = WordPieceSpec(
    vocabulary=VOCABULARY | {"a" * 50: 50, "##" + "a" * 50 + "b": 51},
    unknown_id=1,
    added_tokens=(
        AddedToken("[SEP]", 3),
        AddedToken("[S]", 60, lstrip=True, rstrip=True),
        AddedToken("\u00a0", 61, lstrip=True, rstrip=True),
        AddedToken("[N]", 62, normalized=True, rstrip=True),
    ),
    word_chars_max=10**9,
)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_time_grows_no_faster_than_the_text(name: str) -> None:
    tokenizer = native.WordPieceTokenizer(ADVERSARIAL_SPEC)

    def seconds(characters: int) -> float:
        unit = ADVERSARIAL[name]
        text = unit * (characters // len(unit))
        times: list[float] = []
        for _ in range(3):
            start = time.process_time()
            tokenizer.encode([text], return_offsets=True)
            times.append(time.process_time() - start)
        return min(times)

    # Ten times linear would be 16 times; quadratic is 256 times. The floor is the clock's and a page fault's.
    assert seconds(1_000_000) <= max(160 * seconds(1_000_000 // 16), 0.05)


def test_cutting_at_the_right_stops_early() -> None:
    tokenizer = native.WordPieceTokenizer(SPEC)
    text = "a " * 2_000_000

    def seconds(tokens_max: int | None) -> float:
        start = time.process_time()
        tokenizer.encode([text], tokens_max=tokens_max)
        return time.process_time() - start

    assert min(seconds(128) for _ in range(3)) < min(seconds(None) for _ in range(3)) / 10


def test_buffers_cannot_be_resized_while_they_are_encoded() -> None:
    """Another thread that did so would free memory under the kernel, which runs without the GIL."""
    data = bytearray(b"a b " * 1_500_000)
    offsets = np.array([0, len(data)], np.int64)
    refused: list[BufferError] = []
    done = threading.Event()

    def resize_until_refused() -> None:
        while not done.is_set() and not refused:
            try:
                data.append(0)
                data.pop()
            except BufferError as err:
                refused.append(err)

    thread = threading.Thread(target=resize_until_refused)
    thread.start()
    rows = native.WordPieceTokenizer(SPEC).encode_arrow(data, offsets, add_special_tokens=False)
    done.set()
    thread.join()
    assert refused
    assert rows.lengths.tolist() == [3_000_000]
