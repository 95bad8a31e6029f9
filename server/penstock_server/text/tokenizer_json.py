"""Reads ``tokenizer.json`` into a WordPieceSpec, and refuses by name what the kernel does not compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from penstock_kernels import AddedToken, Slot, TemplatePiece, WordPieceSpec
from penstock_server.domain.errors import ModelBroken

INT32_MAX = 2**31 - 1
TYPE_ID_MAX = 255


class ModelSection(msgspec.Struct, frozen=True):
    """The ``model`` section of a WordPiece tokenizer."""

    vocab: dict[str, int]
    type: str = "WordPiece"
    unk_token: str = "[UNK]"
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100


class NormalizerSection(msgspec.Struct, frozen=True):
    """The ``normalizer`` section of a BERT tokenizer."""

    type: str
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True


class AddedTokenSection(msgspec.Struct, frozen=True):
    """One of the ``added_tokens``."""

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True


class TypeOnly(msgspec.Struct, frozen=True):
    """A section of which only the type is known yet."""

    type: str | None = None


class TokenizerFile(msgspec.Struct, frozen=True):
    """The parts of the file that matter here.

    Truncation and padding stored in the file are left out on purpose: every call gives its own.
    """

    model: msgspec.Raw
    added_tokens: list[AddedTokenSection] = []
    normalizer: msgspec.Raw = msgspec.Raw(b"null")
    pre_tokenizer: TypeOnly | None = None
    post_processor: msgspec.Raw = msgspec.Raw(b"null")


class TemplateEntry(msgspec.Struct, frozen=True):
    """A text or a special token in a template."""

    id: str
    type_id: int = 0


class TemplateElement(msgspec.Struct, frozen=True):
    """An element of a template: exactly one of the two is given."""

    special: TemplateEntry | None = msgspec.field(default=None, name="SpecialToken")
    sequence: TemplateEntry | None = msgspec.field(default=None, name="Sequence")


class TemplateToken(msgspec.Struct, frozen=True):
    """The ids that a special token of a template stands for."""

    ids: list[int]


class TemplateSection(msgspec.Struct, frozen=True):
    """The ``post_processor`` section of type TemplateProcessing."""

    single: list[TemplateElement]
    pair: list[TemplateElement]
    special_tokens: dict[str, TemplateToken]


class BertSection(msgspec.Struct, frozen=True):
    """The ``post_processor`` section of type BertProcessing."""

    sep: tuple[str, int]
    cls: tuple[str, int]


class Unsupported(ValueError):
    """A feature of tokenizer.json that this release does not compute."""


Template = tuple[TemplatePiece, ...]
NO_TEMPLATE: tuple[Template, Template] = (
    (TemplatePiece(Slot.FIRST),),
    (TemplatePiece(Slot.FIRST), TemplatePiece(Slot.SECOND, type_id=1)),
)


def read_spec(path: Path) -> WordPieceSpec:
    """Compiles a ``tokenizer.json`` to what the kernel needs.

    Raises:
        ModelBroken: The file cannot be read, or uses a feature that the kernel does not compute (named).
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=TokenizerFile)
        return _compile(file)
    except OSError as err:
        raise ModelBroken(f"cannot read {path.name}: {err.strerror}") from err
    except Unsupported as err:
        raise ModelBroken(
            f"{path.name} needs {err}, which Penstock does not support; use a BERT-style WordPiece model"
        ) from err
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise ModelBroken(f"{path.name} is not a tokenizer.json: {err}") from err
    except ValueError as err:
        raise ModelBroken(f"{path.name} contradicts itself: {err}") from err


def _compile(file: TokenizerFile) -> WordPieceSpec:
    model = _model(file.model)
    normalizer = _normalizer(file.normalizer)
    if file.pre_tokenizer is None or file.pre_tokenizer.type != "BertPreTokenizer":
        raise Unsupported(f"pre_tokenizer {file.pre_tokenizer.type if file.pre_tokenizer else None}")
    single, pair = _templates(file.post_processor)
    strip_accents = normalizer.lowercase if normalizer.strip_accents is None else normalizer.strip_accents
    return WordPieceSpec(
        vocabulary=model.vocab,
        unknown_id=model.vocab[model.unk_token],
        continuing_prefix=model.continuing_subword_prefix,
        word_chars_max=min(model.max_input_chars_per_word, INT32_MAX),
        clean_text=normalizer.clean_text,
        handle_chinese_chars=normalizer.handle_chinese_chars,
        strip_accents=strip_accents,
        lowercase=normalizer.lowercase,
        added_tokens=_added_tokens(file.added_tokens, model.vocab),
        single=single,
        pair=pair,
    )


def _type_of(section: msgspec.Raw) -> str | None:
    return msgspec.json.decode(section, type=TypeOnly).type


def _model(section: msgspec.Raw) -> ModelSection:
    head = msgspec.json.decode(section, type=dict[str, Any])
    # Files of early releases leave the type out; only WordPiece has this limit.
    kind = head.get("type") or ("WordPiece" if "max_input_chars_per_word" in head else None)
    if kind != "WordPiece":
        raise Unsupported(f"model {kind}")
    model = msgspec.convert(head, ModelSection)
    if model.unk_token not in model.vocab:
        raise ValueError(f"unk_token {model.unk_token!r} is not in the vocabulary")
    if model.max_input_chars_per_word < 0:
        raise ValueError("max_input_chars_per_word is negative")
    if not all(0 <= token_id <= INT32_MAX for token_id in model.vocab.values()):
        raise ValueError(f"a token id is outside 0..{INT32_MAX}")
    return model


def _normalizer(section: msgspec.Raw) -> NormalizerSection:
    if bytes(section) == b"null":
        return NormalizerSection("none", False, False, False, False)
    kind = _type_of(section)
    if kind != "BertNormalizer":
        raise Unsupported(f"normalizer {kind}")
    return msgspec.json.decode(section, type=NormalizerSection)


def _added_tokens(sections: list[AddedTokenSection], vocab: dict[str, int]) -> tuple[AddedToken, ...]:
    """Added tokens with the ids that tokenizers gives them, whatever the file says; a difference is an error.

    tokenizers ignores the stored id: the vocabulary's wins, else the next free number is taken.
    """
    tokens: dict[str, AddedToken] = {}
    for section in sections:
        if not section.content:
            continue
        highest = max((token.id for token in tokens.values()), default=-1)
        next_id = highest + 1 if highest >= len(vocab) else len(vocab)
        actual = vocab.get(section.content, next_id)
        if section.content in tokens or section.id != actual:
            raise Unsupported(
                f"added token {section.content!r} twice or with id {section.id} instead of {actual}"
            )
        tokens[section.content] = AddedToken(
            content=section.content,
            id=actual,
            single_word=section.single_word,
            lstrip=section.lstrip,
            rstrip=section.rstrip,
            normalized=section.normalized,
        )
    return tuple(tokens.values())


def _templates(section: msgspec.Raw) -> tuple[Template, Template]:
    """The templates of one text and of a pair."""
    if bytes(section) == b"null":
        return NO_TEMPLATE
    kind = _type_of(section)
    if kind == "BertProcessing":
        bert = msgspec.json.decode(section, type=BertSection)
        return _bert_templates(_special(bert.cls[1]), _special(bert.sep[1]))
    if kind != "TemplateProcessing":
        raise Unsupported(f"post_processor {kind}")
    template = msgspec.json.decode(section, type=TemplateSection)
    single = _template(template.single, template.special_tokens, ["A"])
    return single, _template(template.pair, template.special_tokens, ["A", "B"])


def _bert_templates(cls: TemplatePiece, sep: TemplatePiece) -> tuple[Template, Template]:
    single = (cls, TemplatePiece(Slot.FIRST), sep)
    second_sep = TemplatePiece(Slot.SPECIAL, type_id=1, token_id=sep.token_id)
    return single, (*single, TemplatePiece(Slot.SECOND, type_id=1), second_sep)


def _template(
    elements: list[TemplateElement], special_tokens: dict[str, TemplateToken], expected: list[str]
) -> Template:
    pieces: list[TemplatePiece] = []
    texts: list[str] = []
    for element in elements:
        if element.sequence is not None:
            texts.append(element.sequence.id)
            slot = Slot.FIRST if element.sequence.id == "A" else Slot.SECOND
            pieces.append(TemplatePiece(slot, _type_id(element.sequence.type_id)))
        elif element.special is not None:
            if element.special.id not in special_tokens:
                raise ValueError(f"template token {element.special.id!r} is not among special_tokens")
            type_id = _type_id(element.special.type_id)
            pieces += [_special(token_id, type_id) for token_id in special_tokens[element.special.id].ids]
    if sorted(texts) != expected:
        raise Unsupported(f"a template of the texts {texts}, not {expected}")
    return tuple(pieces)


def _special(token_id: int, type_id: int = 0) -> TemplatePiece:
    if not 0 <= token_id <= INT32_MAX:
        raise ValueError(f"special token id {token_id} is outside 0..{INT32_MAX}")
    return TemplatePiece(Slot.SPECIAL, type_id=type_id, token_id=token_id)


def _type_id(value: int) -> int:
    if not 0 <= value <= TYPE_ID_MAX:
        raise Unsupported(f"type id {value}")
    return value
