"""Plain Python twin of the BPE model, exactly as Hugging Face ``tokenizers`` 0.23.3 merges."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import NamedTuple

from penstock_kernels.reference_aligned import AlignedChar, Token
from penstock_kernels.spec import Bpe

MergeTable = dict[tuple[int, int], tuple[int, int]]


class _Merge(NamedTuple):
    """A pair that may be merged; ordered as merges happen: by rank, then from the left."""

    rank: int
    position: int
    merged_id: int


@dataclass(slots=True)
class _Symbol:
    """A part of the word that is one token so far. A size of 0 marks one that was merged into its left."""

    id: int
    size: int
    previous: int
    next: int


def merge_table(model: Bpe) -> MergeTable:
    """(rank, id of the merged symbol) by the pair of ids; of duplicates the last rank counts.

    Raises:
        ValueError: A part or the union of a merge is not in the vocabulary.
    """
    table: MergeTable = {}
    ids = model.vocabulary
    for rank, (left, right) in enumerate(model.merges):
        merged = left + _cut_bytes(right, len(model.continuing_prefix.encode("utf-8")))
        for part in (left, right, merged):
            if part not in ids:
                raise ValueError(
                    f"merge {rank} ({left!r}, {right!r}) needs {part!r}, which the vocabulary lacks"
                )
        table[ids[left], ids[right]] = rank, ids[merged]
    return table


def _cut_bytes(text: str, size: int) -> str:
    """The reference drops so many bytes from a merge's right part, whether they are the prefix or not."""
    try:
        return text.encode("utf-8")[size:].decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"the right part {text!r} of a merge is not a continuation") from None


class ReferenceBpe:
    """Cuts words by byte-pair merges. Immutable; safe to share between threads.

    Args:
        model: The vocabulary, the merges and the options.

    Raises:
        ValueError: As for ``merge_table``; or the model has byte fallback and a prefix or suffix, which spell
            tokens outside the text.
    """

    def __init__(self, model: Bpe) -> None:
        if model.byte_fallback and (model.continuing_prefix or model.end_suffix):
            raise ValueError("BPE with byte_fallback and a subword prefix or suffix is not supported")
        self._model = model
        self._merges = merge_table(model)
        fallback = [model.vocabulary.get(f"<0x{byte:02X}>") for byte in range(256)]
        self._byte_ids = fallback if model.byte_fallback else [None] * 256

    def cut(self, word: list[AlignedChar]) -> list[Token]:
        """Tokens of one word (not empty). O(n log n).

        A token takes as many bytes of the word as its symbols were made of, from where the one before ended.
        So a character that is dropped (unknown, without an unknown token) shifts the tokens after it.
        """
        text = "".join(char.text for char in word)
        char_of_byte = [char for char in word for _ in char.text.encode("utf-8")]
        if self._model.ignore_merges and text in self._model.vocabulary:
            return [Token(self._model.vocabulary[text], word[0].begin, word[-1].end)]
        tokens: list[Token] = []
        at = 0
        for symbol in self._merge_all(self._symbols(word)):
            end = at + symbol.size
            tokens.append(Token(symbol.id, char_of_byte[at].begin, char_of_byte[end - 1].end))
            at = end
        return tokens

    def _symbols(self, word: list[AlignedChar]) -> list[_Symbol]:
        """(id, bytes) of each character, with the unknown token's where there is none, in the order added."""
        model = self._model
        parts: list[tuple[int, int]] = []
        # An unknown token waits for more of its kind. Byte tokens don't end the wait: they come before it.
        unknown_size = 0
        for index, char in enumerate(word):
            size = len(char.text.encode("utf-8"))
            prefix = model.continuing_prefix if index else ""
            suffix = model.end_suffix if index == len(word) - 1 else ""
            token_id = model.vocabulary.get(prefix + char.text + suffix)
            byte_ids = [self._byte_ids[byte] for byte in char.text.encode("utf-8")]
            known_bytes = [byte_id for byte_id in byte_ids if byte_id is not None]
            if token_id is None and len(known_bytes) == len(byte_ids):
                parts += [(byte_id, 1) for byte_id in known_bytes]
                continue
            is_pending = unknown_size > 0 and model.unknown_id is not None
            if is_pending and (token_id is not None or not model.fuse_unknown):
                parts.append((model.unknown_id or 0, unknown_size))
                unknown_size = 0
            if token_id is not None:
                parts.append((token_id, size))
            elif model.unknown_id is not None:
                unknown_size += size
        if unknown_size and model.unknown_id is not None:
            parts.append((model.unknown_id, unknown_size))
        return [_Symbol(token_id, size, at - 1, at + 1) for at, (token_id, size) in enumerate(parts)]

    def _merge_all(self, symbols: list[_Symbol]) -> list[_Symbol]:
        heap: list[_Merge] = []
        for position in range(len(symbols) - 1):
            self._offer(symbols, position, heap)
        while heap:
            merge = heapq.heappop(heap)
            left = symbols[merge.position]
            if not left.size or left.next >= len(symbols):
                continue
            right = symbols[left.next]
            # The entry is out of date if its pair is gone; only what it would become is compared.
            if self._merges.get((left.id, right.id), (0, None))[1] != merge.merged_id:
                continue
            left.id, left.size, left.next = merge.merged_id, left.size + right.size, right.next
            right.size = 0
            if left.next < len(symbols):
                symbols[left.next].previous = merge.position
                self._offer(symbols, merge.position, heap)
            if left.previous >= 0:
                self._offer(symbols, left.previous, heap)
        return [symbol for symbol in symbols if symbol.size]

    def _offer(self, symbols: list[_Symbol], position: int, heap: list[_Merge]) -> None:
        symbol = symbols[position]
        found = self._merges.get((symbol.id, symbols[symbol.next].id))
        if found is not None:
            heapq.heappush(heap, _Merge(found[0], position, found[1]))
