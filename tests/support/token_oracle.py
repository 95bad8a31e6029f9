"""Hugging Face tokenizers as the oracle, and comparison with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Encoding
from tokenizers import Tokenizer as OracleTokenizer

from penstock_kernels import TokenRows
from penstock_server.domain.tasks import Truncation
from penstock_server.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
MODEL_TOKENIZER = ROOT / "models" / "injection" / "tokenizer.json"

Row = tuple[list[int], list[int], list[tuple[int, int]] | None]


@dataclass(frozen=True, slots=True)
class EncodeCase:
    """Options of one comparison."""

    tokens_max: int | None = None
    truncation: Truncation = Truncation.RIGHT
    add_special_tokens: bool = True
    return_offsets: bool = True


PLAIN = EncodeCase()


def model_tokenizer() -> dict[str, Any]:
    """The demo classifier's tokenizer.json; ``make build`` puts it there."""
    assert MODEL_TOKENIZER.exists(), f"{MODEL_TOKENIZER} is missing: run `make build` first"
    content: dict[str, Any] = json.loads(MODEL_TOKENIZER.read_text(encoding="utf-8"))
    return content


class Parity:
    """One tokenizer.json, loaded by both sides.

    Args:
        content: The file's content.
        folder: Where to write it.
    """

    def __init__(self, content: dict[str, Any], folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        self.tokenizer = Tokenizer.from_file(path)
        self.oracle = OracleTokenizer.from_file(str(path))
        self.oracle.no_padding()

    def check(
        self, texts: Sequence[str], pairs: Sequence[str | None] | None = None, case: EncodeCase = PLAIN
    ) -> None:
        """Fails, showing the first text that differs."""
        rows = self.encode(texts, pairs, case)
        expected = self.expect(texts, pairs, case)
        assert rows.rows == len(expected)
        for index, (actual, wanted) in enumerate(zip(unpack(rows), expected, strict=True)):
            assert actual == wanted, (
                f"{case} row {index}: {texts[index]!r} {pairs[index] if pairs else None!r}\n"
                f"is     {actual}\nwanted {wanted}"
            )

    def encode(self, texts: Sequence[str], pairs: Sequence[str | None] | None, case: EncodeCase) -> TokenRows:
        """What Penstock computes."""
        return self.tokenizer.encode(
            texts,
            pairs,
            tokens_max=case.tokens_max,
            truncation=case.truncation,
            add_special_tokens=case.add_special_tokens,
            return_offsets=case.return_offsets,
        )

    def expect(self, texts: Sequence[str], pairs: Sequence[str | None] | None, case: EncodeCase) -> list[Row]:
        """What the oracle computes."""
        self.oracle.no_truncation()
        if case.tokens_max is not None:
            direction = "left" if case.truncation is Truncation.LEFT else "right"
            self.oracle.enable_truncation(  # pyright: ignore[reportUnknownMemberType]
                case.tokens_max, strategy="longest_first", direction=direction
            )
        inputs: list[str | tuple[str, str]] = list(texts)
        if pairs is not None:
            both = zip(texts, pairs, strict=True)
            inputs = [text if pair is None else (text, pair) for text, pair in both]
        batch = self.oracle.encode_batch if case.return_offsets else self.oracle.encode_batch_fast
        encodings = batch(inputs, add_special_tokens=case.add_special_tokens)
        return [_row(encoding, case.return_offsets) for encoding in encodings]


def _row(encoding: Encoding, return_offsets: bool) -> Row:
    return encoding.ids, encoding.type_ids, encoding.offsets if return_offsets else None


def unpack(rows: TokenRows) -> list[Row]:
    """Rows as plain lists, like the oracle's."""
    ids, type_ids, starts = rows.ids.tolist(), rows.type_ids.tolist(), rows.starts.tolist()
    offsets: list[tuple[int, int]] | None = None
    if rows.offsets is not None:
        offsets = [(begin, end) for begin, end in rows.offsets.tolist()]
    spans = [slice(begin, end) for begin, end in pairwise(starts)]
    return [(ids[s], type_ids[s], None if offsets is None else offsets[s]) for s in spans]


def spelling_tokenizer(texts: Sequence[str], **settings: Any) -> dict[str, Any]:
    """A tokenizer.json that can spell every word of the texts: no difference hides in an unknown word.

    Args:
        texts: What it must be able to spell.
        settings: Of the BertNormalizer, and ``max_input_chars_per_word``.
    """
    model_settings = {"max_input_chars_per_word": settings.pop("max_input_chars_per_word", 100)}
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    normalizer |= {"strip_accents": None, "lowercase": True} | settings
    content = model_tokenizer()
    content["normalizer"] = normalizer
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    probe = OracleTokenizer.from_str(json.dumps(content | {"added_tokens": [], "post_processor": None}))
    normalize = probe.normalizer.normalize_str
    characters = sorted({c for text in texts for c in normalize(text)})
    vocabulary += [*characters, *("##" + c for c in characters), "##ab", "unaff", "##able"]
    vocab = {token: token_id for token_id, token in enumerate(dict.fromkeys(vocabulary))}
    for token in content["added_tokens"]:
        token["id"] = vocab[token["content"]]
    for name, special in content["post_processor"]["special_tokens"].items():
        special["ids"] = [vocab[name]]
    content["model"] |= {"vocab": vocab} | model_settings
    return content
