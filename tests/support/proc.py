"""What the system tells of a process. Linux only."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_BYTES_PER_KIB = 1024
# What is neither the file that lies behind it nor shared with anybody who brought it: heap, stacks, and the
# segments that server and worker both map.
_MEMORY = ("RssAnon", "RssShmem")
# Where user and system time stand in a thread's ``stat``, counted from behind its name (proc(5)).
_USER, _SYSTEM = 11, 12


def status_of(pid: int) -> dict[str, str]:
    """The fields of a process's status. Raises OSError if it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def memory_bytes(status: dict[str, str]) -> int:
    """Memory of a process without mapped files."""
    return sum(int(status[name].split()[0]) * _BYTES_PER_KIB for name in _MEMORY if name in status)


def command_of(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def thread_cpu_s(pid: int) -> dict[int, float]:
    """CPU time of each thread of a process by its id, in seconds; that of the first has the process's id."""
    ticks = os.sysconf("SC_CLK_TCK")
    found: dict[int, float] = {}
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                fields = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                found[int(path.name)] = (int(fields[_USER]) + int(fields[_SYSTEM])) / ticks
    return found
