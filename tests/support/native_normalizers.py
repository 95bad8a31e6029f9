"""The native normalisers, through a small program that reads texts from its standard input."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from penstock_kernels import spec
from penstock_kernels.reference_aligned import AlignedChar
from penstock_kernels.reference_normalizers import Stage

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
SOURCES = [
    "tests/normalize_cli.cc",
    *(f"src/{name}.cc" for name in ("unicode", "graphemes", "normalizers", "utf8")),
]
FLAGS = [
    "-std=c++20",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Iinclude",
    "-Itests",
]


@cache
def program() -> str:
    """Compiles it, with sanitizers; once a session."""
    compiler = shutil.which("c++")
    assert compiler, "c++ is missing: install g++ 12 or later"
    path = Path(mkdtemp(prefix="normalize-cli-")) / "normalize_cli"
    built = subprocess.run(
        [compiler, *FLAGS, *SOURCES, "-o", str(path)],
        cwd=KERNELS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    return str(path)


def argument(stage: Stage) -> str:
    """How the program is told of a stage."""
    match stage:
        case spec.UnicodeForm(form):
            return form.name.lower()
        case spec.Lowercase():
            return "lowercase"
        case spec.StripAccents():
            return "strip_accents"
        case spec.Strip(left, right):
            return f"strip:{'l' * left}{'r' * right}"
        case spec.Replace(pattern, content):
            return f"replace:{pattern.encode().hex()}:{content.encode().hex()}"
        case spec.ReplaceSpaceRuns(content):
            return f"spaces:{content.encode().hex()}"
        case spec.Prepend(text):
            return f"prepend:{text.encode().hex()}"


def normalize(texts: Sequence[str], stages: Sequence[Stage], first: int = 0) -> list[list[AlignedChar]]:
    """What the native stages make of each text, whose first character has the index ``first``."""
    rows = _lines([str(first), *map(argument, stages)], texts)
    return [[_aligned_char(field) for field in row.split()] for row in rows]


def graphemes(texts: Sequence[str]) -> list[list[str]]:
    """Each text cut into its clusters."""
    found: list[list[str]] = []
    for text, row in zip(texts, _lines(["0", "graphemes"], texts), strict=True):
        ends = [int(end) for end in row.split()]
        found.append([text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)])
    return found


def _lines(arguments: list[str], texts: Sequence[str]) -> list[str]:
    lines = "".join(text.encode().hex() + "\n" for text in texts)
    answer = subprocess.run([program(), *arguments], input=lines, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-4000:]
    return answer.stdout.split("\n")[:-1]


def _aligned_char(field: str) -> AlignedChar:
    code_point, begin, end = map(int, field.split(","))
    return AlignedChar(chr(code_point), begin, end)
