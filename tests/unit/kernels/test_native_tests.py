"""The C++ tests, and the fuzz target on seeded input, pass under the sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.support import fuzz_blobs

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build" / "asan"
BLOBS = ROOT / "build" / "fuzz-blobs"


def tool(name: str) -> str:
    """A tool of the environment (from PyPI), else of the system."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is missing: pip install -r requirements-dev.txt"
    return found


def run(*command: str) -> None:
    environment = os.environ | {"PENSTOCK_FUZZ_BLOBS": str(BLOBS)}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"


def test_native_tests_pass_under_sanitizers() -> None:
    fuzz_blobs.write(BLOBS)
    cmake = tool("cmake")
    generator = (
        []
        if (BUILD / "CMakeCache.txt").exists()
        else ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"]
    )
    run(cmake, "-S", str(ROOT), "-B", str(BUILD), "-DPENSTOCK_SANITIZE=address,undefined", *generator)
    run(cmake, "--build", str(BUILD), "--parallel", "2")
    run(tool("ctest"), "--test-dir", str(BUILD), "--output-on-failure", "--no-tests=error")
