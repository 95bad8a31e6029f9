"""Native tokenizers where Python interrupts, ends or cheats."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from penstock_kernels._tokenizer import Tokenizer
from penstock_kernels.blob import compile_tokenizer
from penstock_kernels.options import EncodeOptions
from tests.support.fuzz_blobs import subjects

ENDS_WHILE_THREADS_ENCODE = """
import sys, threading
from pathlib import Path
from penstock_kernels._tokenizer import Tokenizer
from penstock_kernels.options import EncodeOptions

tokenizer = Tokenizer(Path(sys.argv[1]).read_bytes(), threads_max=4)
texts = ["ab \\u00e9\\u4e2d aba [S] \\u0301x " * 40] * 40000
begun = threading.Event()
sys.setswitchinterval(60)  # the main thread goes on once the call has given the GIL away

def encode():
    tokenizer.encode("ab")
    begun.set()
    tokenizer.encode(texts, options=EncodeOptions(threads=2, return_offsets=True))

threading.Thread(target=encode, daemon=True).start()
begun.wait()
"""

COMES_BACK_WHEN_PYTHON_ENDS = """
import os, sys, threading
from pathlib import Path
import numpy as np
from penstock_kernels._tokenizer import Tokenizer
from penstock_kernels.options import EncodeOptions

tokenizer = Tokenizer(Path(sys.argv[1]).read_bytes(), threads_max=4)
texts = ["ab \\u00e9\\u4e2d aba [S] \\u0301x " * 40] * 1000
ids = np.empty((1000, 16), np.int32)
options = EncodeOptions(threads=2, tokens_max=16, return_offsets=True)
calls = [
    lambda: tokenizer.encode(texts, options=options),
    lambda: tokenizer.encode_words([text.split() for text in texts[:50]], options=options),
    lambda: tokenizer.encode_into(texts, ids, options=options),
]
running = threading.Semaphore(0)

def encode_forever(call):
    while True:
        call()
        running.release()

threads = [threading.Thread(target=encode_forever, args=(call,), daemon=True) for call in calls]
for thread in threads:
    thread.start()
for _ in range(6):
    running.acquire()

class Last:
    # Runs when Python takes modules apart, and waits until it has stopped the threads as they came back.
    def __del__(self, exists=os.path.exists, yielding=os.sched_yield,
                tasks=["/proc/self/task/%d" % thread.native_id for thread in threads]):
        while any(map(exists, tasks)):
            yielding()

last = Last()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the script watches threads in /proc")
@pytest.mark.parametrize("name", ["albert", "modernbert", "bert-0000"])
def test_threads_that_come_back_when_python_ends_stop_without_a_word(name: str, tmp_path: Path) -> None:
    blob = tmp_path / "tokenizer.blob"
    blob.write_bytes(compile_tokenizer(subjects()[name]))
    for _ in range(5):
        command = [sys.executable, "-c", COMES_BACK_WHEN_PYTHON_ENDS, str(blob)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", ["albert", "modernbert"])
def test_a_process_may_end_while_threads_encode(name: str, tmp_path: Path) -> None:
    blob = tmp_path / "tokenizer.blob"
    blob.write_bytes(compile_tokenizer(subjects()[name]))
    command = [sys.executable, "-c", ENDS_WHILE_THREADS_ENCODE, str(blob)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


def test_finalisers_may_encode_while_their_thread_does() -> None:
    tokenizer = Tokenizer(compile_tokenizer(subjects()["gpt2"]), threads_max=1)
    options = EncodeOptions(return_offsets=True)
    encoded = 0

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            nonlocal encoded
            encoded += tokenizer.encode("a").rows

    def encode_amid_garbage() -> None:
        for _ in range(500):
            Cycle()
            tokenizer.encode(["a b"] * 3, options=options)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        # In a thread of its own, so that waiting for itself would fail the test and not hang it.
        thread = threading.Thread(target=encode_amid_garbage, daemon=True)
        thread.start()
        thread.join(30)
    finally:
        gc.set_threshold(*before)
    assert not thread.is_alive()
    assert encoded


def test_arrow_offsets_that_lie_about_their_type_are_refused() -> None:
    tokenizer = Tokenizer(compile_tokenizer(subjects()["gpt2"]), threads_max=1)

    class Liar(bytearray):
        dtype = np.dtype(np.int32)

    with pytest.raises(ValueError, match="must be an array of int32, not of items of 1 bytes"):
        tokenizer.encode_arrow(b"abc", Liar(9))  # type: ignore[arg-type] # pyright: ignore
