"""The cache of compiled tokenizers: what is stored, shared, replaced and never trusted."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog

from penstock_kernels.blob import check_blob, compile_tokenizer
from penstock_server.domain.errors import ModelBroken
from penstock_server.text import tokenizer_files
from penstock_server.text.tokenizer_files import CACHE_FOLDER, load_tokenizer_blob
from penstock_server.text.tokenizer_json import read_spec
from tests.support.small_tokenizers import tokenizer_json, wordpiece

LOAD = """
import sys
from pathlib import Path
from penstock_server.text.tokenizer_files import load_tokenizer_blob
for _ in range(int(sys.argv[2])):
    print(len(load_tokenizer_blob(Path(sys.argv[1]))))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A tokenizer.json in a folder of its own."""
    made = tmp_path / "tokenizer.json"
    made.write_text(json.dumps(tokenizer_json()))
    return made


def stored(path: Path) -> list[Path]:
    return sorted((path.parent / CACHE_FOLDER).iterdir())


def compiled(path: Path) -> bytes:
    return compile_tokenizer(read_spec(path.read_bytes()))


def logged(path: Path) -> list[str]:
    """Loads the blob, which must be right, and says what was logged."""
    with structlog.testing.capture_logs() as entries:
        assert bytes(load_tokenizer_blob(path)) == compiled(path)
    return [str(entry["event"]).split(":")[0] for entry in entries]


def test_the_compiled_tokenizer_is_stored_once_and_mapped_from_then_on(path: Path) -> None:
    assert logged(path) == []
    (file,) = stored(path)
    before = file.stat()
    blob = load_tokenizer_blob(path)
    assert file.stat() == before
    assert not blob.flags.writeable
    with open("/proc/self/maps", encoding="ascii") as maps:
        assert file.name in maps.read()


def test_other_users_may_read_what_is_stored(path: Path) -> None:
    load_tokenizer_blob(path)
    assert stat.S_IMODE(stored(path)[0].stat().st_mode) == 0o644


def test_another_tokenizer_replaces_the_stored_one(path: Path) -> None:
    old = load_tokenizer_blob(path)
    content = bytes(old)
    (before,) = stored(path)
    path.write_text(json.dumps(tokenizer_json(model=wordpiece(max_input_chars_per_word=7))))
    assert logged(path) == []
    (after,) = stored(path)
    assert after != before
    assert bytes(old) == content  # whoever has the old one mapped keeps it


def test_other_code_does_not_read_what_this_code_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_tokenizer_blob(path)
    (before,) = stored(path)
    monkeypatch.setattr(tokenizer_files, "_COMPILER", ())
    load_tokenizer_blob(path)
    (after,) = stored(path)
    assert after != before


def test_tokenizers_of_other_files_are_left_alone(path: Path) -> None:
    others = [path.with_name(name) for name in ("tokenizer-a.json", "tokenize.json")]
    for other in others:
        other.write_bytes(path.read_bytes())
        load_tokenizer_blob(other)
    (path.parent / CACHE_FOLDER / "mine.txt").touch()
    load_tokenizer_blob(path)
    path.write_text(json.dumps(tokenizer_json(added_tokens=[])))
    load_tokenizer_blob(path)
    names = [file.name.rsplit("-", 1)[0] for file in stored(path)]
    assert names == ["mine.txt", "tokenize", "tokenizer", "tokenizer-a"]


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda content: b"",
    lambda content: b"foreign",
    lambda content: content[:-1],
    lambda content: content + b"\0",
    lambda content: content[: len(content) // 2],
    lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
    lambda content: content[:8] + b"\xff" + content[9:],
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_blob_is_told_and_replaced(path: Path, damage: Callable[[bytes], bytes]) -> None:
    load_tokenizer_blob(path)
    (file,) = stored(path)
    file.write_bytes(damage(file.read_bytes()))
    assert logged(path) == ["compiled tokenizer unusable"]
    assert file.read_bytes() == compiled(path)
    assert logged(path) == []


def test_a_folder_that_cannot_be_written_to_costs_one_warning(path: Path) -> None:
    # A file where the folder should be stops the superuser too, whom permissions do not.
    (path.parent / CACHE_FOLDER).touch()
    with structlog.testing.capture_logs() as entries:
        blob = load_tokenizer_blob(path)
    assert bytes(blob) == compiled(path)
    assert not blob.flags.writeable
    assert blob.ctypes.data % 16 == 0
    assert [entry["log_level"] for entry in entries if "not stored" in entry["event"]] == ["warning"]


def test_a_full_disk_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert logged(path) == ["compiled tokenizer not stored"]
    assert stored(path) == []


def test_what_killed_processes_left_is_removed_after_a_while(path: Path) -> None:
    load_tokenizer_blob(path)
    (file,) = stored(path)
    old, young = (file.with_name(f"{file.stem}.{name}.tmp") for name in ("old", "young"))
    old.touch()
    young.touch()
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    path.write_text(json.dumps(tokenizer_json(added_tokens=[])))
    load_tokenizer_blob(path)
    assert not old.exists()
    assert young.exists()


def test_processes_may_load_at_once(path: Path) -> None:
    command = [sys.executable, "-c", LOAD, str(path), "20"]
    loading = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    while any(process.poll() is None for process in loading):
        # Somebody empties the cache all the while.
        for file in stored(path) if (path.parent / CACHE_FOLDER).is_dir() else []:
            if file.suffix == ".blob":
                file.unlink(missing_ok=True)
    size = len(compiled(path))
    for process in loading:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert output.split() == [str(size).encode()] * 20
    load_tokenizer_blob(path)
    assert [file.suffix for file in stored(path)] == [".blob"]


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"^cannot read tokenizer\.json: No such file or directory$"):
        load_tokenizer_blob(tmp_path / "tokenizer.json")


def test_nothing_is_stored_of_a_file_that_is_refused(path: Path) -> None:
    path.write_text(json.dumps(tokenizer_json(normalizer={"type": "Nmt"})))
    with pytest.raises(ModelBroken, match="normalizer Nmt"):
        load_tokenizer_blob(path)
    assert not (path.parent / CACHE_FOLDER).exists()


def test_a_blob_lies_where_its_records_can_be_read_in_place(path: Path) -> None:
    for _ in range(2):
        blob = load_tokenizer_blob(path)
        assert blob.dtype == np.uint8
        assert blob.ctypes.data % 16 == 0
        check_blob(blob.data)
