"""JSON decoded by many threads at once."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own, since what is tested ends it.
_RACE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import msgspec
from penstock_server.domain.decoding import decode_json

def decode(kind, together):
    together.wait()
    return decode_json(b'{"f0": {"a": 1, "b": "x"}, "f19": {"a": 2}}', kind)

sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(4) as pool:
    for _ in range(300):
        leaf = msgspec.defstruct("Leaf", [("a", "int", 0), ("b", "str", ""), ("c", "list[int] | None", None)])
        fields = [(f"f{number}", leaf | None, None) for number in range(20)]
        kind = msgspec.defstruct("Root", [*fields, ("g", "int | None", None)])
        together = threading.Barrier(4)
        made = [pool.submit(decode, kind, together) for _ in range(4)]
        assert all(future.result().f19.a == 2 for future in made)
"""


def test_threads_may_be_the_first_to_decode_a_type_together() -> None:
    subprocess.run([sys.executable, "-c", _RACE], check=True, timeout=60)
