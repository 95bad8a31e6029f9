"""Random sets of added tokens, in every kind of tokenizer, are found as by Hugging Face tokenizers."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.support.added_token_sets import BASES, check_set

SETS_OF_EACH = 4
SEEDS_MAX = 40


@pytest.mark.parametrize("base", BASES)
def test_any_set_of_added_tokens_is_found_as_by_the_oracle(base: str, tmp_path: Path) -> None:
    # Some sets are refused, as their tokens become the same, or nothing, when normalised.
    checked = (seed for seed in range(SEEDS_MAX) if check_set(base, seed, tmp_path))
    assert len(list(islice(checked, SETS_OF_EACH))) == SETS_OF_EACH
