"""BERT's normaliser and the WordPiece model: twins of ``penstock/normalizer.h`` and ``wordpiece_model.h``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock_kernels import reference_unicode as unicode
from penstock_kernels.reference_aligned import AlignedChar, Token
from penstock_kernels.spec import BertNormalizer, WordPiece


def normalize_bert(
    chars: Sequence[AlignedChar], piece_begin: int, normalizer: BertNormalizer
) -> list[AlignedChar]:
    """The four stages of bert.rs, with alignments; ``piece_begin`` is where the piece begins."""
    spaced = list(_clean_and_space(chars, normalizer))
    if normalizer.strip_accents:
        # NormalizedString::filter: a deleted character does not widen its neighbours.
        spaced = [c for c in _decompose(spaced, piece_begin) if c.text not in unicode.MARKS]
    if normalizer.lowercase:
        spaced = [AlignedChar(low, c.begin, c.end) for c in spaced for low in unicode.lower(c.text)]
    return spaced


def _clean_and_space(chars: Sequence[AlignedChar], normalizer: BertNormalizer) -> Iterator[AlignedChar]:
    for char in chars:
        if normalizer.clean_text and char.text in unicode.CLEAN_REMOVED:
            continue
        is_space = normalizer.clean_text and char.text in unicode.CLEAN_SPACES
        kept = char._replace(text=" ") if is_space else char
        space = kept._replace(text=" ")
        is_cjk = normalizer.handle_chinese_chars and kept.text in unicode.CJK
        yield from (space, kept, space) if is_cjk else (kept,)


def _decompose(chars: list[AlignedChar], piece_begin: int) -> Iterator[AlignedChar]:
    """NFD whose characters carry whether they replace an input character or are inserted after one.

    The marks of a run are sorted together with that flag, while alignments are handed out in input order
    (NormalizedString::transform_range): an inserted character copies the alignment handed out last.
    """
    run: list[tuple[int, str, bool]] = []
    decomposed: list[tuple[str, bool]] = []
    for char in chars:
        for position, part in enumerate(unicode.decomposition(char.text)):
            combining_class = unicode.COMBINING.get(part, 0)
            if not combining_class:
                decomposed += [(c, replaces) for _, c, replaces in sorted(run, key=lambda mark: mark[0])]
                decomposed.append((part, position == 0))
                run.clear()
            else:
                run.append((combining_class, part, position == 0))
    decomposed += [(c, replaces) for _, c, replaces in sorted(run, key=lambda mark: mark[0])]
    source = iter(chars)
    begin = end = piece_begin
    for part, replaces in decomposed:
        if replaces:
            _, begin, end = next(source)
        yield AlignedChar(part, begin, end)


def cut_wordpiece(word: Sequence[AlignedChar], model: WordPiece) -> list[Token]:
    """The longest vocabulary entries from left to right, or one unknown token for the whole word."""
    unknown = [Token(model.unknown_id, word[0].begin, word[-1].end)]
    if len(word) > model.word_chars_max:
        return unknown
    text = "".join(c.text for c in word)
    tokens: list[Token] = []
    at = 0
    while at < len(word):
        prefix = model.continuing_prefix if at else ""
        ends = (end for end in range(len(word), at, -1) if prefix + text[at:end] in model.vocabulary)
        end = next(ends, None)
        if end is None:
            return unknown
        tokens.append(Token(model.vocabulary[prefix + text[at:end]], word[at].begin, word[end - 1].end))
        at = end
    return tokens
