"""Random sets of added tokens, tokenizers to put them in, and texts of nothing else but trouble for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

from penstock_kernels.options import TruncationStrategy
from penstock_kernels.reference_encode import ReferenceTokenizer
from tests.support import vocabulary_parts as parts
from tests.support.charsmaps import charsmap
from tests.support.token_parity import ParityCase, TokenizerPair, compare
from tests.support.vocabulary_parts import Json

TEXTS_OF_A_SET = 24
CASES_OF_A_SET = 5
# single_word, lstrip, rstrip, normalized
_FLAGS = tuple(product((False, True), repeat=4))

_ATOMS = (
    "a", "b", "ab", "c", "A", "Ab", "B", "é", "É", "e\u0301", "\u0301", "\u0323", "中", "İ", "ﬁ", "가",
    "ſ", "[M]", "<m>", "[", "]", "_", "1", "!", "'s", "Ġ", "Ġab", "▁", "▁a", "\u200b", "\u00ad",
    "\x00", "\U0001f600",
)  # fmt: skip
# Those that \s of regular expressions means, and some that it does not.
_SPACES = (
    *(" ", " ", "  ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u0085", "\u2028"),
    *("\u200b", "\x1c"),
)
_WORDS = ("ab", "abc", "Ab", "a", "b", "ba", "éa", "中a", "z", "cab", "!", "ab!", "_", "A", "ABC")

# Deletes, shortens, lengthens, makes spaces, and replaces a whole cluster and what begins one.
_CHARSMAP = charsmap(
    {
        "\n": " ", "\r": " ", "\t": " ", "\r\n": " ", "\u00a0": " ", "\u3000": " ", "\u200b": "", "İ": "i",
        "É": "ab", "e\u0301": "é", "\u0323": "", "中": "a b", "ﬁ": "fi", "[": "[[", "ſ": " s",
    }
)  # fmt: skip


_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_PIECES = ("▁", "a", "b", "▁a", "ab", "▁ab", "é", "中", "[", "M]", "i", "!", "A")


def _ids(tokens: Iterable[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(dict.fromkeys((*_SPECIALS, *tokens)))}


def _wordpiece() -> Json:
    letters = [*"abcefi1s!_'é中[]<>m", "\u0301", "가"]
    vocab = _ids([*letters, *("##" + c for c in letters), "ab", "##ab", "Ab", "<m>"])
    model: Json = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    return model | {"max_input_chars_per_word": 20, "vocab": vocab}


def _bpe() -> Json:
    merges = [["a", "b"], ["Ġ", "ab"], ["Ġ", "Ġ"], ["Ġ", "a"], ["ab", "ab"], ["ĠĠ", "ab"]]
    vocab = _ids([*parts.byte_characters(), *map("".join, merges)])
    return {"type": "BPE", "vocab": vocab, "merges": merges}


def _unigram() -> Json:
    vocab = [[piece, -0.5 * rank] for rank, piece in enumerate((*_SPECIALS, *_PIECES))]
    return {"type": "Unigram", "unk_id": 1, "vocab": vocab, "byte_fallback": False}


def _bert(**flags: bool | None) -> Json:
    plain: Json = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    return {"type": "BertNormalizer"} | plain | flags


_TEMPLATE = parts.template("[CLS] A [SEP]", "[CLS] A [SEP] B:1 [SEP]:1", {"[CLS]": 2, "[SEP]": 3})
_LOWER: Json = {"type": "Lowercase"}
_NFC: Json = {"type": "NFC"}
_NFKC: Json = {"type": "NFKC"}
_NFKD: Json = {"type": "NFKD"}
_STRIP: Json = {"type": "Strip", "strip_left": True, "strip_right": True}
_STRIP_RIGHT: Json = _STRIP | {"strip_left": False}
_SPACE_RUNS = parts.replace({"Regex": " {2,}"}, " ")
_MAP = parts.precompiled(_CHARSMAP)


def _roberta(add_prefix_space: bool) -> Json:
    sections: Json = {"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    return sections | {"trim_offsets": True, "add_prefix_space": add_prefix_space}


def _file(model: Json, normalizers: list[Json], pre_tokenizers: list[Json], post: Json = _TEMPLATE) -> Json:
    def chain(kind: str, steps: list[Json]) -> Json | None:
        return parts.sequence(kind, steps) if len(steps) > 1 else steps[0] if steps else None

    return parts.tokenizer_json(
        model,
        normalizer=chain("normalizers", normalizers),
        pre_tokenizer=chain("pretokenizers", pre_tokenizers),
        post_processor=post,
    )


_SPLIT: Json = {"type": "BertPreTokenizer"}
_SPACE_SPLIT: Json = {"type": "WhitespaceSplit"}
_BYTES = parts.byte_level_step()
_PREFIXED_BYTES = parts.byte_level_step(add_prefix_space=True)
_BYTES_AND_TEMPLATE: Json = {"type": "Sequence", "processors": [_BYTES, _TEMPLATE]}

BASES: dict[str, Callable[[], Json]] = {
    "bert uncased": lambda: _file(_wordpiece(), [_bert()], [_SPLIT]),
    "bert cased": lambda: _file(_wordpiece(), [_bert(lowercase=False)], [_SPLIT]),
    "bert raw": lambda: _file(
        _wordpiece(), [_bert(clean_text=False, handle_chinese_chars=False, lowercase=False)], [_SPLIT]
    ),
    "bert accents": lambda: _file(_wordpiece(), [_bert(strip_accents=False)], [_SPLIT]),
    "mpnet": lambda: _file(_wordpiece(), [_bert()], [_SPLIT], _roberta(add_prefix_space=False)),
    "words": lambda: _file(_wordpiece(), [_NFKD, _LOWER], [{"type": "Whitespace"}]),
    "gpt2": lambda: _file(_bpe(), [], [_BYTES], _BYTES),
    "roberta": lambda: _file(_bpe(), [], [_PREFIXED_BYTES], _roberta(add_prefix_space=True)),
    "roberta, trimmed": lambda: _file(_bpe(), [], [_PREFIXED_BYTES], _roberta(add_prefix_space=False)),
    "modernbert": lambda: _file(_bpe(), [_NFC], [_BYTES]),
    "nfkc bytes": lambda: _file(_bpe(), [_NFKC], [_PREFIXED_BYTES], _BYTES_AND_TEMPLATE),
    "lower bytes": lambda: _file(_bpe(), [_LOWER], [_PREFIXED_BYTES], _roberta(add_prefix_space=True)),
    "mapped bytes": lambda: _file(_bpe(), [_MAP], [_PREFIXED_BYTES], _roberta(add_prefix_space=True)),
    "bytes of words": lambda: _file(
        _bpe(), [_STRIP_RIGHT], [_SPACE_SPLIT, parts.byte_level_step(use_regex=False)], _BYTES
    ),
    "xlnet": lambda: _file(_unigram(), [], [_SPACE_SPLIT, parts.metaspace()]),
    "xlm-r": lambda: _file(_unigram(), [_MAP], [_SPACE_SPLIT, parts.metaspace()]),
    "deberta": lambda: _file(_unigram(), [_STRIP, _MAP, _SPACE_RUNS], [parts.metaspace()]),
    "t5": lambda: _file(
        _unigram(), [_MAP, _STRIP_RIGHT, parts.replace({"Regex": " {2,}"}, "▁")], [parts.metaspace("first")]
    ),
    "albert": lambda: _file(_unigram(), [_NFKD, {"type": "StripAccents"}, _LOWER, _MAP], [parts.metaspace()]),
    "strip": lambda: _file(_unigram(), [_STRIP, _SPACE_RUNS], [parts.metaspace()]),
    "whole": lambda: _file(_unigram(), [_MAP], [parts.metaspace("never", split=False)]),
    "prepended": lambda: _file(_unigram(), [{"type": "Prepend", "prepend": "▁"}, _LOWER], []),
}  # fmt: skip


def check_set(base: str, seed: int, folder: Path) -> bool:
    """Compares all ways with the oracle on one random set.

    Args:
        base: Name of the tokenizer that the set is put in.
        seed: Of the set, the texts and the options.
        folder: Where to write a tokenizer.json.

    Returns:
        False if the set is refused, as two of its tokens become the same, or one nothing, when normalised.
    """
    rng = random.Random(f"{base} {seed}")
    content = BASES[base]()
    content["added_tokens"] = tokens = added_tokens(rng, content["model"]["vocab"])
    try:
        pair = TokenizerPair(content, folder)
        twin = ReferenceTokenizer(pair.spec)
    except ValueError as err:
        if "once normalised" in str(err):
            return False
        raise
    for _ in range(CASES_OF_A_SET):
        case = random_case(rng)
        contents = [token["content"] for token in tokens]
        texts = ["", *(random_text(rng, contents) for _ in range(TEXTS_OF_A_SET))]
        texts = [text for text in texts if not _panics(pair, text, case)]
        seconds = [rng.choice(texts) if rng.random() < 0.3 else None for _ in texts]
        expected = pair.expect(texts, seconds, case)
        for tokenizer in (pair.native, pair.general, twin):
            rows = tokenizer.encode(texts, seconds, case.options)
            compare(rows, expected, texts, seconds, f"{base} {seed} {tokenizer.path_name} {case} {tokens}")
    return True


def _panics(pair: TokenizerPair, text: str, case: ParityCase) -> bool:
    """Whether the oracle breaks down, as stripped spaces reach past the end of the next token."""
    pair.oracle.encode_special_tokens = case.split_special_tokens
    pair.oracle.no_truncation()
    try:
        pair.oracle.encode(text)
    except BaseException as err:  # panics are no Exception
        if "bad split" not in str(err):
            raise
        return True
    return False


def added_tokens(rng: random.Random, vocabulary: dict[str, int] | list[tuple[str, float]]) -> list[Json]:
    """One to five tokens that begin alike and contain one another; some are in the vocabulary."""
    known = list(vocabulary) if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]
    contents: list[str] = []
    for _ in range(rng.randint(1, 5)):
        content = _content(rng, contents, known)
        if content and content not in contents:
            contents.append(content)
    tokens: list[Json] = []
    for content in contents:
        single_word, lstrip, rstrip, normalized = rng.choice(_FLAGS)
        token_id = known.index(content) if content in known else len(known)
        known += [] if content in known else [content]
        tokens.append(
            parts.added(
                token_id,
                content,
                special=rng.random() < 0.4,
                single_word=single_word,
                lstrip=lstrip,
                rstrip=rstrip,
                normalized=normalized,
            )
        )
    return tokens


def _content(rng: random.Random, others: list[str], known: list[str]) -> str:
    fresh = "".join(rng.choice(_SPACES if rng.random() < 0.2 else _ATOMS) for _ in range(rng.randint(1, 3)))
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(known)
    if others and kind < 0.6:
        other = rng.choice(others)
        cut = rng.randint(0, len(other))
        variants = (other + fresh, fresh + other, other[:cut], other[cut:], other[:cut] + fresh + other[cut:])
        return rng.choice((*variants, other.upper(), other.lower(), other + " ", " " + other))
    return fresh


def random_text(rng: random.Random, contents: list[str]) -> str:
    """Added tokens, whole and in pieces, words, and spaces of many kinds."""
    # Fast ways look at 64 bytes at a time.
    found = ["abc " * 16 if rng.random() < 0.1 else ""]
    found[0] = found[0][: rng.randint(50, 64)]
    for _ in range(rng.randint(0, 8)):
        kind = rng.random()
        if kind < 0.45:
            content = rng.choice(contents)
            cut = rng.randint(0, len(content))
            changed = (content.upper(), content.lower(), content[:cut], content[cut:], content + content)
            found.append(content if rng.random() < 0.7 else rng.choice(changed))
        elif kind < 0.75:
            found.append(rng.choice(_SPACES) * rng.choice((1, 1, 2)))
        else:
            found.append(rng.choice(_WORDS if rng.random() < 0.6 else _ATOMS))
    return "".join(found)


def random_case(rng: random.Random) -> ParityCase:
    """Options that both sides accept."""
    overflow = rng.random() < 0.3
    return ParityCase(
        tokens_max=rng.choice((None, None, 8, 9, 12)),
        strategy=TruncationStrategy.LONGEST_FIRST,
        left=rng.random() < 0.4,
        overflow=overflow,
        stride=rng.randint(0, 1) if overflow else 0,
        add_special_tokens=rng.random() < 0.7,
        split_special_tokens=rng.random() < 0.35,
        # Of rows of overflow, the oracle's encode_batch_fast forgets which text they are of.
        with_spans=overflow or rng.random() < 0.8,
    )
