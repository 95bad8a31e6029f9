from __future__ import annotations

from types import SimpleNamespace

import pytest

from penstock_server.ray.attempts import Attempts, begin
from penstock_server.ray.errors import RayJobFailed


def test_a_window_over_which_workers_die_ends_the_job_and_others_do_not() -> None:
    # What Ray would do in other processes happens here and now.
    ray = SimpleNamespace(get=int)
    attempts = SimpleNamespace(begin=SimpleNamespace(remote=Attempts().begin))
    for _ in range(3):
        begin(ray, attempts, 7, 28_672)
        begin(ray, attempts, 8, 32_768)
    with pytest.raises(RayJobFailed, match="3 workers have died over the same rows, from row 28,672 on"):
        begin(ray, attempts, 7, 28_672)
