"""Plain Python twin of SentencePiece's character map, the Precompiled normaliser of ``tokenizers`` 0.23.3."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from penstock_kernels.reference_aligned import AlignedChar
from penstock_kernels.reference_unicode import graphemes
from penstock_kernels.spec import Precompiled

# Longer clusters are looked up character by character.
_CLUSTER_BYTES_MAX = 5
_UNIT_BYTES = 4


class Change(NamedTuple):
    """A character of the normalised text and what it does to the input.

    Attributes:
        text: The character.
        change: 1: inserted, it copies the alignment of the input before it. Else it takes the next input
            character, and passes over ``-change`` more.
    """

    text: str
    change: int


def split_charsmap(charsmap: bytes) -> tuple[bytes, bytes]:
    """The units of the trie (little-endian u32) and the replacements, each ended by NUL.

    Raises:
        ValueError: The charsmap is malformed.
    """
    if len(charsmap) < _UNIT_BYTES:
        raise ValueError("the precompiled charsmap has no header: convert the tokenizer again")
    (size,) = struct.unpack_from("<I", charsmap)
    end = _UNIT_BYTES + size // _UNIT_BYTES * _UNIT_BYTES
    if end == _UNIT_BYTES or end > len(charsmap):
        raise ValueError(
            f"the precompiled charsmap announces a trie of {size} bytes but "
            f"has {len(charsmap) - _UNIT_BYTES}: convert the tokenizer again"
        )
    try:
        charsmap[end:].decode()
    except UnicodeDecodeError as err:
        raise ValueError("the precompiled charsmap's replacements are not UTF-8: convert it again") from err
    return charsmap[_UNIT_BYTES:end], charsmap[end:]


class Charsmap:
    """A character map, read in place.

    Args:
        charsmap: The bytes that ``tokenizer.json`` holds in base64.

    Raises:
        ValueError: The charsmap is malformed.
    """

    def __init__(self, charsmap: bytes) -> None:
        units, self._texts = split_charsmap(charsmap)
        self._units = struct.unpack(f"<{len(units) // _UNIT_BYTES}I", units)

    def replacement(self, text: str) -> str | None:
        """What the whole of ``text`` becomes: the replacement of the *shortest* prefix that is in the map."""
        at = self._child(0, 0)
        for byte in text.encode():
            if not byte:
                return None
            unit = self._unit(at ^ byte)
            if unit & 0x800000FF != byte:
                return None
            at ^= byte
            at = self._child(at, at)
            if unit >> 8 & 1:
                return self._text(self._unit(at) & 0x7FFFFFFF)
        return None

    def _unit(self, at: int) -> int:
        # Outside, where the reference panics, no unit matches any byte.
        return self._units[at] if at < len(self._units) else 0x80000000

    def _child(self, unit_at: int, at: int) -> int:
        unit = self._unit(unit_at)
        return at ^ (unit >> 10 << ((unit & 1 << 9) >> 6))

    def _text(self, begin: int) -> str | None:
        end = self._texts.find(b"\0", begin)
        try:
            return self._texts[begin : len(self._texts) if end < 0 else end].decode()
        except UnicodeDecodeError:
            return None


def normalize_precompiled(chars: list[AlignedChar], stage: Precompiled) -> list[AlignedChar]:
    """Replaces each grapheme cluster, or else each of its characters, by what the map says."""
    charsmap = _charsmap(stage.charsmap)
    changes: list[Change] = []
    for cluster in graphemes("".join(c.text for c in chars)):
        replacement = charsmap.replacement(cluster) if len(cluster.encode()) <= _CLUSTER_BYTES_MAX else None
        if replacement is not None:
            _replace(cluster, replacement, changes)
            continue
        for c in cluster:
            replacement = charsmap.replacement(c)
            _replace(c, c if replacement is None else replacement, changes)
    return list(_align(changes, chars))


_charsmap = lru_cache(maxsize=4)(Charsmap)


def _replace(old: str, new: str, changes: list[Change]) -> None:
    surplus = len(new) - len(old)
    changes += [Change(c, int(index >= len(old))) for index, c in enumerate(new)]
    # Deleted characters belong to the last character so far, also if that replaced something else; at the
    # beginning there is none, and from there on every character takes its predecessor's alignment.
    if surplus < 0 and changes:
        changes[-1] = Change(changes[-1].text, changes[-1].change + surplus)


def _align(changes: list[Change], chars: list[AlignedChar]) -> Iterator[AlignedChar]:
    """NormalizedString::transform. The first character is never an inserted one."""
    taken = 0
    for text, change in changes:
        if change > 0:
            _, begin, end = chars[taken - 1]
        else:
            _, begin, end = chars[taken]
            taken += 1 - change
        yield AlignedChar(text, begin, end)
