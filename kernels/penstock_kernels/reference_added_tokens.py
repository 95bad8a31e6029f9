"""Added tokens in text: the twin of ``penstock/added_tokens.h`` (AddedVocabulary::find_matches)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from penstock_kernels import reference_unicode as unicode
from penstock_kernels.spec import AddedToken


class Split(NamedTuple):
    """An added token, or (None) text between added tokens."""

    token: AddedToken | None
    begin: int
    end: int


def split_added(text: str, tokens: Sequence[AddedToken], split_special: bool = False) -> Iterator[Split]:
    """Splits at added tokens: leftmost, longest, not overlapping. Empty texts between them are left out.

    Args:
        text: What is split.
        tokens: What is looked for.
        split_special: Special tokens are text like any other; their matches are consumed all the same.
    """
    done = at = 0
    while at < len(text):
        found = max(
            (token for token in tokens if text.startswith(token.content, at)),
            key=lambda token: len(token.content),
            default=None,
        )
        if found is None:
            at += 1
            continue
        begin, end = at, at + len(found.content)
        # A match that single_word rejects is consumed all the same.
        at = end
        if (split_special and found.special) or (found.single_word and not _stands_alone(text, begin, end)):
            continue
        if found.lstrip:
            begin = max(len(text[:begin].rstrip(unicode.WHITESPACE)), done)
        if found.rstrip:
            end = len(text) - len(text[end:].lstrip(unicode.WHITESPACE))
        # A predecessor's rstrip may have gone past this match: then nothing is left of it.
        end = max(begin, end)
        if done < begin:
            yield Split(None, done, begin)
        if begin < end:
            yield Split(found, begin, end)
        done = end
    if done < len(text):
        yield Split(None, done, len(text))


def distinct(tokens: Iterable[AddedToken]) -> tuple[AddedToken, ...]:
    """The tokens as they are.

    Raises:
        ValueError: A content is empty or there twice.
    """
    by_content: dict[str, AddedToken] = {}
    for token in tokens:
        if not token.content or token.content in by_content:
            raise ValueError(
                f"the added token with id {token.id} is empty or the same as another once normalised; "
                'remove it, or set its "normalized" to false'
            )
        by_content[token.content] = token
    return tuple(by_content.values())


def _stands_alone(text: str, begin: int, end: int) -> bool:
    before = begin > 0 and text[begin - 1] in unicode.WORD
    after = end < len(text) and text[end] in unicode.WORD
    return not before and not after
