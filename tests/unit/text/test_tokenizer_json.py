"""Reading tokenizer.json: every component that is computed, and everything that is refused by name."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from tokenizers import Tokenizer as OracleTokenizer

from penstock_kernels import spec
from penstock_kernels.blob_records import byte_characters
from penstock_server.domain.errors import ModelBroken
from penstock_server.text.tokenizer_json import explained, read_spec
from tests.support.small_tokenizers import (
    TOKENS,
    Json,
    added,
    bare,
    bpe,
    special,
    template,
    tokenizer_json,
    unigram,
    wordpiece,
)

CHARSMAP = (4).to_bytes(4, "little") + b"\0\0\0\0" + b"x\0"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ROBERTA = {
    "type": "RobertaProcessing",
    "sep": ["</s>", 2],
    "cls": ["<s>", 0],
    "trim_offsets": True,
    "add_prefix_space": False,
}
FIRST, SECOND = spec.TemplatePiece(spec.Slot.FIRST), spec.TemplatePiece(spec.Slot.SECOND)


def read(content: Json | str | bytes) -> spec.TokenizerSpec:
    """What is read, with errors as a load has them."""
    if isinstance(content, dict):
        content = json.dumps(content)
    with explained("tokenizer.json"):
        return read_spec(content if isinstance(content, bytes) else content.encode())


def is_read_as_the_reference_reads_it(content: Json) -> bool:
    """Whether the file means the same as what the reference makes of it, which it writes in full."""
    text = json.dumps(content)
    return read(text) == read(OracleTokenizer.from_str(text).to_str())


def token(token_id: int, type_id: int = 0) -> spec.TemplatePiece:
    return spec.TemplatePiece(spec.Slot.SPECIAL, type_id, token_id)


NORMALIZERS: list[tuple[Json, tuple[spec.Normalizer, ...]]] = [
    (
        {"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": True, "lowercase": True},
        (spec.BertNormalizer(False, True, True, True),),
    ),
    (
        {"clean_text": True, "handle_chinese_chars": False, "lowercase": True, "strip_accents": False},
        (spec.BertNormalizer(True, False, False, True),),
    ),
    ({"type": "Strip", "strip_left": False, "strip_right": True}, (spec.Strip(False, True),)),
    ({"strip_left": True, "strip_right": True}, (spec.Strip(),)),
    ({"type": "StripAccents"}, (spec.StripAccents(),)),
    ({"type": "Lowercase"}, (spec.Lowercase(),)),
    *[({"type": form.name}, (spec.UnicodeForm(form),)) for form in spec.Form],
    ({"type": "Replace", "pattern": {"String": "``"}, "content": '"'}, (spec.Replace("``", '"'),)),
    ({"pattern": {"String": "."}, "content": ""}, (spec.Replace(".", ""),)),
    ({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, (spec.ReplaceSpaceRuns(" "),)),
    ({"type": "Prepend", "prepend": "\u2581"}, (spec.Prepend("\u2581"),)),
    ({"prepend": "x"}, (spec.Prepend("x"),)),
    (
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(CHARSMAP).decode()},
        (spec.Precompiled(CHARSMAP),),
    ),
    ({"type": "Sequence", "normalizers": []}, ()),
    (
        {"normalizers": [{"type": "NFC"}, {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}]},
        (spec.UnicodeForm(spec.Form.NFC), spec.Lowercase()),
    ),
]


@pytest.mark.parametrize(("section", "expected"), NORMALIZERS)
def test_normalizers_are_read(section: Json, expected: tuple[spec.Normalizer, ...]) -> None:
    content = tokenizer_json(normalizer=section)
    assert read(content).normalizers == expected
    assert is_read_as_the_reference_reads_it(content)


def test_a_charsmap_whose_trie_is_said_to_be_longer_than_whole_units_is_read_as_the_reference_does() -> None:
    odd = (7).to_bytes(4, "little") + CHARSMAP[4:]
    section = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(odd).decode().rstrip("=")}
    OracleTokenizer.from_str(json.dumps(tokenizer_json(normalizer=section)))
    assert read(tokenizer_json(normalizer=section)).normalizers == (spec.Precompiled(CHARSMAP),)


def metaspace(**changes: Any) -> Json:
    return {"type": "Metaspace", "replacement": "\u2581"} | changes


PRE_TOKENIZERS: list[tuple[Json, tuple[spec.PreTokenizer, ...]]] = [
    ({"type": "BertPreTokenizer"}, (spec.BertPreTokenizer(),)),
    ({"type": "WhitespaceSplit"}, (spec.WhitespaceSplit(),)),
    ({"type": "Whitespace"}, (spec.Whitespace(),)),
    ({"type": "Punctuation"}, (spec.Punctuation(spec.SplitBehavior.ISOLATED),)),
    *[
        (
            {"type": "Punctuation", "behavior": behavior.name.title().replace("_", "")},
            (spec.Punctuation(behavior),),
        )
        for behavior in spec.SplitBehavior
    ],
    ({"type": "Digits", "individual_digits": True}, (spec.Digits(True),)),
    (BYTE_LEVEL, (spec.ByteLevel(False, True),)),
    ({"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}, (spec.ByteLevel(True, True),)),
    (metaspace(), (spec.Metaspace(),)),
    (metaspace(replacement="_", add_prefix_space=True, str_rep="x"), (spec.Metaspace("_"),)),
    (
        metaspace(prepend_scheme="first", split=False),
        (spec.Metaspace("\u2581", spec.PrependScheme.FIRST, False),),
    ),
    (
        metaspace(add_prefix_space=False, prepend_scheme="never", split=None),
        (spec.Metaspace("\u2581", spec.PrependScheme.NEVER),),
    ),
    (
        {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace()]},
        (spec.WhitespaceSplit(), spec.Metaspace()),
    ),
]


@pytest.mark.parametrize(("section", "expected"), PRE_TOKENIZERS)
def test_pre_tokenizers_are_read(section: Json, expected: tuple[spec.PreTokenizer, ...]) -> None:
    content = tokenizer_json(pre_tokenizer=section)
    assert read(content).pre_tokenizers == expected
    assert is_read_as_the_reference_reads_it(content)


AB = {"a": 0, "b": 1, "ab": 2}
MODELS: list[tuple[Json, spec.TokenModel]] = [
    (wordpiece(), spec.WordPiece({token: i for i, token in enumerate(TOKENS)}, 1)),
    (
        wordpiece(vocab={"?": 7}, unk_token="?", continuing_subword_prefix="", max_input_chars_per_word=3),
        spec.WordPiece({"?": 7}, 7, "", 3),
    ),
    (bpe(), spec.Bpe(AB, (("a", "b"),))),
    (bpe(merges=["#version: 0.2", "a b"]), spec.Bpe(AB, (("a", "b"),))),
    (bpe(continuing_subword_prefix="", end_of_word_suffix=""), spec.Bpe(AB, (("a", "b"),))),
    (
        bpe(dropout=0.0, unk_token="b", fuse_unk=True, byte_fallback=True, ignore_merges=True),
        spec.Bpe(AB, (("a", "b"),), 1, fuse_unknown=True, byte_fallback=True, ignore_merges=True),
    ),
    (
        bpe(vocab={"a": 0, "##b</w>": 1, "ab</w>": 2}, merges=["a ##b</w>"])
        | {"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"},
        spec.Bpe(
            {"a": 0, "##b</w>": 1, "ab</w>": 2},
            (("a", "##b</w>"),),
            continuing_prefix="##",
            end_suffix="</w>",
        ),
    ),
    (bpe(fuse_unk=None, byte_fallback=None, ignore_merges=None), spec.Bpe(AB, (("a", "b"),))),
    (unigram(), spec.Unigram((("<unk>", 0.0), ("\u2581a", -1.5), ("b", -2.25)), 0)),
    (unigram(vocab=[["a", 1], ["<unk>", -2]], unk_id=1), spec.Unigram((("a", 1.0), ("<unk>", -2.0)), 1)),
    (unigram(byte_fallback=True, vocab=[["<unk>", 0]]), spec.Unigram((("<unk>", 0.0),), 0, True)),
]


@pytest.mark.parametrize(("section", "expected"), MODELS)
def test_models_are_read_with_and_without_their_type(section: Json, expected: spec.TokenModel) -> None:
    without = {key: value for key, value in section.items() if key != "type"}
    for content in (bare(section), bare(without)):
        assert read(content).model == expected
        assert is_read_as_the_reference_reads_it(content)


def test_an_unknown_token_that_no_text_can_need_may_be_missing() -> None:
    vocab = {symbol: i for i, symbol in enumerate(byte_characters())}
    content = bare(bpe(vocab=vocab, merges=[], unk_token="<unk>"), pre_tokenizer=BYTE_LEVEL)
    model = read(content).model
    assert isinstance(model, spec.Bpe)
    assert model.unknown_id is None
    every_byte = "".join(map(chr, range(0x800))) + "\uffff\U0010ffff"
    assert OracleTokenizer.from_str(json.dumps(content)).encode(every_byte).ids
    del content["model"]["vocab"]["!"]
    with pytest.raises(ModelBroken, match="unk_token '<unk>' is not in the vocabulary"):
        read(content)


def test_scores_are_the_doubles_of_the_reference() -> None:
    numbers = random.Random(5)
    texts = [repr(-20 * numbers.random()) for _ in range(2000)]
    vocab = ",".join(f'["p{i}",{text}]' for i, text in enumerate(texts))
    content = json.dumps(bare(unigram(vocab=[]))).replace('"vocab": []', f'"vocab": [{vocab}]')
    model = read(content).model
    assert isinstance(model, spec.Unigram)
    theirs = json.loads(OracleTokenizer.from_str(content).to_str())["model"]["vocab"]
    assert list(model.pieces) == [tuple(piece) for piece in theirs]
    # The nearest doubles are others: else this test would show nothing.
    assert any(score != float(text) for (_, score), text in zip(model.pieces, texts, strict=True))


TEMPLATE = template(
    single=[{"SpecialToken": {"id": "x", "type_id": 3}}, {"Sequence": {"id": "A", "type_id": 2}}],
    special_tokens={"x": {"id": "x", "ids": [4, 5], "tokens": ["p", "q"]}},
)
TEMPLATE_SINGLE = (token(4, 3), token(5, 3), spec.TemplatePiece(spec.Slot.FIRST, 2))
B_TYPE_1 = spec.TemplatePiece(spec.Slot.SECOND, 1)
BERT_SINGLE = (token(2), FIRST, token(3))
ROBERTA_SINGLE = (token(0), FIRST, token(2))
POST_PROCESSORS: list[tuple[Json | None, Json]] = [
    (None, {"single": (FIRST,), "pair": (FIRST, B_TYPE_1)}),
    (
        {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        {"single": BERT_SINGLE, "pair": (*BERT_SINGLE, B_TYPE_1, token(3, 1)), "retypes_overflow": True},
    ),
    ({"sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}, {"single": BERT_SINGLE, "retypes_overflow": True}),
    (
        ROBERTA,
        {
            "single": ROBERTA_SINGLE,
            "pair": (*ROBERTA_SINGLE, token(2), SECOND, token(2)),
            "trim": spec.TrimOffsets(False),
            "retypes_overflow": True,
        },
    ),
    (
        {key: value for key, value in ROBERTA.items() if key != "type"} | {"trim_offsets": False},
        {"single": ROBERTA_SINGLE, "trim": None, "retypes_overflow": True},
    ),
    (BYTE_LEVEL, {"single": (FIRST,), "trim": spec.TrimOffsets(False), "retypes_overflow": False}),
    (BYTE_LEVEL | {"trim_offsets": False}, {"trim": None}),
    (TEMPLATE, {"single": TEMPLATE_SINGLE, "pair": (FIRST, B_TYPE_1), "retypes_overflow": False}),
    ({key: value for key, value in TEMPLATE.items() if key != "type"}, {"single": TEMPLATE_SINGLE}),
    ({"type": "Sequence", "processors": []}, {"single": (FIRST,)}),
    (
        {"type": "Sequence", "processors": [BYTE_LEVEL, TEMPLATE]},
        {"single": TEMPLATE_SINGLE, "trim": spec.TrimOffsets(False)},
    ),
    (
        {"type": "Sequence", "processors": [TEMPLATE, BYTE_LEVEL | {"trim_offsets": False}]},
        {"single": TEMPLATE_SINGLE, "trim": None},
    ),
]


@pytest.mark.parametrize(("section", "expected"), POST_PROCESSORS)
def test_post_processors_are_read(section: Json | None, expected: Json) -> None:
    content = bare(wordpiece(), post_processor=section)
    tokenizer = read(content)
    assert {name: getattr(tokenizer, name) for name in expected} == expected
    assert is_read_as_the_reference_reads_it(content)


ADDED: list[list[tuple[str, int]]] = [
    [("x", 9), ("y", 10)],
    [("x", 100), ("y", 50)],
    [("hello", 77), ("x", 9)],
    [("", 9), ("x", 9)],
    [("x", 9), ("x", 12), ("y", 10)],
]


@pytest.mark.parametrize("tokens", ADDED)
def test_added_tokens_get_the_ids_that_the_reference_gives(tokens: list[tuple[str, int]]) -> None:
    sparse = {"[UNK]": 0, "hello": 30, "q": 9, "z": 3}
    for vocab in ({token: i for i, token in enumerate(TOKENS)}, sparse):
        content = bare(wordpiece(vocab=vocab), added_tokens=[added(*token) for token in tokens])
        oracle = OracleTokenizer.from_str(json.dumps(content))
        assert {token.content: token.id for token in read(content).added_tokens} == {
            text: oracle.token_to_id(text) for text, _ in tokens if text
        }


def test_flags_of_added_tokens_are_read() -> None:
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for flag in flags:
        entry = added("x", 9, **{name: name == flag for name in flags})
        assert read(tokenizer_json(added_tokens=[entry])).added_tokens == (
            spec.AddedToken("x", 9, **{flag: True}),
        )


def test_padding_is_the_files_or_that_of_the_usual_token() -> None:
    padding = {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_id": 5,
        "pad_type_id": 2,
        "pad_token": "hello",
    }
    tokenizer = read(tokenizer_json(padding=padding))
    assert (tokenizer.pad_id, tokenizer.pad_type_id) == (5, 2)
    assert read(tokenizer_json(model=wordpiece(vocab={"[UNK]": 0, "<pad>": 4}), added_tokens=[])).pad_id == 4
    assert read(bare(wordpiece(), added_tokens=[added("<pad>", 9)])).pad_id == 0
    assert read(bare(bpe(), added_tokens=[added("<pad>", 3)])).pad_id == 3
    assert read(bare(bpe())).pad_id == 0


def test_sections_that_are_left_out_are_none() -> None:
    content = {"model": wordpiece()}
    OracleTokenizer.from_str(json.dumps(content))
    assert read(content) == read(bare(wordpiece()))


UNSUPPORTED: list[tuple[Json, str]] = [
    ({"model": {"type": "WordLevel", "vocab": {}, "unk_token": "x"}}, "model WordLevel"),
    ({"model": {"vocab": {}, "unk_token": "x"}}, "model None"),
    ({"model": {"type": "Other"}}, "model Other"),
    ({"model": wordpiece(other=1)}, "model WordPiece with the unknown key 'other'"),
    ({"model": bpe(dropout=0.1)}, r"BPE dropout 0\.1"),
    ({"model": bpe(byte_fallback=True, end_of_word_suffix="</w>")}, "BPE byte_fallback together with"),
    ({"model": unigram(unk_id=None)}, "model Unigram without unk_id"),
    ({"normalizer": {"type": "Nmt"}}, "normalizer Nmt"),
    ({"normalizer": {"type": "ByteLevel"}}, "normalizer ByteLevel"),
    ({"normalizer": {"type": "NFC", "x": 1}}, "normalizer NFC with the unknown key 'x'"),
    (
        {"normalizer": {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}},
        r"normalizer Replace with regex '\\\\s\+'",
    ),
    (
        {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": " "}},
        "normalizer Replace of an empty text",
    ),
    ({"normalizer": {"type": "Prepend", "prepend": ""}}, "normalizer Prepend of an empty text"),
    (
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
                    for charsmap in (CHARSMAP, CHARSMAP + b"y")
                ],
            }
        },
        "two different normalizers Precompiled",
    ),
    (
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": r"\d"},
                "behavior": "Isolated",
                "invert": False,
            }
        },
        r"pre_tokenizer Split with regex '\\\\d'",
    ),
    ({"pre_tokenizer": {"type": "CharDelimiterSplit", "delimiter": "x"}}, "pre_tokenizer CharDelimiterSplit"),
    ({"pre_tokenizer": {"type": "UnicodeScripts"}}, "pre_tokenizer UnicodeScripts"),
    ({"post_processor": {"type": "Other"}}, "post_processor Other"),
    (
        {"post_processor": {"type": "Sequence", "processors": [TEMPLATE, BYTE_LEVEL]}},
        "post_processor Sequence of other than one ByteLevel, then one template",
    ),
    (
        {"post_processor": {"type": "Sequence", "processors": [BYTE_LEVEL, ROBERTA]}},
        "post_processor Sequence",
    ),
    ({"post_processor": {"type": "Sequence", "processors": [TEMPLATE, TEMPLATE]}}, "post_processor Sequence"),
    (
        {
            "post_processor": {
                "type": "BertProcessing",
                "sep": ["x", 1],
                "cls": ["y", 2],
                "trim_offsets": True,
            }
        },
        "post_processor BertProcessing with the unknown key 'trim_offsets'",
    ),
    ({"post_processor": template(single=[])}, r"a template of the texts \[\], not \['A'\]"),
    (
        {"post_processor": template(pair=[{"Sequence": {"id": "A", "type_id": 0}}] * 2)},
        r"a template of the texts \['A', 'A'\]",
    ),
    ({"post_processor": template(single=[{"Sequence": {"id": "A", "type_id": 256}}])}, "type id 256"),
    ({"model": unigram(), "post_processor": BYTE_LEVEL}, "a post_processor with trim_offsets for a Unigram"),
    (
        {"model": wordpiece(vocab={"[UNK]": 0, "a": 0}), "post_processor": BYTE_LEVEL},
        "a post_processor with trim_offsets for a vocabulary that has an id twice",
    ),
    (
        {"added_tokens": [special("[SEP]"), special("[SEP]") | {"lstrip": True}]},
        r"two different added tokens '\[SEP\]'",
    ),
    (
        {
            "model": wordpiece(vocab={"[UNK]": 0, "a": 1, "b": 1}),
            "added_tokens": [added("a", 1), added("b", 1)],
        },
        "two added tokens with one id",
    ),
    (
        {
            "padding": {
                "strategy": "BatchLongest",
                "direction": "Right",
                "pad_id": 0,
                "pad_type_id": 300,
                "pad_token": "x",
            }
        },
        "pad_type_id 300",
    ),
    ({"encoder": {}}, "the unknown section 'encoder'"),
]


@pytest.mark.parametrize(("changes", "feature"), UNSUPPORTED)
def test_an_unsupported_feature_is_named(changes: Json, feature: str) -> None:
    with pytest.raises(ModelBroken, match=f"tokenizer.json needs {feature}.*does not support; use a model"):
        read(tokenizer_json(**changes))


CONTRADICTIONS: list[tuple[Json, str]] = [
    ({"model": wordpiece(unk_token="[NONE]")}, r"unk_token '\[NONE\]' is not in the vocabulary"),
    ({"model": wordpiece(max_input_chars_per_word=-1)}, "max_input_chars_per_word is negative"),
    ({"model": wordpiece(vocab={"[UNK]": 2**31})}, r"a token id is outside 0\.\.2147483647"),
    ({"model": wordpiece(vocab={"[UNK]": -1})}, "a token id is outside"),
    ({"model": bpe(unk_token="z")}, "unk_token 'z' is not in the vocabulary"),
    ({"model": bpe(merges=["a b c"])}, "the merge 'a b c' is not two tokens"),
    ({"model": bpe(merges=["ab"])}, "the merge 'ab' is not two tokens"),
    ({"model": unigram(unk_id=3)}, "unk_id 3 is not in the vocabulary"),
    ({"model": unigram(vocab=[["a", "1.0"]])}, "is not a JSON number"),
    ({"pre_tokenizer": metaspace(replacement="ab")}, "'ab' is not one character"),
    ({"pre_tokenizer": metaspace(add_prefix_space=False)}, "add_prefix_space is false but prepend_scheme"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}}, "the charsmap is cut"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAA=="}}, "the charsmap is cut"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!!!!"}}, "the charsmap is broken"),
    (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAGFiY2T//w=="}},
        "the charsmap is broken",
    ),
    (
        {"normalizer": {"type": "Replace", "pattern": {"String": "a", "Regex": "b"}, "content": ""}},
        "the pattern must have one key",
    ),
    ({"post_processor": template(single=[{"SpecialToken": {"id": "x", "type_id": 0}}])}, "'x' is not among"),
    ({"post_processor": template(single=[{}])}, "not either a Sequence or a SpecialToken"),
    (
        {"post_processor": {"type": "BertProcessing", "sep": ["x", -3], "cls": ["y", 1]}},
        "special token id -3",
    ),
    (
        {"post_processor": {key: ROBERTA[key] for key in ("type", "sep", "cls", "trim_offsets")}},
        "RobertaProcessing without add_prefix_space, which tokenizers reads as BertProcessing; add",
    ),
    (
        {"post_processor": {key: ROBERTA[key] for key in ("type", "sep", "cls")}},
        "RobertaProcessing without add_prefix_space, which",
    ),
    ({"added_tokens": [added("x", -1)]}, "the id -1 of the added token 'x'"),
    (
        {
            "padding": {
                "strategy": "BatchLongest",
                "direction": "Right",
                "pad_id": -1,
                "pad_type_id": 0,
                "pad_token": "x",
            }
        },
        "pad_id -1 is outside",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), CONTRADICTIONS)
def test_a_contradiction_is_explained(changes: Json, reason: str) -> None:
    with pytest.raises(ModelBroken, match=rf"tokenizer\.json contradicts itself: .*{reason}"):
        read(tokenizer_json(**changes))


MALFORMED: list[Json] = [
    {"version": "2.0"},
    {"added_tokens": None},
    {"added_tokens": [{"id": 9, "content": "x"}]},
    {"normalizer": "NFC"},
    {"normalizer": {"type": "BertNormalizer", "lowercase": True}},
    {"normalizer": {"type": "Strip", "strip_left": True}},
    {"normalizer": {"type": "Sequence", "normalizers": [None]}},
    {"pre_tokenizer": {"type": "Digits"}},
    {"pre_tokenizer": {"type": "Punctuation", "behavior": "isolated"}},
    {"pre_tokenizer": metaspace(prepend_scheme=None)},
    {"post_processor": {"type": "BertProcessing", "sep": ["x", 1]}},
    {"post_processor": template(single=["$A"])},
    {"post_processor": template(single=[{"Sequence": {"id": "C", "type_id": 0}}])},
    {"model": wordpiece(unk_token=None)},
    {"model": bpe(merges=[["a", "b", "c"]])},
    {"model": unigram(vocab=[["a"]])},
    {"padding": {"strategy": "BatchLongest"}},
]


@pytest.mark.parametrize("changes", MALFORMED)
def test_what_the_reference_would_not_load_is_refused(changes: Json) -> None:
    content = tokenizer_json(**changes)
    with pytest.raises(Exception, match=r"."):
        OracleTokenizer.from_str(json.dumps(content))
    with pytest.raises(ModelBroken, match=r"tokenizer\.json is not a tokenizer\.json"):
        read(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 3}', b'{"model": {"type": "WordPiece"}}', b"{}"],
)
def test_a_file_of_another_kind_is_refused(content: bytes) -> None:
    with pytest.raises(ModelBroken, match=r"tokenizer\.json is not a tokenizer\.json"):
        read(content)


def test_a_file_nested_without_end_is_refused() -> None:
    nested = '{"type":"Sequence","normalizers":[' * 100_000
    with pytest.raises(ModelBroken, match=r"tokenizer\.json is not a tokenizer\.json"):
        read('{"model":{},"normalizer":' + nested)
