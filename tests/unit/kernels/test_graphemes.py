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


# Of few bytes: only short clusters show.
SHORT = list("\u0301\u0600\u00a9\u0903aa")


def classes() -> list[list[str]]:
    """The characters of each class; a charsmap is never searched beyond NUL, which is left out."""
    by_class: dict[Grapheme, list[str]] = {}
    for c, grapheme in unicode.GRAPHEMES.items():
        if c != "\0":
            by_class.setdefault(grapheme, []).append(c)
    return [OTHERS, *by_class.values()]


def cluster_texts(rng: random.Random, pools: list[list[str]], count: int) -> list[str]:
    """Texts of a few classes each, so that rare ones meet."""
    chosen = (rng.sample(pools, 4) for _ in range(count))
    return ["".join(rng.choice(rng.choice(few)) for _ in range(rng.randint(1, 10))) for few in chosen]


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
    chosen = [rng.sample(pool, min(len(pool), 8)) for pool in classes()] + [SHORT] * 6
    alphabet = sorted({c for pool in chosen for c in pool})
    replacements = {c: chr(FIRST_REPLACEMENT + index) for index, c in enumerate(alphabet)}
    expected = precompiled(replacements)
    for text in cluster_texts(rng, chosen, 5_000):
        assert replaced(text, replacements) == expected(text), ascii(text)


def test_native_clusters_equal_their_twins() -> None:
    texts = cluster_texts(random.Random(45), classes(), 20_000)
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
