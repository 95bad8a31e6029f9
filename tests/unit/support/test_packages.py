from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.packages import Archive, Damaged, Kind, Unavailable, fetch, member, members


@pytest.fixture(autouse=True)
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from instead of an index; fetched ones go to a folder of their own."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(packages, "FOLDER", tmp_path / "packages")
    return folder


def sdist(folder: Path, marker: Path) -> Archive:
    """A source package that leaves a marker if any of it is run."""
    setup = f"import setuptools\nopen({str(marker)!r}, 'w').close()\nsetuptools.setup(name='toy-data')\n"
    build = "requires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
    files = {
        "setup.py": setup,
        "pyproject.toml": "[build-system]\n" + build,
        "PKG-INFO": "Metadata-Version: 2.1\nName: toy-data\nVersion: 1.2\n",
        "data/words.txt": "ein zwei",
    }
    path = folder / "toy_data-1.2.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"toy_data-1.2/{name}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return Archive(Kind.SDIST, "toy-data", "1.2", hashlib.sha256(path.read_bytes()).hexdigest())


def wheel(folder: Path) -> Archive:
    path = folder / "toy_wheel-3.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/b.txt", "second")
        archive.writestr("toy/a.txt", "first")
        archive.writestr("toy/a.bin", b"\0")
        archive.writestr(
            "toy_wheel-3.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-wheel\nVersion: 3.0\n"
        )
        archive.writestr("toy_wheel-3.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("toy_wheel-3.0.dist-info/RECORD", "")
    return Archive(Kind.WHEEL, "toy-wheel", "3.0", hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_source_package_is_fetched_without_running_any_of_it(local_index: Path, tmp_path: Path) -> None:
    marker = tmp_path / "was run"

    assert member(sdist(local_index, marker), "toy_data-1.2/data/words.txt") == b"ein zwei"
    assert not marker.exists()


def test_members_are_those_that_begin_and_end_as_asked_in_order_of_name(local_index: Path) -> None:
    found = list(members(wheel(local_index), "toy/", ".txt"))

    assert found == [("toy/a.txt", b"first"), ("toy/b.txt", b"second")]


def test_a_package_with_another_checksum_is_refused_and_not_kept(local_index: Path) -> None:
    pinned = Archive(Kind.WHEEL, "toy-wheel", "3.0", "0" * 64)
    wheel(local_index)

    with pytest.raises(Damaged, match=r"toy-wheel 3\.0"):
        fetch(pinned)
    assert not pinned.path.exists()


def test_a_fetched_package_serves_without_an_index(local_index: Path) -> None:
    archive = wheel(local_index)
    path = fetch(archive)
    (local_index / "toy_wheel-3.0-py3-none-any.whl").unlink()

    assert fetch(archive) == path


def test_a_fetched_package_that_was_changed_is_fetched_anew(local_index: Path) -> None:
    archive = wheel(local_index)
    fetch(archive).write_bytes(b"something else")

    assert member(archive, "toy/a.txt") == b"first"


def test_a_package_that_no_index_has_is_unavailable_and_the_error_says_so() -> None:
    with pytest.raises(Unavailable, match=r"toy-none 1\.0 cannot be fetched: ERROR: .*toy-none"):
        fetch(Archive(Kind.WHEEL, "toy-none", "1.0", "0" * 64))


@pytest.mark.parametrize(("kind", "tool"), [(Kind.NPM, "npm"), (Kind.DEBIAN, "apt-get")])
def test_a_missing_tool_is_named(
    kind: Kind, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Unavailable, match=f"needs {tool}"):
        fetch(Archive(kind, "toy", "1.0", "0" * 64))


def test_an_unknown_member_is_a_key_error(local_index: Path) -> None:
    with pytest.raises(KeyError, match=r"toy-wheel 3\.0 has no file toy/c\.txt"):
        member(wheel(local_index), "toy/c.txt")
