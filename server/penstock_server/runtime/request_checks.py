"""What a request's texts and options must be, told by field."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np

from penstock_kernels import TokenRows
from penstock_server.config import RequestLimits
from penstock_server.domain.errors import FieldViolation, InvalidRequest
from penstock_server.runtime.request_ticket import TextRow

_VIOLATIONS_MAX = 20
_UTF8_BYTES_MAX = 4  # of a character


def check_rows(rows: Sequence[TextRow], limits: RequestLimits, *, allow_empty: bool) -> None:
    """Refuses texts that can never work, naming each.

    Raises:
        InvalidRequest: No texts, too many, or texts that are empty or too large.
    """
    if not rows:
        raise InvalidRequest.of_field("inputs", "is empty; send at least one text")
    if len(rows) > limits.rows_max:
        raise InvalidRequest.of_field(
            "inputs", f"has {len(rows):,} rows; at most {limits.rows_max:,} are allowed: split it"
        )
    safe_chars = limits.text_bytes_max // _UTF8_BYTES_MAX
    violations = [
        FieldViolation(f"inputs[{index}].{name}", problem)
        for index, row in enumerate(rows)
        if row.pair is not None or not 0 < len(row.text) <= safe_chars
        for name, text in (("text", row.text), ("text_pair", row.pair))
        if text is not None and (problem := _problem_of(text, limits.text_bytes_max, allow_empty=allow_empty))
    ]
    if violations:
        first = violations[0]
        more = f" ({len(violations) - 1} more are wrong)" if len(violations) > 1 else ""
        raise InvalidRequest(f"{first.field}: {first.description}{more}", violations[:_VIOLATIONS_MAX])


def refuse_truncated(tokens: TokenRows, tokens_max: int | None) -> None:
    """Refuses a request whose texts had to be cut.

    Raises:
        InvalidRequest: Some were; the first of them are named.
    """
    indices = np.flatnonzero(tokens.truncated)
    if not len(indices):
        return
    problem = f"has more than {tokens_max} tokens, and truncation is off; shorten it or allow truncation"
    violations = [FieldViolation(f"inputs[{index}].text", problem) for index in indices[:_VIOLATIONS_MAX]]
    raise InvalidRequest(f"{violations[0].field}: {problem}", violations)


@contextmanager
def naming_one_text() -> Generator[None]:
    """Names a stream's one ``input`` in what is refused, where a request of many texts has ``inputs[0]``."""
    try:
        yield
    except InvalidRequest as err:
        violations = [
            FieldViolation(violation.field.replace("inputs[0]", "input"), violation.description)
            for violation in err.violations
        ]
        message = err.message.replace("inputs[0]", "input")
        raise InvalidRequest(message, violations, **err.metadata) from err


def has_pairs(rows: Sequence[TextRow]) -> bool:
    """Whether any row is a pair."""
    return any(row.pair is not None for row in rows)


def _problem_of(text: str, bytes_max: int, *, allow_empty: bool) -> str:
    if not text and not allow_empty:
        return "is empty; leave out empty texts"
    # Most texts are far below the limit; only those that might exceed it are measured in bytes.
    if len(text) * _UTF8_BYTES_MAX > bytes_max and len(text.encode()) > bytes_max:
        return f"is longer than {bytes_max:,} bytes; cut it into parts"
    return ""
