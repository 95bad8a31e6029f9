"""What the reference twins hand from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class AlignedChar(NamedTuple):
    """One normalised character and the code points of the input, [begin, end), that it stands for."""

    text: str
    begin: int
    end: int


class Token(NamedTuple):
    """A token and the code points of the input that it stands for."""

    id: int
    begin: int
    end: int


@dataclass(slots=True)
class Word:
    """A split of the piece.

    Attributes:
        chars: Its characters; stages may rewrite them.
        origin: Where its slice of the original begins, in code points.
    """

    chars: list[AlignedChar] = field(default_factory=list[AlignedChar])
    origin: int = 0


class PlacedToken(NamedTuple):
    """A token of a text.

    Attributes:
        id: Its id.
        begin: Code point of the text where it begins.
        end: Where it ends.
        word: Index of the split that it was cut from.
        matched: Of an added token, what it matched: normalised text if it is looked for there.
    """

    id: int
    begin: int
    end: int
    word: int
    matched: str | None = None
