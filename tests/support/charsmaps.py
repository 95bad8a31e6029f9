"""SentencePiece character maps (``precompiled_charsmap``) out of plain dictionaries."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_LEAF = 1 << 31
_HAS_LEAF = 1 << 8
_OFFSET_SHIFT = 10
_OFFSETS = 1 << 21
_BLOCK = 256


@dataclass(slots=True)
class _Node:
    children: dict[int, _Node] = field(default_factory=dict[int, "_Node"])
    leaf: int | None = None

    def labels(self) -> list[int]:
        """Bytes that lead on; 0 leads to the leaf."""
        return [*([] if self.leaf is None else [0]), *sorted(self.children)]


class _Units:
    """Darts-clone units that are being placed."""

    def __init__(self) -> None:
        self._units = {0: 0}
        self._bases: set[int] = set()

    def place(self, at: int, node: _Node) -> None:
        """Puts the children of the node, whose unit lies ``at``, where there is room for all."""
        base = next(base for base in self._free_bases() if self._has_room(base, node))
        self._bases.add(base)
        assert at ^ base < _OFFSETS, "the map is too large for this simple way of laying it out"
        self._units[at] |= (at ^ base) << _OFFSET_SHIFT | (0 if node.leaf is None else _HAS_LEAF)
        for label in node.labels():
            self._units[base ^ label] = label
        if node.leaf is not None:
            self._units[base] = _LEAF | node.leaf
        for label, child in node.children.items():
            self.place(base ^ label, child)

    def packed(self) -> bytes:
        """All units, little-endian."""
        size = max(self._units) // _BLOCK * _BLOCK + _BLOCK
        return struct.pack(f"<{size}I", *(self._units.get(at, 0) for at in range(size)))

    def _free_bases(self) -> Iterator[int]:
        return (base for base in range(1, _OFFSETS) if base not in self._bases)

    def _has_room(self, base: int, node: _Node) -> bool:
        return all((base ^ label) not in self._units for label in node.labels())


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """The bytes that a ``tokenizer.json`` holds in base64 for these replacements."""
    root = _Node()
    texts = b""
    for key, value in replacements.items():
        node = root
        for byte in key.encode():
            node = node.children.setdefault(byte, _Node())
        node.leaf = len(texts)
        texts += value.encode() + b"\0"
    units = _Units()
    units.place(0, root)
    packed = units.packed()
    return struct.pack("<I", len(packed)) + packed + texts
