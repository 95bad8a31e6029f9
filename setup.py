"""Builds the native kernels: CMake compiles, this copies each module where setuptools asks for it.

All native knowledge (standard, flags, sources, tests) is in CMakeLists.txt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
# Each is built by CMake as a target of the same name, without the package.
MODULES = (
    "penstock_kernels._batch",
    "penstock_kernels._compile",
    "penstock_kernels._schedule",
    "penstock_kernels._tokenizer",
)


def missing_prerequisite() -> str | None:
    """One line saying what to install, or None if the kernels can be built."""
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(shutil.which(compiler) for compiler in compilers):
        return f"No C++ compiler ({', '.join(compilers)}) found: install the Debian package g++."
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"The headers of Python {version} are missing: install the Debian package python{version}-dev."
    if not shutil.which("cmake"):
        return "CMake not found: install the Debian package cmake, or build with pip's build isolation."
    return None


class CMakeBuild(build_ext):
    """Runs CMake once for all extension modules."""

    def build_extensions(self) -> None:
        """Builds every module and copies it to its place in the package or the build tree."""
        if message := missing_prerequisite():
            raise SystemExit(f"penstock-server: {message}")
        build = ROOT / "build" / f"kernels-{sys.implementation.cache_tag}"
        configure = [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(build),
            "-DCMAKE_BUILD_TYPE=Release",
            "-DPENSTOCK_PYTHON=ON",
            # Isolated builds have a new interpreter path and a new ninja each time; the cache must follow.
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        if ninja := shutil.which("ninja"):
            configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        environment = {name: value for name, value in os.environ.items() if name != "CMAKE_GENERATOR"}
        try:
            subprocess.run(configure, check=True, env=environment, stdout=subprocess.DEVNULL)
            subprocess.run(["cmake", "--build", str(build), "--parallel"], check=True, env=environment)
        except subprocess.CalledProcessError as err:
            raise SystemExit(f"penstock-server: building the kernels failed: {err}") from err
        for extension in self.extensions:
            self.copy_module(build, extension)

    def copy_module(self, build: Path, extension: Extension) -> None:
        """Copies one built module where setuptools wants it (the source tree if editable)."""
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A running process may have the old file mapped: replace it, never write into it.
        fresh = target.with_suffix(".new")
        shutil.copyfile(build / "modules" / target.name, fresh)
        fresh.replace(target)


setup(
    ext_modules=[Extension(name, sources=[]) for name in MODULES],
    cmdclass={"build_ext": CMakeBuild},
)
