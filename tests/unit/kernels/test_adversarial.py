"""Hostile texts cost no more than others, and long ones stop where they may."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from penstock_kernels import EncodeOptions, Tokenizer, spec
from penstock_kernels.blob import compile_tokenizer
from penstock_kernels.reference_byte_level import BYTE_CHARACTERS
from tests.support import fuzz_blobs

SUBJECTS = ("bert-1111", "bert-0000", "gpt2", "modernbert", "deberta", "xlnet", "albert", "unsplit")
UNITS = {
    "one word": "a",
    "words": "ab ",
    "spaces": " ",
    "new lines": "\n",
    "marks": "\u0301\u0323",
    "unordered marks": "\u0345\u0323\u0301\u0334",
    "almost special": "[S",
    "brackets": "[",
    "special": "[S]",
    "stripped": "[S] ",
    "stripped spaces": " [ \u00a0",
    "punctuation": "!",
    "ideographs": "\u4e2d",
    "syllables": "\uac01",
    "joined emoji": "\U0001f469\u200d",
    "deleted": "\u200b",
    "NUL": "\x00",
    "unknown": "a? ",
    "apostrophes": "'",
    "digits": "1",
}


@pytest.fixture(scope="module", params=SUBJECTS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(compile_tokenizer(fuzz_blobs.subjects()[request.param]))


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("with_offsets", [False, True])
def test_time_grows_no_faster_than_the_text(tokenizer: Tokenizer, name: str, with_offsets: bool) -> None:
    options = EncodeOptions(return_offsets=with_offsets)

    def seconds(characters: int) -> float:
        unit = UNITS[name]
        text = unit * (characters // len(unit))
        times: list[float] = []
        for _ in range(3):
            start = time.thread_time()
            tokenizer.encode([text], None, options)
            times.append(time.thread_time() - start)
        return min(times)

    # Eight times linear is 128 times, quadratic 256. The floor is the clock's and a page fault's.
    assert seconds(320_000) <= max(128 * seconds(320_000 // 16), 0.05)


# Tokens that overlap, as they strip spaces that are tokens themselves, and a text to repeat behind "[S]".
OVERLAPPING = {
    "all strip": ((spec.AddedToken("[S]", 400, rstrip=True), spec.AddedToken(" ", 401, rstrip=True)), " "),
    "every second strips": ((spec.AddedToken("\t", 400, rstrip=True), spec.AddedToken(" ", 401)), "\t "),
    "on both sides": (
        (spec.AddedToken("\t", 400, lstrip=True, rstrip=True), spec.AddedToken(" ", 401, lstrip=True)),
        "\t ",
    ),
}


@pytest.mark.parametrize("name", ["bert-1111", "roberta", "modernbert"])
@pytest.mark.parametrize("overlap", OVERLAPPING)
@pytest.mark.parametrize("normalized", [False, True])
def test_spaces_that_are_tokens_and_stripped_cost_linear_time(
    name: str, overlap: str, normalized: bool
) -> None:
    tokens, unit = OVERLAPPING[overlap]
    added = tuple(replace(token, normalized=normalized) for token in tokens)
    if name == "bert-1111" and normalized and "\t" in unit:
        pytest.skip("both tokens are the same once normalised")
    tokenizer = Tokenizer(compile_tokenizer(replace(fuzz_blobs.subjects()[name], added_tokens=added)))

    def seconds(units: int) -> float:
        start = time.thread_time()
        tokenizer.encode(["[S]" + unit * units], None, EncodeOptions(return_offsets=True))
        return time.thread_time() - start

    assert min(seconds(80_000) for _ in range(3)) <= max(128 * min(seconds(5_000) for _ in range(3)), 0.05)


def test_cutting_at_the_right_stops_early(tokenizer: Tokenizer) -> None:
    text = "a b! " * 400_000

    def seconds(tokens_max: int | None) -> float:
        start = time.thread_time()
        tokenizer.encode([text], None, EncodeOptions(tokens_max=tokens_max))
        return time.thread_time() - start

    if tokenizer.path_name == "general":
        pytest.skip("the general way computes all of a piece")
    assert min(seconds(128) for _ in range(3)) < min(seconds(None) for _ in range(3)) / 5


def test_buffers_cannot_be_resized_while_they_are_encoded(tokenizer: Tokenizer) -> None:
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
    rows = tokenizer.encode_arrow(data, offsets)
    done.set()
    thread.join()
    assert refused
    assert rows.lengths[0] > 1_000_000


# What borders of stretches can be like: tokens across them, runs longer than them, parts of characters.
LONG_WORDS = ("a", "ab", "abc", "aab", "=", "=-", "\u4e2d\u6587", "\u00e9a", "\U0001f600")
REGULAR = (
    *(("a" * size, "a" * size) for size in (1, 2, 4, 8, 16, 32, 64, 128)),
    ("b", "a"),
    ("ba", "b"),
    ("aa", "bab"),
    ("c", "aabab"),
    *(("=" * size, "=") for size in range(1, 100)),
    ("-", "="),
)
# A token is made by two merges, and another by a merge that comes before those of its parts.
IRREGULAR = (("aab", "c"), ("a", "a"), ("b", "b"), ("aa", "b"), ("a", "ab"), ("a", "b"), ("c", "aab"))


@pytest.mark.parametrize("merges", [REGULAR, IRREGULAR], ids=["regular", "irregular"])
def test_long_words_are_merged_as_in_one_go(merges: tuple[tuple[str, str], ...]) -> None:
    tokens = dict.fromkeys([*BYTE_CHARACTERS, *(left + right for left, right in merges)])
    model = spec.Bpe({token: index for index, token in enumerate(tokens)}, merges)
    subject = replace(fuzz_blobs.subjects()["gpt2"], model=model, added_tokens=(), single=(), pair=())
    blob = compile_tokenizer(replace(subject, single=(spec.TemplatePiece(spec.Slot.FIRST),)))
    fast, general = Tokenizer(blob), Tokenizer(blob, with_fast_path=False)
    rng = random.Random(11)
    options = EncodeOptions(return_offsets=True)
    for size in (127, 128, 129, 130, 191, 192, 193, 700, 5_000):
        for letters in LONG_WORDS:
            text = "".join(rng.choices(letters, k=size))
            ours, theirs = fast.encode([text], None, options), general.encode([text], None, options)
            assert ours.ids.tolist() == theirs.ids.tolist(), (size, letters)
            assert ours.offsets is not None
            assert theirs.offsets is not None
            assert ours.offsets.tolist() == theirs.offsets.tolist(), (size, letters)


def test_many_added_tokens_cost_no_more_than_a_few() -> None:
    subject = fuzz_blobs.subjects()["albert"]
    few = tuple(spec.AddedToken(f"zz{index:04}", 400 + index, normalized=True) for index in range(2_000))
    words = " ".join(f"{index:x}" for index in range(40_000))

    def seconds(count: int) -> float:
        tokenizer = Tokenizer(compile_tokenizer(replace(subject, added_tokens=few[:count])))
        assert tokenizer.path_name == "unigram"
        times: list[float] = []
        for _ in range(3):
            start = time.thread_time()
            tokenizer.encode([words])
            times.append(time.thread_time() - start)
        return min(times)

    assert seconds(2_000) < 8 * seconds(2) + 0.01
