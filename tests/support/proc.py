"""What the system tells of a process. Linux only."""

from __future__ import annotations

from pathlib import Path

_BYTES_PER_KIB = 1024
# What is neither the file that lies behind it nor shared with anybody who brought it: heap, stacks, and the
# segments that server and worker both map.
_MEMORY = ("RssAnon", "RssShmem")


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
