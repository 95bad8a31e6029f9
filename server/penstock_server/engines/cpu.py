"""What the processor can do, as far as engines must know."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_X86_MACHINES = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})
# AVX-512 VNNI and the VEX-encoded AVX-VNNI, as the Linux kernel spells them.
_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})


def own_cpus(threads: int) -> tuple[int, ...]:
    """A CPU for each of an engine's threads, if the process may use just as many of them; else nothing.

    Where there are more, other processes may have chosen the same ones.
    """
    if threads == 1 or not hasattr(os, "sched_getaffinity"):
        return ()
    allowed = sorted(os.sched_getaffinity(0))
    return tuple(allowed) if len(allowed) == threads else ()


def stay_on(cpus: Sequence[int]) -> None:
    """Keeps the calling thread on the first of some CPUs; no effect if there are none."""
    # The kernel wakes a batch's other threads on the core of the one that woke them, where they wait for it
    # though other cores are idle: with two threads 25 tokens took 9.6 ms wherever the kernel liked, and 5.5
    # on a core each (MiniLM, Linux 6.18, 2026-11-27).
    if cpus:
        os.sched_setaffinity(0, cpus[:1])


@contextmanager
def staying_on(cpus: Sequence[int]) -> Generator[None]:
    """Keeps the calling thread on the first of some CPUs for a while; no effect if there are none."""
    before = os.sched_getaffinity(0) if cpus else set[int]()
    stay_on(cpus)
    try:
        yield
    finally:
        if cpus:
            os.sched_setaffinity(0, before)


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
