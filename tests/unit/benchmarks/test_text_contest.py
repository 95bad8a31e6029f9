from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.text.contest import (
    ContenderFailed,
    Outcome,
    Plan,
    Score,
    compare,
    run,
    started,
)
from benchmarks.text.page import write_page
from benchmarks.text.report import best_exact, figures
from benchmarks.text.works import REFERENCE, Work
from tests.support import vocabulary_parts as parts

WITH_OFFSETS = "tokenizers 0.23 with offsets"
TEXTS = ["ab ab", "", "B a ab", "aaaa é"] * 20
CORE = 0


def tokenizer_file(folder: Path, name: str, tokens: list[str]) -> Path:
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    vocab = {token: index for index, token in enumerate(tokens)}
    content = parts.tokenizer_json(
        model | {"max_input_chars_per_word": 100, "vocab": vocab}, pre_tokenizer={"type": "BertPreTokenizer"}
    )
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return tokenizer_file(tmp_path, "tokenizer.json", ["[UNK]", "a", "b", "##a", "##b", "ab"])


def work(*contenders: str, batch: int = 8) -> Work:
    return Work("toy", "none", lambda: iter(TEXTS), len(TEXTS), contenders, batch)


def test_contenders_are_measured_in_every_process_and_compared(tokenizer: Path) -> None:
    outcome = run(work(REFERENCE, WITH_OFFSETS), tokenizer, Plan(2, 3, 1, CORE), {})

    assert (outcome.texts, outcome.bytes) == (len(TEXTS), sum(len(text.encode()) for text in TEXTS))
    for score in outcome.scores:
        assert (len(score.cold_s), len(score.own_s), len(score.tensors_s)) == (2, 6, 6)
        assert min(score.cold_s + score.own_s + score.tensors_s) > 0
        assert (score.absent, score.differing, score.version) == (None, 0, "0.23.3")


def test_a_quick_run_takes_a_part_of_the_texts_and_single_calls_all(tokenizer: Path) -> None:
    plan = Plan(1, 1, 4, CORE)

    assert run(work(REFERENCE), tokenizer, plan, {}).texts == len(TEXTS) // 4
    assert run(work(REFERENCE, batch=0), tokenizer, plan, {}).texts == len(TEXTS)


def test_a_contender_that_is_not_installed_is_absent_with_the_reason(tokenizer: Path) -> None:
    outcome = run(work(REFERENCE, "tokie"), tokenizer, Plan(1, 1, 1, CORE), {"tokie": "no wheel for this"})
    found: dict[str, Any] = figures(outcome)

    assert found["contenders"][1] == {"contender": "tokie", "absent": "no wheel for this"}


def test_a_contender_that_cannot_load_is_absent_in_its_own_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    outcome = run(work(WITH_OFFSETS), broken, Plan(1, 1, 1, CORE), {})

    assert outcome.scores[0].absent is not None
    assert "EOF" in outcome.scores[0].absent


def test_a_contender_whose_process_dies_fails_and_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with started(REFERENCE, CORE) as contender, pytest.raises(ContenderFailed, match="ended with 1"):
        contender.ask("sample", what="own")


def test_texts_with_other_ids_are_counted_with_and_without_special_tokens(tmp_path: Path) -> None:
    tokens = ["[UNK]", "a", "b", "##a", "##b", "ab", "[S]"]
    usual = tokenizer_file(tmp_path, "usual.json", tokens)
    content = json.loads(usual.read_text(encoding="utf-8"))
    content["post_processor"] = parts.template("[S] A", "[S] A B", {"[S]": 6})
    usual.write_text(json.dumps(content), encoding="utf-8")
    # Without the template, and with "ab" spelled by two pieces: in two of the four texts.
    other = tokenizer_file(tmp_path, "other.json", [*tokens[:5], "abab", "[S]"])
    score = contested(tmp_path, usual, other)

    assert (score.differing, score.differing_inside) == (len(TEXTS), len(TEXTS) // 2)


def contested(folder: Path, usual: Path, other: Path) -> Score:
    """How the reference with one file fares against itself with another."""
    texts = folder / "texts.json"
    texts.write_text(json.dumps(TEXTS), encoding="utf-8")
    scores = {name: Score(name) for name in (REFERENCE, WITH_OFFSETS)}
    with started(REFERENCE, CORE) as first, started(WITH_OFFSETS, CORE) as second:
        for contender, path in ((first, usual), (second, other)):
            contender.ask("load", contender=REFERENCE, path=str(path))
            contender.ask("texts", path=str(texts), batch=8)
        compare({REFERENCE: first, WITH_OFFSETS: second}, scores, folder, usual)
    return scores[WITH_OFFSETS]


def scored(**tensors_s: float) -> Outcome:
    scores = [
        Score(
            name.replace("_", " "),
            tensors_s=[seconds],
            own_s=[seconds],
            cold_s=[seconds],
            load_s=[0.1],
            differing=0,
        )
        for name, seconds in tensors_s.items()
    ]
    return Outcome(work(*(score.contender for score in scores)), 100, 2_000_000, tuple(scores))


def test_rates_are_megabytes_a_second_and_single_calls_microseconds() -> None:
    found: dict[str, Any] = figures(scored(penstock=0.01, tokie=0.04))

    assert found["contenders"][0]["warm_tensors"]["median"] == 200.0
    assert found["best_exact_other"] == {"contender": "tokie", "penstock_is_faster": 4.0}
    scores = scored(penstock=0.0001).scores
    single: dict[str, Any] = figures(Outcome(work("penstock", batch=0), 100, 6_400, scores))
    assert single["contenders"][0]["warm_tensors"]["median"] == 1.0


def test_the_best_other_is_an_exact_one() -> None:
    outcome = scored(penstock=0.01, tokie=0.02, splintr=0.03)
    outcome.scores[1].differing = 1

    best = best_exact(outcome)
    assert best is not None
    assert best[0] == "splintr"
    assert best[1] == pytest.approx(3.0)


def test_the_page_keeps_its_prose_and_renews_its_figures(tmp_path: Path) -> None:
    page = tmp_path / "text.md"
    machine: dict[str, object] = {"cpu": "a processor", "python": "3.11", "commit": "abc"}
    write_page(page, [scored(penstock=0.01, tokie=0.04)], machine, "2026-11-24T00:00:00+00:00")
    page.write_text(page.read_text(encoding="utf-8") + "\nAn explanation.\n", encoding="utf-8")
    write_page(page, [scored(penstock=0.02, tokie=0.04)], machine, "2026-11-25T00:00:00+00:00")
    text = page.read_text(encoding="utf-8")

    assert text.endswith("\nAn explanation.\n")
    assert "2026-11-25" in text
    assert "2026-11-24" not in text
    assert "Penstock has 2.00 times the speed of the best exact other, tokie." in text
    assert "| penstock () | 100.00 | 100.00 | 100.00 | 0 |" in text


def test_a_page_without_marks_is_not_overwritten(tmp_path: Path) -> None:
    page = tmp_path / "text.md"
    page.write_text("My own text.", encoding="utf-8")

    with pytest.raises(ValueError, match="lost the marks"):
        write_page(page, [], {"cpu": "", "python": "", "commit": ""}, "2026-11-25")
    assert page.read_text(encoding="utf-8") == "My own text."
