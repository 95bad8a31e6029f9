"""Which rows of a window cannot be computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from penstock_server.domain.job import RowFailure

if TYPE_CHECKING:
    from penstock_kernels import TokenRows


def bad_rows(
    known: Mapping[int, RowFailure], tokens: TokenRows, tokens_max: int | None
) -> dict[int, RowFailure]:
    """Adds rows that are not UTF-8, or too long where cutting is not allowed, to those that are bad already.

    Args:
        known: Rows that were bad in the input, by index.
        tokens: The tokens of all rows.
        tokens_max: The limit that is not to be cut to, for the message; None where rows are cut.
    """
    failures = dict(known)
    for index in np.flatnonzero(~tokens.valid).tolist():
        failures.setdefault(index, RowFailure("INVALID_UTF8", "The text is not UTF-8."))
    if tokens_max is not None:
        message = f"The text has more than {tokens_max} tokens, and truncation is off."
        for index in np.flatnonzero(tokens.truncated).tolist():
            failures.setdefault(index, RowFailure("TOO_MANY_TOKENS", message))
    return failures
