"""Grapheme clusters end where the reference's Precompiled normaliser has them end."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tokenizers import normalizers

from penstock_kernels import reference_unicode as unicode
from penstock_kernels.reference_unicode import Grapheme
from tests.support import native_normalizers
from tools import unicode_graphemes

OTHERS = list("abc\u00e9\u4e2d\U00020000")
FIRST_REPLACEMENT = 0x4E00
CLUSTER_BYTES_MAX = 5


def characters(rng: random.Random, of_each_class: int) -> list[str]:
    """Some of each class; short ones several times, since only short clusters show."""
    by_class = {grapheme: OTHERS if grapheme is Grapheme.OTHER else [] for grapheme in Grapheme}
    for c, grapheme in unicode.GRAPHEMES.items():
        # A charsmap is never searched beyond NUL.
        by_class[grapheme] += [c] if c != "\0" else []
    chosen = [c for cs in by_class.values() for c in rng.sample(cs, min(len(cs), of_each_class))]
    return chosen + list("\u0301\u0600\u00a9\u0903aa") * 6


def replaced(text: str, replacements: dict[str, str]) -> str:
    """Precompiled with a charsmap of single characters."""
    out = ""
    for cluster in unicode.graphemes(text):
        whole = len(cluster.encode()) <= CLUSTER_BYTES_MAX
        out += replacements[cluster[0]] if whole else "".join(replacements[c] for c in cluster)
    return out


def precompiled(replacements: dict[str, str]) -> Callable[[str], str]:
    return normalizers.Precompiled(unicode_graphemes.charsmap(replacements)).normalize_str


@pytest.mark.parametrize("seed", range(41, 45))
def test_clusters_end_where_they_end_for_the_reference(seed: int) -> None:
    rng = random.Random(seed)
    chosen = characters(rng, of_each_class=8)
    replacements = {c: chr(FIRST_REPLACEMENT + index) for index, c in enumerate(sorted(set(chosen)))}
    expected = precompiled(replacements)
    for _ in range(5_000):
        text = "".join(rng.choices(chosen, k=rng.randint(1, 10)))
        assert replaced(text, replacements) == expected(text), ascii(text)


def test_native_clusters_equal_their_twins() -> None:
    rng = random.Random(45)
    chosen = characters(rng, of_each_class=100)
    texts = ["".join(rng.choices(chosen, k=rng.randint(0, 12))) for _ in range(20_000)]
    assert native_normalizers.graphemes(texts) == [unicode.graphemes(text) for text in texts]


@pytest.mark.parametrize(
    "clusters",
    [
        ["a", "e\u0301\u0323", "\r\n", "\n", "\u0301"],
        ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7", "\U0001f1e9"],
        ["\U0001f468\U0001f3fd\u200d\U0001f467", "a\u200d", "\U0001f467"],
        ["\u0915\u094d\u200d\u0937\u093f", "\u0915\u0301", "\u0937"],
        ["\u1100\u1161\u11a8", "\uac00\u11a8", "\uac01", "\u1161", "\u0600\u0600a"],
    ],
)
def test_clusters_follow_the_standard(clusters: list[str]) -> None:
    assert unicode.graphemes("".join(clusters)) == clusters
    assert native_normalizers.graphemes(["".join(clusters)]) == [clusters]
