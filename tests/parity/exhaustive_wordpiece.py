"""What test_wordpiece_parity.py samples, in full: ``pytest tests/parity/exhaustive_wordpiece.py``.

Not collected by name, because the oracle needs minutes for it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parity.test_wordpiece_parity import NORMALIZERS, check_characters, settings_name
from tests.support.token_oracle import Parity, model_tokenizer, spelling_tokenizer
from tests.support.token_texts import RISKY, varied_texts


@pytest.mark.parametrize("settings", NORMALIZERS, ids=settings_name)
def test_every_character_equals_the_oracle(settings: dict[str, Any], tmp_path: Path) -> None:
    for first in range(0, 0x110000, 0x4000):
        check_characters(range(first, first + 0x4000), tmp_path, **settings)


@pytest.mark.parametrize("settings", NORMALIZERS, ids=settings_name)
def test_every_pair_of_risky_characters_equals_the_oracle(settings: dict[str, Any], tmp_path: Path) -> None:
    texts = [f"a{first}{second}b" for first in RISKY for second in RISKY]
    texts += [f"{first}\u0323{second}\u0301" for first in RISKY for second in RISKY]
    Parity(spelling_tokenizer(texts, **settings), tmp_path).check(texts)


@pytest.mark.parametrize("seed", range(20))
def test_a_million_varied_texts_equal_the_oracle(seed: int, tmp_path: Path) -> None:
    texts = varied_texts(50_000, seed=1_000 + seed)
    Parity(model_tokenizer(), tmp_path).check(texts)
    Parity(spelling_tokenizer(texts), tmp_path).check(texts)


def test_the_committed_unicode_tables_are_what_the_oracle_shows() -> None:
    generator = Path(__file__).resolve().parents[2] / "tools" / "generate_unicode_tables.py"
    subprocess.run([sys.executable, str(generator), "--check"], check=True)
