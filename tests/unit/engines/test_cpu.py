"""Which processors need exact int8 products asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_server.engines.cpu import int8_saturates


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


def test_unreadable_flags_count_as_saturating(tmp_path: Path) -> None:
    assert int8_saturates("AMD64", tmp_path / "none")


def test_other_architectures_do_not_saturate(tmp_path: Path) -> None:
    assert not int8_saturates("aarch64", tmp_path / "none")
