"""One function a tokenizer library: it loads a tokenizer.json and gives the calls that are measured.

Libraries are imported by name when they are asked for: each process has only some of them. Only NumPy is
imported here beside the standard library, because the competitors' processes have no more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int32]
Row: TypeAlias = Sequence[int] | Ids
Flat: TypeAlias = Callable[[list[str]], tuple[bytes, bytes]]

# Room for 64 rows of 65,536 tokens: more than any batch of the works has.
_BUFFER_IDS = 1 << 22


@dataclass(frozen=True, slots=True)
class Calls:
    """A loaded tokenizer of some library.

    Attributes:
        own: The library's own result for a batch, whatever it is.
        own_one: The same for a single text, by the call meant for one.
        rows: The ids of each text, as cheaply as the library gives them.
        tensors: The ids of a batch in one padded int32 array ``[B, L]``.
        tensor_one: The ids of a single text in an array ``[1, L]``.
    """

    own: Callable[[list[str]], object]
    own_one: Callable[[str], object]
    rows: Callable[[list[str]], list[Row]]
    tensors: Callable[[list[str]], Ids]
    tensor_one: Callable[[str], Ids]


def padded(rows: Sequence[Row]) -> Ids:
    """Lays rows of ids out in one zero-padded array.

    Assigning whole rows is the fastest way for lists (33 ns an id, as ``fromiter`` takes) and for arrays.
    """
    out = np.zeros((len(rows), max(map(len, rows), default=0)), np.int32)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out


def _calls(
    own: Callable[[list[str]], object], ids_one: Callable[[str], Any], rows: Callable[[list[str]], list[Row]]
) -> Calls:
    """The calls of a library that leaves padding to its caller."""
    return Calls(
        own,
        ids_one,
        rows,
        tensors=lambda texts: padded(rows(texts)),
        tensor_one=lambda text: np.array([ids_one(text)], np.int32),
    )


def huggingface(path: str) -> Calls:
    """Tokenizers 0.x; its fast batch call leaves offsets out."""
    tokenizer = import_module("tokenizers").Tokenizer.from_file(path)
    batch = tokenizer.encode_batch_fast
    return _calls(
        batch, lambda text: tokenizer.encode(text).ids, lambda texts: [found.ids for found in batch(texts)]
    )


def huggingface_offsets(path: str) -> Calls:
    """Tokenizers 0.x with offsets, which become an array for each text."""
    tokenizer = import_module("tokenizers").Tokenizer.from_file(path)
    batch = tokenizer.encode_batch

    def rows(texts: list[str]) -> list[Row]:
        encodings = batch(texts)
        for encoding in encodings:
            np.array(encoding.offsets, np.int32)
        return [encoding.ids for encoding in encodings]

    return _calls(batch, lambda text: tokenizer.encode(text).offsets, rows)


def huggingface_next(path: str) -> Calls:
    """Tokenizers 1.x, whose encodings give ids as arrays; padding there first is slower."""
    tokenizer = import_module("tokenizers").Tokenizer.from_file(path)
    batch = tokenizer.encode_batch
    return _calls(
        batch,
        lambda text: tokenizer.encode(text).ids,
        lambda texts: [found.ids_array for found in batch(texts)],
    )


def tokie(path: str) -> Calls:
    """Tokie's; on one core its batch call is no slower than one call a text."""
    tokenizer = import_module("tokie").Tokenizer.from_json(path)
    batch = tokenizer.encode_batch
    return _calls(
        batch, lambda text: tokenizer.encode(text).ids, lambda texts: [found.ids for found in batch(texts)]
    )


def _cut(flat: tuple[bytes, bytes]) -> list[Row]:
    """Rows out of one run of 32-bit ids and 64-bit starts."""
    ids = np.frombuffer(flat[0], np.int32)
    starts = np.frombuffer(flat[1], np.int64).tolist()
    return [ids[first:last] for first, last in pairwise(starts)]


def splintr(path: str) -> Calls:
    """Splintr's, by the batch call that gives all ids in one run of bytes."""
    tokenizer = import_module("splintr").from_json(path)
    batch: Flat = tokenizer.encode_batch_flat
    return _calls(batch, tokenizer.encode, lambda texts: _cut(batch(texts)))


def fastokens(path: str) -> Calls:
    """Fastokens' (byte-level BPE only); it gets RoBERTa's post-processor as a template with the same ids."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    processor = content["post_processor"]
    if processor is not None and processor["type"] == "RobertaProcessing":
        content["post_processor"] = _as_template(processor)
    tokenizer = import_module("fastokens").Tokenizer.from_json_str(json.dumps(content))

    def batch(texts: list[str]) -> tuple[bytes, bytes]:
        flat: tuple[bytes, bytes] = tokenizer.encode_batch_flat(texts, add_special_tokens=True)
        return flat

    return _calls(
        batch,
        lambda text: tokenizer.encode(text, add_special_tokens=True).ids,
        lambda texts: _cut(batch(texts)),
    )


def _as_template(roberta: dict[str, Any]) -> dict[str, Any]:
    def token(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    first, last = roberta["cls"], roberta["sep"]
    single = [token(first[0]), {"Sequence": {"id": "A", "type_id": 0}}, token(last[0])]
    pair = [*single, token(last[0]), {"Sequence": {"id": "B", "type_id": 0}}, token(last[0])]
    known = {name: {"id": name, "ids": [token_id], "tokens": [name]} for name, token_id in (first, last)}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}


def gigatoken(path: str) -> Calls:
    """Gigatoken's (BPE only). It knows no templates: special tokens go around as it is told here."""
    tokenizer = import_module("gigatoken").Tokenizer(path)
    # RobertaProcessing is the only template among the works; GPT-2 has none.
    is_roberta = '"RobertaProcessing"' in Path(path).read_text(encoding="utf-8")
    first, last = ([0], [2]) if is_roberta else ([], [])

    def own(texts: list[str]) -> tuple[Any, Any]:
        matrix: tuple[Any, Any] = tokenizer.encode_batch_padded(
            texts, 0, prefix=first, suffix=last, parallel=False
        )
        return matrix

    def rows(texts: list[str]) -> list[Row]:
        ids, lengths = own(texts)
        return [row[:length] for row, length in zip(ids, lengths.tolist(), strict=True)]

    return Calls(
        own,
        tokenizer.encode,
        rows,
        tensors=lambda texts: own(texts)[0].view(np.int32),
        tensor_one=lambda text: tokenizer.encode(text).view(np.int32)[np.newaxis],
    )


def penstock(path: str) -> Calls:
    """Penstock's tokenizer, which writes padded tensors itself; a buffer is kept from call to call."""
    tokenizer = _penstock_tokenizer(path)
    encode, encode_into = tokenizer.encode, tokenizer.encode_into
    buffer = np.empty(_BUFFER_IDS, np.int32)

    def tensors(texts: list[str]) -> Ids:
        width = encode_into(texts, buffer)
        return buffer[: len(texts) * width].reshape(len(texts), width)

    def rows(texts: list[str]) -> list[Row]:
        found = encode(texts)
        return [found.ids[first:last] for first, last in pairwise(found.starts.tolist())]

    return Calls(encode, encode, rows, tensors, lambda text: buffer[: encode_into(text, buffer)])


def penstock_offsets(path: str) -> Calls:
    """Penstock's with offsets, which stay in the one array that they come in."""
    options = import_module("penstock_kernels.options").EncodeOptions(return_offsets=True)
    encode = partial(_penstock_tokenizer(path).encode, options=options)
    pack_rows = import_module("penstock_kernels").pack_rows

    def rows(texts: list[str]) -> list[Row]:
        found = encode(texts)
        return [found.ids[first:last] for first, last in pairwise(found.starts.tolist())]

    def tensors(texts: list[str]) -> Ids:
        found = encode(texts)
        out = np.empty((len(texts), int(found.lengths.max())), np.int32)
        pack_rows([(found, np.arange(len(texts), dtype=np.int32))], out.shape[1], 0, out, None, None)
        return out

    return Calls(encode, encode, rows, tensors, lambda text: tensors([text]))


def _penstock_tokenizer(path: str) -> Any:
    blob = import_module("penstock_server.text.tokenizer_files").load_tokenizer_blob(Path(path))
    return import_module("penstock_kernels._tokenizer").Tokenizer(blob)


_LIBRARIES: dict[str, tuple[Callable[[str], Calls], str]] = {
    "penstock": (penstock, "penstock-server"),
    "penstock with offsets": (penstock_offsets, "penstock-server"),
    "tokenizers 0.23": (huggingface, "tokenizers"),
    "tokenizers 0.23 with offsets": (huggingface_offsets, "tokenizers"),
    "tokenizers 1.0": (huggingface_next, "tokenizers"),
    "tokie": (tokie, "tokie"),
    "splintr": (splintr, "splintr-rs"),
    "fastokens": (fastokens, "fastokens"),
    "gigatoken": (gigatoken, "gigatoken"),
}


def load(contender: str, path: str) -> tuple[Calls, str]:
    """A contender's calls for a tokenizer.json, and the library's version."""
    library, distribution = _LIBRARIES[contender]
    return library(path), metadata.version(distribution)
