"""What clients write down, one JSON object a line: whole lines, at once, so that a killed client loses none.

====== ==================================================================================================
entry  fields
====== ==================================================================================================
ask    id, kind, texts (numbers; those of the sentences for a growing text), allowed (statuses), and for texts
       of streams: stream, key
end    id, status, rows (judgements of what was answered), and job, by or parts where there are any
part   id, index, status, rows: a sentence of a growing text
stream id, order, allowed; its end has the same id
job    id, texts (None for rows that must fail), kind
state  job, reader, state, total, succeeded, failed, pending
rows   job, reading, kind, rows: [row, key, status, judgement]
whole  job, reading, done: all rows of an ended job that are done have been read
gone   job: it was deleted
did    what: a gesture that was made, for the count of them
bye    the client has finished; killed: a client was killed (written by who did it)
====== ==================================================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.soak.references import Judgement

Entry = dict[str, Any]
LEFT, SUPERSEDED, DEFERRED = "LEFT", "SUPERSEDED", "DEFERRED"


class Book:
    """A client's notes. Ids are made here and begin with the client's name.

    Attributes:
        excuses: Statuses that are allowed to every question, as while the server drains.
    """

    def __init__(self, path: Path, client: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._client = client
        self._count = 0
        self.excuses: tuple[str, ...] = ()

    def close(self) -> None:
        os.close(self._file)

    def write(self, entry: str, **fields: object) -> None:
        line = json.dumps({"entry": entry, **fields}, separators=(",", ":")) + "\n"
        os.write(self._file, line.encode())

    def new_id(self) -> str:
        self._count += 1
        return f"{self._client}/{self._count}"

    def ask(self, kind: str, texts: Sequence[int], allowed: Iterable[str], **fields: object) -> str:
        """Notes a question before it is sent; returns its id."""
        id_ = self.new_id()
        self.write("ask", id=id_, kind=kind, texts=list(texts), allowed=[*allowed, *self.excuses], **fields)
        return id_

    def stream(self, order: str, allowed: Iterable[str]) -> str:
        """Notes a stream before it is opened; returns its id."""
        id_ = self.new_id()
        self.write("stream", id=id_, order=order, allowed=[*allowed, *self.excuses])
        return id_

    def end(self, id_: str, status: str, rows: Sequence[Judgement] = (), **fields: object) -> None:
        """Notes what became of a question or stream."""
        self.write("end", id=id_, status=status, rows=list(rows), **fields)

    def did(self, what: str) -> None:
        """Notes a gesture."""
        self.write("did", what=what)


def read_book(path: Path) -> Iterator[Entry]:
    """Yields the entries; half a line can only be the last of a killed client."""
    for line in path.read_bytes().split(b"\n"):
        if line:
            try:
                entry: Entry = json.loads(line)
            except ValueError:
                continue
            yield entry
