"""How many tokens texts have: real lengths, built in or from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.model import TOKENS_MAX
from penstock_server.simulation.builtin import BUILTIN_LENGTHS

Lengths = NDArray[np.int32]


def known_lengths(source: str) -> Lengths:
    """Returns lengths to draw from, ascending.

    Args:
        source: A name of `BUILTIN_LENGTHS`, or a file with one number of tokens a line.

    Raises:
        InvalidRequest: No such name or file, or a line is no number of tokens.
    """
    if source in BUILTIN_LENGTHS:
        return np.asarray(BUILTIN_LENGTHS[source], dtype=np.int32)
    path = Path(source)
    if not path.is_file():
        names = ", ".join(BUILTIN_LENGTHS)
        raise InvalidRequest(f"No lengths {source!r}: give one of {names}, or a file with a number a line.")
    try:
        found = np.array([int(line) for line in path.read_text().split()], dtype=np.int64)
    except ValueError as err:
        raise InvalidRequest(f"{path} must hold one number of tokens a line: {err}.") from err
    if not len(found) or found.min() < 1 or found.max() > TOKENS_MAX:
        raise InvalidRequest(f"{path} must hold numbers of tokens from 1 to {TOKENS_MAX:,}, one a line.")
    return np.sort(found).astype(np.int32)


def draw(known: Lengths, count: int, random: np.random.Generator) -> Lengths:
    """Draws lengths with replacement."""
    return known[random.integers(0, len(known), count)]
