"""The competitors' own virtual environment: tokenizers 1.0 cannot live beside the 0.23 of the tests."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements-bench.txt"
FOLDER = ROOT / "build" / "bench-venv"
PYTHON = FOLDER / "bin" / "python"
_REPORT = FOLDER / "installed.json"
_TIMEOUT_S = 900.0


def prepare() -> dict[str, str]:
    """Installs what requirements-bench.txt lists, one by one, unless that is done.

    Returns:
        Packages that cannot be installed here, and why.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if _REPORT.is_file():
        report = json.loads(_REPORT.read_text(encoding="utf-8"))
        if report["requirements_sha256"] == wanted:
            absent: dict[str, str] = report["absent"]
            return absent
    shutil.rmtree(FOLDER, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    absent = {}
    for requirement in (line for line in lines if line and not line.startswith("#")):
        reason = _install(requirement)
        if reason is not None:
            absent[requirement.partition("==")[0]] = reason
    _REPORT.write_text(json.dumps({"requirements_sha256": wanted, "absent": absent}), encoding="utf-8")
    return absent


def _install(requirement: str) -> str | None:
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    # The constraint keeps one competitor's dependencies from changing another competitor.
    command += ["--only-binary=:all:", "--constraint", str(REQUIREMENTS), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"pip took more than {_TIMEOUT_S:.0f} s"
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return errors[-1] if errors else f"pip ended with {done.returncode}"
