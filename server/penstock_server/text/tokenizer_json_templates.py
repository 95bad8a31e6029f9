"""Post-processors of ``tokenizer.json``: templates with special tokens, and trimming of offsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from penstock_kernels import spec
from penstock_server.text.tokenizer_json_parts import (
    INT32_MAX,
    Contradiction,
    Unsupported,
    is_nothing,
    keys_of,
    read,
    type_of,
)
from penstock_server.text.tokenizer_json_stages import ByteLevelSection

TYPE_ID_MAX = 255


class _Text(msgspec.Struct, frozen=True):
    id: Literal["A", "B"]
    type_id: int


class _Special(msgspec.Struct, frozen=True):
    id: str
    type_id: int


class _Element(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    special: _Special | None = msgspec.field(default=None, name="SpecialToken")
    text: _Text | None = msgspec.field(default=None, name="Sequence")


class _SpecialToken(msgspec.Struct, frozen=True):
    id: str
    ids: list[int]
    tokens: list[str]


class _Template(msgspec.Struct, frozen=True):
    single: list[_Element]
    pair: list[_Element]
    special_tokens: dict[str, _SpecialToken]


class _Bert(msgspec.Struct, frozen=True):
    sep: tuple[str, int]
    cls: tuple[str, int]


class _Roberta(msgspec.Struct, frozen=True):
    sep: tuple[str, int]
    cls: tuple[str, int]
    trim_offsets: bool
    add_prefix_space: bool


class _Sequence(msgspec.Struct, frozen=True):
    processors: list[msgspec.Raw]


Template = tuple[spec.TemplatePiece, ...]


@dataclass(frozen=True, slots=True)
class PostProcessing:
    """What the post-processors do, named as in TokenizerSpec; templates are None where there are none."""

    single: Template | None = None
    pair: Template | None = None
    trim: spec.TrimOffsets | None = None
    retypes_overflow: bool = False


def read_post_processor(section: msgspec.Raw) -> PostProcessing:
    """What the post-processors do together.

    Raises:
        Unsupported: One of them is not supported, or two of them together.
        ValueError: One of them is not as tokenizers writes it, or a template's token is not defined.
    """
    if is_nothing(section):
        return PostProcessing()
    steps = [step for step in _steps(section) if step != PostProcessing()]
    done = PostProcessing()
    for step in steps:
        # Both orders are legal; but trimming after a template sees special tokens, and twice trims twice.
        if done.single is not None or (step.trim is not None and done.trim is not None):
            raise Unsupported("post_processor Sequence of other than one ByteLevel, then one template")
        done = PostProcessing(step.single, step.pair, step.trim or done.trim, step.retypes_overflow)
    return done


def _steps(section: msgspec.Raw) -> list[PostProcessing]:
    match type_of(section, "the post_processor") or _legacy_type(section):
        case "Sequence":
            parts = read(section, _Sequence, "post_processor Sequence").processors
            return [step for part in parts for step in _steps(part)]
        case "ByteLevel":
            level = read(section, ByteLevelSection, "post_processor ByteLevel")
            return [
                PostProcessing(trim=spec.TrimOffsets(level.add_prefix_space) if level.trim_offsets else None)
            ]
        case "BertProcessing":
            return [_bert(read(section, _Bert, "post_processor BertProcessing"))]
        case "RobertaProcessing":
            _check_roberta(section)
            return [_roberta(read(section, _Roberta, "post_processor RobertaProcessing"))]
        case "TemplateProcessing":
            return [_template_processing(read(section, _Template, "post_processor TemplateProcessing"))]
        case kind:
            raise Unsupported(f"post_processor {kind}")


def _legacy_type(section: msgspec.Raw) -> str | None:
    """What a post-processor without a type is, as its keys tell; files of early releases have such."""
    keys = keys_of(section)
    if "special_tokens" in keys:
        return "TemplateProcessing"
    if "cls" not in keys:
        return None
    return "RobertaProcessing" if "trim_offsets" in keys else "BertProcessing"


def _bert(section: _Bert) -> PostProcessing:
    cls, sep = _special(section.cls[1]), _special(section.sep[1])
    single = (cls, spec.TemplatePiece(spec.Slot.FIRST), sep)
    second = (spec.TemplatePiece(spec.Slot.SECOND, type_id=1), _special(section.sep[1], 1))
    return PostProcessing(single, single + second, retypes_overflow=True)


def _check_roberta(section: msgspec.Raw) -> None:
    missing = {"trim_offsets", "add_prefix_space"} - keys_of(section)
    if missing:
        raise Contradiction(
            f"post_processor RobertaProcessing without {min(missing)}, which tokenizers reads as "
            "BertProcessing; add trim_offsets and add_prefix_space, or write BertProcessing"
        )


def _roberta(section: _Roberta) -> PostProcessing:
    cls, sep = _special(section.cls[1]), _special(section.sep[1])
    single = (cls, spec.TemplatePiece(spec.Slot.FIRST), sep)
    trim = spec.TrimOffsets(section.add_prefix_space) if section.trim_offsets else None
    second = (sep, spec.TemplatePiece(spec.Slot.SECOND), sep)
    return PostProcessing(single, single + second, trim, retypes_overflow=True)


def _template_processing(section: _Template) -> PostProcessing:
    return PostProcessing(
        _template(section.single, section.special_tokens, ["A"]),
        _template(section.pair, section.special_tokens, ["A", "B"]),
    )


def _template(elements: list[_Element], tokens: Mapping[str, _SpecialToken], expected: list[str]) -> Template:
    pieces: list[spec.TemplatePiece] = []
    for element in elements:
        if element.text is not None and element.special is None:
            slot = spec.Slot.FIRST if element.text.id == "A" else spec.Slot.SECOND
            pieces.append(spec.TemplatePiece(slot, _type_id(element.text.type_id)))
        elif element.special is not None and element.text is None:
            if element.special.id not in tokens:
                raise Contradiction(f"template token {element.special.id!r} is not among special_tokens")
            ids = tokens[element.special.id].ids
            pieces += [_special(token_id, _type_id(element.special.type_id)) for token_id in ids]
        else:
            raise Contradiction("a template's element is not either a Sequence or a SpecialToken")
    texts = sorted(element.text.id for element in elements if element.text is not None)
    if texts != expected:
        raise Unsupported(f"a template of the texts {texts}, not {expected}")
    return tuple(pieces)


def _special(token_id: int, type_id: int = 0) -> spec.TemplatePiece:
    if not 0 <= token_id <= INT32_MAX:
        raise Contradiction(f"special token id {token_id} is outside 0..{INT32_MAX}")
    return spec.TemplatePiece(spec.Slot.SPECIAL, type_id=type_id, token_id=token_id)


def _type_id(value: int) -> int:
    if not 0 <= value <= TYPE_ID_MAX:
        raise Unsupported(f"type id {value}")
    return value
