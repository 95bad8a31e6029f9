"""Which processors need exact int8 products asked for."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock_server.engines.cpu import int8_saturates, own_cpus, stay_on, staying_on


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ("fpu sse4_1 avx2 fma", True),
        ("fpu avx2 avx512f avx512bw", True),
        ("fpu avx2 avx512f avx512_vnni", False),
        ("fpu avx2 avx_vnni", False),
    ],
)
def test_x86_saturates_without_vnni(tmp_path: Path, flags: str, saturates: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: avx_vnni\n")
    assert int8_saturates("x86_64", cpuinfo) is saturates


@pytest.mark.parametrize(
    ("threads", "allowed", "own"),
    [
        (2, {5, 3}, (3, 5)),
        (1, {0}, ()),
        (2, {0, 1, 2}, ()),
        (4, {0, 1}, ()),
    ],
)
def test_threads_have_cpus_of_their_own_only_if_there_are_as_many(
    monkeypatch: pytest.MonkeyPatch, threads: int, allowed: set[int], own: tuple[int, ...]
) -> None:
    def affinity(_: int) -> set[int]:
        return allowed

    monkeypatch.setattr(os, "sched_getaffinity", affinity)
    assert own_cpus(threads) == own


def test_only_the_calling_thread_stays_on_its_cpu() -> None:
    everywhere = os.sched_getaffinity(0)
    cpu = max(everywhere)
    with ThreadPoolExecutor(1, initializer=stay_on, initargs=((cpu, cpu),)) as thread:
        assert thread.submit(os.sched_getaffinity, 0).result() == {cpu}
    assert os.sched_getaffinity(0) == everywhere


def test_staying_ends() -> None:
    everywhere = os.sched_getaffinity(0)
    with staying_on((min(everywhere),)):
        assert os.sched_getaffinity(0) == {min(everywhere)}
    with staying_on(()):
        assert os.sched_getaffinity(0) == everywhere


def test_unreadable_flags_count_as_saturating(tmp_path: Path) -> None:
    assert int8_saturates("AMD64", tmp_path / "none")


def test_other_architectures_do_not_saturate(tmp_path: Path) -> None:
    assert not int8_saturates("aarch64", tmp_path / "none")
