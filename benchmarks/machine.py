"""What a measurement ran on, and who else used the machine meanwhile. Linux only."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from penstock_server.config import usable_cores

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PACKAGES = ("penstock-server", "grpcio", "numpy", "onnxruntime", "protobuf")


def describe_machine() -> dict[str, object]:
    """Describes processor, memory, system and versions."""
    return {
        "cpu": _line_of("/proc/cpuinfo", "model name"),
        "cores_usable": usable_cores(),
        "memory": _line_of("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "load_average_before": os.getloadavg(),
    }


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of processor time since the machine started: all of it, the server's and the generators'."""

    at_s: float
    machine_s: float
    server_s: float
    clients_s: float

    def cores_since(self, earlier: CpuTime) -> dict[str, float]:
        """Average cores in use between two readings; ``others`` is what ran beside the measurement."""
        elapsed_s = self.at_s - earlier.at_s
        machine = (self.machine_s - earlier.machine_s) / elapsed_s
        server = (self.server_s - earlier.server_s) / elapsed_s
        clients = (self.clients_s - earlier.clients_s) / elapsed_s
        others = max(0.0, machine - server - clients)
        cores = {"machine": machine, "server": server, "clients": clients, "others": others}
        return {name: round(value, 3) for name, value in cores.items()}


def read_cpu_time(at_s: float, server_pid: int | None, client_pids: Iterable[int]) -> CpuTime:
    """Reads processor times; a server on another machine counts as 0."""
    server_s = sum(_process_s(pid) for pid in process_tree(server_pid)) if server_pid else 0.0
    return CpuTime(at_s, _machine_s(), server_s, sum(_process_s(pid) for pid in client_pids))


def _machine_s() -> float:
    first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    user, nice, system, _, _, irq, soft_irq, steal = (int(number) for number in first[1:9])
    return (user + nice + system + irq + soft_irq + steal) / _TICKS_PER_S


def _process_s(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def process_tree(pid: int) -> list[int]:
    """A process and its children's processes."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        texts = [(thread / "children").read_text(encoding="ascii") for thread in threads]
    except OSError:
        return [pid]
    children = [int(child) for text in texts for child in text.split()]
    return [pid, *(member for child in children for member in process_tree(child))]


def _line_of(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return done.stdout.strip()
