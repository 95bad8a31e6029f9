"""Looks for texts on which tokenizing is slow: ``python -m benchmarks.text.cliffs``.

One text of a megabyte of each kind goes through Penstock and through tokenizers, on the same core and one
after the other. Every round has a text of its own, so that words of it are in a cache only if texts of that
kind repeat themselves. A cliff is what is slower than tokenizers, slower than 5 MB/s, or takes more than
twice as long for twice the text.
"""

from __future__ import annotations

import base64
import json
import os
import random
import string
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from statistics import median

import click
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer as Reference

from benchmarks.machine import describe_machine
from penstock_kernels import EncodeOptions, Tokenizer
from penstock_kernels.blob import compile_tokenizer
from penstock_server.text.tokenizer_json import read_spec
from tests.support.corpus_files import code_chunks, english_passages
from tests.support.vocabularies import vocabulary

VOCABULARIES = (
    "bert-base-uncased",
    "bert-base-multilingual-cased",
    "gpt2",
    "roberta-base",
    "modernbert-shape",
    "xlm-roberta-ranked",
    "deberta-v3",
)
BYTES = 1_000_000
SLOW_MB_S = 5.0
# Twice the text may take this much more than twice the time, as larger buffers miss the processor's caches.
GROWTH_MAX = 1.3
_MEGA = 1e6
_ROUNDS = 3
_POOL = 3_000

Part = Callable[[random.Random], str]
PASSAGES = "English"


def _chosen(alphabet: Sequence[str], low: int, high: int | None = None) -> Part:
    """Some of the alphabet's characters or words, as many as lie between the bounds."""

    def part(rng: random.Random) -> str:
        return "".join(rng.choices(alphabet, k=rng.randint(low, high or low)))

    return part


def _spaced(part: Part) -> Part:
    return lambda rng: part(rng) + " "


def _range(first: int, last: int) -> list[str]:
    return [chr(c) for c in range(first, last + 1)]


@cache
def _passages() -> list[str]:
    return list(islice(english_passages(), _POOL))


@cache
def _sources() -> list[str]:
    return list(islice(code_chunks(), _POOL))


def _identifiers(rng: random.Random) -> str:
    words = rng.choices(rng.choice(_passages()).split(), k=3)
    name = "".join(word.title() for word in words)
    return f"{name[0].lower()}{name[1:]}_{words[0].upper()}{rng.randrange(100)}(); "


def _url(rng: random.Random) -> str:
    steps = "/".join(_chosen(_WORDLY, 3, 12)(rng) for _ in range(20))
    return f"https://{_chosen(_WORDLY, 8)(rng)}.example.org/{steps}?q={rng.randrange(10**9)}&x=%20#a\n"


def _added(tokens: Sequence[str]) -> Part:
    return lambda rng: rng.choice(tokens) + rng.choice(("", " ", "word ", " word"))


_LETTERS = string.ascii_lowercase
_WORDLY = string.ascii_letters + string.digits + "-_"
_HAN = _range(0x4E00, 0x9FA5)
_THAI = [*_range(0x0E01, 0x0E3A), *_range(0x0E40, 0x0E4E)]
_ARABIC = [*_range(0x0621, 0x063A), *_range(0x0641, 0x0652)]
_HEBREW = _range(0x05D0, 0x05EA)
_PEOPLE = ("\U0001f468", "\U0001f469", "\U0001f467", "\U0001f466", "\U0001f3fd", "\u2764\ufe0f")
_INDIC = [*_range(0x0915, 0x0939), *_range(0x093E, 0x094D)]
_ZERO_WIDTH = (" \u200b ", "\u200b", "\ufeff", "\u00ad")
_LATIN_MARKS = _range(0x0300, 0x036F)

PARTS: dict[str, Part] = {
    PASSAGES: lambda rng: rng.choice(_passages()) + "\n",
    "unique random words": _spaced(_chosen(_LETTERS, 3, 14)),
    "words sharing a prefix": lambda rng: "a" * rng.randint(20, 60) + _chosen(_LETTERS, 3)(rng) + " ",
    "no spaces": _chosen(_LETTERS, 100),
    "one letter": lambda _: "a" * 1_000,
    "digits": _chosen(string.digits, 100),
    "numbers": _spaced(_chosen(string.digits, 1, 12)),
    "punctuation": _chosen(string.punctuation, 100),
    "one mark of punctuation": lambda _: "=" * 1_000,
    "spaces": lambda _: " " * 1_000,
    "line feeds": lambda _: "\n" * 1_000,
    "CR LF": lambda _: "\r\n" * 500,
    "mixed white space": _chosen(" \t\r\n\u00a0\u3000", 100),
    "source code": lambda rng: rng.choice(_sources()),
    "mixed-case identifiers": _identifiers,
    "base64": lambda rng: base64.b64encode(rng.randbytes(999)).decode(),
    "long URLs": _url,
    "random bytes": lambda rng: rng.randbytes(1_000).decode(errors="replace"),
    "random code points": _chosen([*_range(0x20, 0xD7FF), *_range(0xE000, 0x1FFFF)], 100),
    "NUL and controls": _chosen(_range(0, 0x1F), 100),
    "Chinese": _chosen(_HAN, 100),
    "Chinese and ASCII in turn": lambda rng: rng.choice(_HAN) + rng.choice(_LETTERS),
    "Korean": _spaced(_chosen(_range(0xAC00, 0xD7A3), 1, 5)),
    "Thai": _chosen(_THAI, 100),
    "Devanagari": _spaced(_chosen(_INDIC, 2, 10)),
    "Arabic": _spaced(_chosen(_ARABIC, 2, 9)),
    "Hebrew": _spaced(_chosen(_HEBREW, 2, 9)),
    "emoji joined": lambda rng: "\u200d".join(rng.choices(_PEOPLE, k=rng.randint(1, 5))),
    "marks stacked": lambda rng: rng.choice(_LETTERS) + _chosen(_LATIN_MARKS, 1, 30)(rng),
    "marks without end": _chosen(_LATIN_MARKS, 100),
    "accents apart": lambda rng: _chosen(_LETTERS, 1, 6)(rng) + " " + rng.choice(_LATIN_MARKS) + " ",
    "zero-width": lambda rng: (
        _chosen(_LETTERS, 1, 6)(rng) + rng.choice((" \u200b ", "\u200b", "\ufeff", "\u00ad"))
    ),
    "full width": _spaced(_chosen(_range(0xFF01, 0xFF5E), 1, 8)),
}


def make_text(part: Part, size: int, seed: int) -> str:
    """A text of ``size`` bytes of UTF-8, or a few less."""
    rng = random.Random(seed)

    def parts() -> Iterator[bytes]:
        have = 0
        while have < size:
            made = part(rng).encode()
            have += len(made)
            yield made

    return b"".join(parts())[:size].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class Finding:
    """How fast a kind of text is, in MB of UTF-8 a second; ``growth`` is 1 where time is linear."""

    vocabulary: str
    text: str
    offsets: bool
    mb_s: float
    reference_mb_s: float
    growth: float
    to_english: float

    @property
    def is_cliff(self) -> bool:
        """Whether it is slower than tokenizers, slow at all, or not linear."""
        return self.mb_s < self.reference_mb_s or self.mb_s < SLOW_MB_S or self.growth > GROWTH_MAX


def _seconds(call: Callable[[str], object], texts: Sequence[str]) -> float:
    times: list[float] = []
    for text in texts:
        begin = time.process_time()
        call(text)
        times.append(time.process_time() - begin)
    return median(times)


def measure(name: str, wanted: Sequence[str], size: int, rounds: int) -> Iterator[Finding]:
    """Measures a vocabulary on English and on all texts that are wanted."""
    content = vocabulary(name).path().read_bytes()
    spec = read_spec(content)
    tokenizer = Tokenizer(compile_tokenizer(spec))
    reference = Reference.from_str(content.decode())
    added = tuple(token["content"] for token in json.loads(content)["added_tokens"])
    parts = PARTS | {"added tokens": _added(added)}
    for offsets in (False, True):
        options = EncodeOptions(return_offsets=offsets)
        english = 0.0
        for kind in dict.fromkeys((PASSAGES, *(kind for kind in parts if kind in wanted or not wanted))):
            texts = [make_text(parts[kind], size, seed) for seed in range(rounds + 1)]
            halves = [make_text(parts[kind], size // 2, seed) for seed in range(rounds + 1, 2 * rounds + 1)]
            megabytes = len(texts[0].encode()) / _MEGA

            def call(text: str, options: EncodeOptions = options) -> object:
                return tokenizer.encode([text], None, options)

            call(texts[0])
            half_s = _seconds(call, halves)
            whole_s = _seconds(call, texts[1:])
            theirs_s = _seconds(_reference_call(reference, offsets=offsets), texts[1:2])
            rate = megabytes / whole_s
            english = english or rate
            yield Finding(
                name, kind, offsets, rate, megabytes / theirs_s, whole_s / half_s / 2, rate / english
            )


def _reference_call(reference: Reference, *, offsets: bool) -> Callable[[str], object]:
    if offsets:
        return lambda text: reference.encode(text).offsets
    return lambda text: reference.encode(text).ids


def _print_table(findings: Sequence[Finding]) -> None:
    columns = ("tokenizer", "text", "offsets", "MB/s", "to English", "tokenizers", "ratio", "growth", "cliff")
    table = Table(*columns)
    for each in findings:
        table.add_row(
            each.vocabulary,
            each.text,
            "yes" if each.offsets else "",
            f"{each.mb_s:.1f}",
            f"{each.to_english:.2f}",
            f"{each.reference_mb_s:.2f}",
            f"{each.mb_s / each.reference_mb_s:.1f}",
            f"{each.growth:.2f}",
            "yes" if each.is_cliff else "",
        )
    Console(width=140).print(table)


@click.command(context_settings={"show_default": True})
@click.option("--vocabulary", "names", multiple=True, type=click.Choice(VOCABULARIES), help="Default: all.")
@click.option("--text", "wanted", multiple=True, help="Kinds of text by name. Default: all.")
@click.option("--bytes", "size", type=click.IntRange(1_000), default=BYTES, help="Size of each text.")
@click.option("--rounds", type=click.IntRange(1, 100), default=_ROUNDS, help="Texts of each kind.")
@click.option("--core", type=int, help="Core to run on.  [default: the last one]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(
    names: tuple[str, ...], wanted: tuple[str, ...], size: int, rounds: int, core: int | None, as_json: bool
) -> None:
    """Measure tokenizing of texts that are hard to tokenize."""
    unknown = set(wanted) - {*PARTS, "added tokens"}
    if unknown:
        raise click.BadParameter(f"no such text: {', '.join(sorted(unknown))}", param_hint="--text")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core is None else core})
    machine = describe_machine()
    findings: list[Finding] = []
    for name in names or VOCABULARIES:
        findings += measure(name, wanted, size, rounds)
    if as_json:
        figures = [asdict(each) | {"is_cliff": each.is_cliff} for each in findings]
        print(json.dumps({"machine": machine, "bytes": size, "findings": figures}, indent=2))
    else:
        _print_table(findings)


if __name__ == "__main__":
    main()
