"""Virtual environments of the peers, one each: their requirements contradict one another."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hybrid.processes import ROOT

_TIMEOUT_S = 1_800.0


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment under build/, made of ``requirements-bench-NAME.txt``."""

    name: str

    @property
    def requirements(self) -> Path:
        """The pinned packages."""
        return ROOT / f"requirements-bench-{self.name}.txt"

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return ROOT / "build" / f"bench-{self.name}-venv"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return next(self.folder.glob("lib/python3.*")) / "site-packages"

    def prepare(self) -> str | None:
        """Installs the packages unless that is done; returns why it cannot be, or None."""
        wanted = hashlib.sha256(self.requirements.read_bytes()).hexdigest()
        stamp = self.folder / "requirements.sha256"
        if stamp.is_file() and stamp.read_text(encoding="ascii") == wanted:
            return None
        print(f"Installing {self.requirements.name} into {self.folder.relative_to(ROOT)}", file=sys.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)
        command = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-input", "--only-binary=:all:", "--requirement", str(self.requirements)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return f"pip took more than {_TIMEOUT_S:.0f} s"
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return errors[-1] if errors else f"pip ended with {done.returncode}"
        stamp.write_text(wanted, encoding="ascii")
        return None


TRITON, INFINITY, MOSEC = (Environment(name) for name in ("triton", "infinity", "mosec"))
