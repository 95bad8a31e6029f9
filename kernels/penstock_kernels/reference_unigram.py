"""Plain Python twin of the Unigram model of ``tokenizers`` 0.23.3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from penstock_kernels.reference_aligned import AlignedChar, Token
from penstock_kernels.spec import Unigram

_UNKNOWN_PENALTY = 10.0


@dataclass(slots=True)
class _Node:
    """The best cut of the text before a position: its last piece begins at ``begin``."""

    score: float = 0.0
    begin: int = -1
    id: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Identity:
    """A model as a key: hashing all its pieces at each word would take too long."""

    model: Unigram

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.model is self.model

    def __hash__(self) -> int:
        return id(self.model)


def cut_unigram(word: list[AlignedChar], model: Unigram) -> list[Token]:
    """Cuts one word into its most probable pieces.

    Raises:
        ValueError: As for UnigramModel.
    """
    return _prepared(_Identity(model)).cut(word)


def _prepare(key: _Identity) -> UnigramModel:
    return UnigramModel(key.model)


_prepared = lru_cache(maxsize=4)(_prepare)


class UnigramModel:
    """Cuts words into their most probable pieces.

    Args:
        spec: The model.

    Raises:
        ValueError: The model has no unknown piece; the reference fails at the first text that needs it.
    """

    def __init__(self, spec: Unigram) -> None:
        if spec.unknown_id is None or not 0 <= spec.unknown_id < len(spec.pieces):
            raise ValueError("the Unigram model needs an unk_id within its vocabulary: set model.unk_id")
        self._unknown_id = spec.unknown_id
        # Of equal pieces the last counts, but the lowest score of all makes the unknown one's.
        self._ids = {piece: index for index, (piece, _) in enumerate(spec.pieces)}
        self._scores = [score for _, score in spec.pieces]
        self._unknown_score = unknown_score(spec)
        self._piece_chars_max = max(len(piece) for piece, _ in spec.pieces)
        self._byte_fallback = spec.byte_fallback

    def cut(self, word: list[AlignedChar]) -> list[Token]:
        """Tokens of one word. O(characters x longest piece)."""
        text = "".join(c.text for c in word)
        return [
            Token(token_id, word[begin].begin, word[end - 1].end)
            for begin, end in self._pieces(text)
            for token_id in self._token_ids(text[begin:end])
        ]

    def _token_ids(self, piece: str) -> list[int]:
        # Looked up anew: unknown characters that were joined may spell a piece.
        token_id = self._ids.get(piece)
        if token_id is not None:
            return [token_id]
        if self._byte_fallback:
            ids = [self._ids.get(f"<0x{byte:02X}>") for byte in piece.encode()]
            if None not in ids:
                return [token_id for token_id in ids if token_id is not None]
        return [self._unknown_id]

    def _pieces(self, text: str) -> list[tuple[int, int]]:
        """The best cut, neighbouring unknown pieces joined."""
        nodes = self._forward(text)
        pieces: list[tuple[int, int]] = []
        end = len(text)
        joins = False
        while end > 0:
            node = nodes[end]
            is_unknown = node.id == self._unknown_id
            if is_unknown and joins:
                pieces[-1] = (node.begin, pieces[-1][1])
            else:
                pieces.append((node.begin, end))
            joins = is_unknown
            end = node.begin
        return pieces[::-1]

    def _forward(self, text: str) -> list[_Node]:
        nodes = [_Node() for _ in range(len(text) + 1)]
        for begin in range(len(text)):
            before = nodes[begin].score
            for end, token_id, score in self._candidates(text, begin):
                node = nodes[end]
                # Strictly better: of equals the one that begins first stays.
                if node.begin < 0 or score + before > node.score:
                    nodes[end] = _Node(score + before, begin, token_id)
        return nodes

    def _candidates(self, text: str, begin: int) -> Iterator[tuple[int, int, float]]:
        for end in range(begin + 1, min(len(text), begin + self._piece_chars_max) + 1):
            token_id = self._ids.get(text[begin:end])
            if token_id is not None:
                yield end, token_id, self._scores[token_id]
        if text[begin] not in self._ids:
            yield begin + 1, self._unknown_id, self._unknown_score


def unknown_score(spec: Unigram) -> float:
    """Score of a character that is no piece."""
    return min(score for _, score in spec.pieces) - _UNKNOWN_PENALTY
