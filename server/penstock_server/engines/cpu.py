"""What the processor can do, as far as engines must know."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_X86_MACHINES = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})
# AVX-512 VNNI and the VEX-encoded AVX-VNNI, as the Linux kernel spells them.
_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})


def int8_saturates(machine: str | None = None, cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor's 8-bit products may saturate in 16 bits: x86 without VNNI.

    Args:
        machine: The architecture; this machine's by default.
        cpuinfo: Where Linux lists the processor's flags.

    Returns:
        True also for x86 where the flags cannot be read: right before fast.
    """
    if (machine or platform.machine()).lower() not in _X86_MACHINES:
        return False
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return _VNNI_FLAGS.isdisjoint(flags.split())
