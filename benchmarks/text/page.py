"""The page in docs/benchmarks: figures between two marks are renewed, prose around them stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.text.contest import Outcome, Score
from benchmarks.text.report import best_exact, goal_of, other_ids, unit_of, value
from benchmarks.text.works import PENSTOCK

_BEGIN, _END = "<!-- figures: written by make bench-text ARGS=--write -->", "<!-- end of figures -->"
_REASON_CHARS_MAX = 120
_NEW_PAGE = f"""\
# Tokenizers on one core

`make bench-text` compares Penstock's tokenizer with other libraries; `ARGS=--quick` does it in two minutes.

- Every contender has a process of its own on the same core. Only one works at a time, in turns that begin
  with another one each round, and what counts is processor time.
- **Tensors** is a padded int32 array of ids for each batch of 64, made in the cheapest way that a library
  offers; **own result** is the library's own object alone. Penstock writes into a buffer that its caller
  keeps, as the server does.
- Warm figures are medians over all rounds of all processes; **cold** is the first pass of a fresh process, up
  to tensors, with whatever work the library has put off until then.
- **Other ids** counts the texts whose ids are not those of tokenizers 0.23.3, found in the same run; in
  brackets those that differ with special tokens taken out of both, for libraries that do not add them.

{_BEGIN}
{_END}
"""


def write_page(path: Path, outcomes: Sequence[Outcome], machine: dict[str, object], started: str) -> None:
    """Renews the figures on the page, or begins the page.

    Raises:
        ValueError: The page is there, but the marks are not.
    """
    page = path.read_text(encoding="utf-8") if path.is_file() else _NEW_PAGE
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{path} has lost the marks around its figures; put them back: {_BEGIN} and {_END}")
    where = f"{machine['cpu']}, Python {machine['python']}"
    about = f"Measured {started[:10]} at commit {machine['commit']}: {where}."
    figures = "\n\n".join([about, *map(_table, outcomes)])
    path.write_text(f"{before}{_BEGIN}\n\n{figures}\n\n{_END}{after}", encoding="utf-8")


def _table(outcome: Outcome) -> str:
    unit = unit_of(outcome)
    heads = ("contender", f"tensors, {unit}", f"own result, {unit}", f"cold, {unit}", "other ids")
    lines = [
        f"### {outcome.work.name}",
        "",
        f"{outcome.texts:,} texts, {outcome.bytes / 1e6:.2f} MB, vocabulary `{outcome.work.vocabulary}`"
        f"{goal_of(outcome)}.{_against_best(outcome)}",
        "",
        f"| {' | '.join(heads)} |",
        "|---|" + "---:|" * (len(heads) - 1),
        *(_line(outcome, score) for score in outcome.scores if score.absent is None),
    ]
    absent = [score for score in outcome.scores if score.absent is not None]
    if absent:
        lines += [
            "",
            *(f"Absent: {score.contender}: {str(score.absent)[:_REASON_CHARS_MAX]}" for score in absent),
        ]
    return "\n".join(lines)


def _against_best(outcome: Outcome) -> str:
    best = best_exact(outcome)
    if best is None:
        return ""
    return f" {PENSTOCK.capitalize()} has {best[1]:.2f} times the speed of the best exact other, {best[0]}."


def _line(outcome: Outcome, score: Score) -> str:
    samples = (score.tensors_s, score.own_s, score.cold_s)
    cells = " | ".join(f"{value(outcome, median(seconds)):.2f}" for seconds in samples)
    return f"| {score.contender} ({score.version}) | {cells} | {other_ids(score)} |"
