"""Compiled tokenizers for the fuzz target: ``python -m tests.support.fuzz_blobs FOLDER``.

Small vocabularies with every kind of stage and odd added tokens, so that random text reaches every branch.
"""

from __future__ import annotations

import sys
from pathlib import Path

from penstock_kernels import spec
from penstock_kernels.blob import compile_tokenizer
from penstock_kernels.reference_byte_level import BYTE_CHARACTERS
from tests.support.charsmaps import charsmap

ADDED = (
    spec.AddedToken("[S]", 20, rstrip=True, lstrip=True, special=True),
    spec.AddedToken("[SS", 21, single_word=True),
    spec.AddedToken(" [", 22, rstrip=True),
    spec.AddedToken("Ab b", 23, lstrip=True, normalized=True),
    spec.AddedToken("\u00c9", 24, single_word=True, rstrip=True, normalized=True),
)
SINGLE = (
    spec.TemplatePiece(spec.Slot.SPECIAL, token_id=25),
    spec.TemplatePiece(spec.Slot.FIRST),
    spec.TemplatePiece(spec.Slot.SPECIAL, token_id=26),
)
PAIR = (*SINGLE, spec.TemplatePiece(spec.Slot.SECOND, 1), spec.TemplatePiece(spec.Slot.SPECIAL, 1, 26))
WORDS = ("[U]", "a", "b", "##a", "##b", "ab", "##ab", "\u4e2d", "!", "##\u0307", "i", "\u1100", "##\u1161")

# Deletes, shortens, lengthens, makes spaces, and replaces a whole cluster and what begins one.
CHARSMAP = spec.Precompiled(
    charsmap(
        {
            "\n": " ", "\r": " ", "\r\n": " ", "\u00a0": " ", "\u200b": "", "\u0130": "i", "\u00c9": "ab",
            "e\u0301": "a", "\u0323": "", "\u4e2d": "a b", "\uac01": "\u1100\u1161", "\U0001d15e": "\u4e2d",
        }
    )
)  # fmt: skip


def wordpiece(normalizer: spec.BertNormalizer | None, added: bool = True) -> spec.TokenizerSpec:
    """BERT with one of its normalisers."""
    return spec.TokenizerSpec(
        model=spec.WordPiece({word: index for index, word in enumerate(WORDS)}, 0, word_chars_max=20),
        normalizers=() if normalizer is None else (normalizer,),
        pre_tokenizers=(spec.BertPreTokenizer(),),
        added_tokens=ADDED if added else ADDED[:3],
        single=SINGLE,
        pair=PAIR,
    )


def byte_level(*normalizers: spec.Normalizer, prefix: bool, added: bool = True) -> spec.TokenizerSpec:
    """GPT-2's chain over a handful of merges."""
    merges = (
        ("a", "b"),
        ("ab", "ab"),
        ("\u0120", "a"),
        ("\u0120a", "b"),
        ("\u00c3", "\u012b"),
        ("\u0120", "\u0120"),
    )
    tokens = [*BYTE_CHARACTERS, *dict.fromkeys(left + right for left, right in merges)]
    shifted = tuple(
        spec.AddedToken(t.content, t.id + 300, t.single_word, t.lstrip, t.rstrip, t.normalized, t.special)
        for t in (ADDED if added else ADDED[:3])
    )
    return spec.TokenizerSpec(
        model=spec.Bpe({token: index for index, token in enumerate(tokens)}, merges),
        normalizers=normalizers,
        pre_tokenizers=(spec.ByteLevel(add_prefix_space=prefix),),
        added_tokens=shifted,
        single=SINGLE,
        pair=PAIR,
        trim=spec.TrimOffsets(add_prefix_space=prefix),
        retypes_overflow=True,
    )


def unigram(*stages: spec.Normalizer | spec.PreTokenizer, added: bool = True) -> spec.TokenizerSpec:
    """A SentencePiece chain."""
    pieces = (
        ("[U]", 0.0), ("\u2581", -2.0), ("\u2581a", -1.5), ("a", -2.5), ("b", -2.5), ("ab", -3.0),
        ("\u2581ab", -4.0), ("\u4e2d", -5.0), ("!", -3.0), ("\u2581b", -3.5), ("aba", -6.0), ("i", -4.0),
        ("\u2581\u2581", -7.0),
    )  # fmt: skip
    pre = (spec.WhitespaceSplit, spec.Metaspace, spec.Punctuation)
    return spec.TokenizerSpec(
        model=spec.Unigram(pieces, 0),
        normalizers=tuple(stage for stage in stages if not isinstance(stage, pre)),  # type: ignore[misc]
        pre_tokenizers=tuple(stage for stage in stages if isinstance(stage, pre)),
        added_tokens=ADDED if added else ADDED[:3],
        single=SINGLE,
        pair=PAIR,
    )


def subjects() -> dict[str, spec.TokenizerSpec]:
    """All of them by name."""
    flags = (False, True)
    found = {
        f"bert-{c:d}{h:d}{s:d}{low:d}": wordpiece(spec.BertNormalizer(c, h, s, low), added=c != s)
        for c in flags
        for h in flags
        for s in flags
        for low in flags
    }
    albert = (spec.UnicodeForm(spec.Form.NFKD), spec.StripAccents(), spec.Lowercase())
    return found | {
        "bert-none": wordpiece(None),
        "gpt2": byte_level(prefix=False),
        "roberta": byte_level(prefix=True, added=False),
        "modernbert": byte_level(spec.UnicodeForm(spec.Form.NFC), prefix=False),
        "xlnet": unigram(spec.WhitespaceSplit(), spec.Metaspace()),
        "deberta": unigram(spec.Strip(), spec.ReplaceSpaceRuns(" "), spec.Metaspace(), added=False),
        "t5": unigram(spec.Strip(left=False), spec.ReplaceSpaceRuns("\u2581"), spec.Metaspace()),
        "first": unigram(spec.Metaspace(scheme=spec.PrependScheme.FIRST), added=False),
        "albert": unigram(*albert, spec.Metaspace()),
        "charsmap": unigram(CHARSMAP, spec.ReplaceSpaceRuns(" "), spec.Metaspace(), added=False),
        "charsmap-general": unigram(CHARSMAP, spec.Metaspace()),
        "charsmap-split": unigram(CHARSMAP, spec.WhitespaceSplit(), spec.Metaspace(), added=False),
        "charsmap-strip": unigram(CHARSMAP, spec.Strip(left=False), spec.Metaspace(), added=False),
        "unsplit": unigram(spec.Metaspace(split=False), added=False),
    }  # fmt: skip


def write(folder: Path) -> None:
    """Compiles all of them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, subject in subjects().items():
        (folder / f"{name}.blob").write_bytes(compile_tokenizer(subject))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
