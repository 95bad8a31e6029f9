"""A TCP relay that cuts connections after so many bytes: a network that breaks where a test wants it to."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress

_READ_BYTES = 16384


class Relay:
    """Passes bytes between clients and one server.

    Args:
        target: Address of the server.
        cut_after: For each connection in turn, the bytes from the client or from the server after which both
            sides are cut; connections beyond these live on.
        counts: Whose bytes are counted: "sent" by the client or "received" by it.
    """

    def __init__(self, target: str, cut_after: Iterable[int], counts: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._cut_after = deque(cut_after)
        self._counts = counts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.cuts = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        _cut(self._listener)
        for each in self._open:
            _cut(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                limit = self._cut_after.popleft() if self._cut_after else None
                sent_limit, received_limit = (limit, None) if self._counts == "sent" else (None, limit)
                for source, sink, bytes_max in (
                    (client, server, sent_limit),
                    (server, client, received_limit),
                ):
                    threading.Thread(target=self._pass, args=(source, sink, bytes_max), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, bytes_max: int | None) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(_READ_BYTES):
                sink.sendall(data)
                passed += len(data)
                if bytes_max is not None and passed >= bytes_max:
                    self.cuts += 1
                    break
        _cut(source)
        _cut(sink)


def _cut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@contextmanager
def relayed(target: str, cut_after: Iterable[int], *, counts: str) -> Generator[Relay]:
    """Runs a relay."""
    relay = Relay(target, cut_after, counts)
    relay.start()
    try:
        yield relay
    finally:
        relay.close()
