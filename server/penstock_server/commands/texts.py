"""Where commands get their texts: arguments, a file, or stdin."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

_READ_BYTES = 65536


def gather(texts: tuple[str, ...], file: Path | None) -> list[str]:
    """Returns the texts of a command: its arguments, or else the lines of the file or of stdin.

    Blank lines are left out: they are no texts.

    Raises:
        click.UsageError: There are none, or both arguments and a file.
    """
    if texts and file is not None:
        raise click.UsageError("give texts as arguments or in a --file, not both")
    if texts:
        return list(texts)
    if file is not None:
        with file.open("rb") as lines:
            found = [text for text in decoded(lines, str(file)) if text.strip()]
    elif sys.stdin.isatty():
        raise click.UsageError("give texts as arguments, in a --file, or on stdin, one a line")
    else:
        found = [text for text in decoded(stdin_lines(), "stdin") if text.strip()]
    if not found:
        raise click.UsageError(f"{file or 'stdin'} holds no text")
    return found


def stdin_lines() -> Iterator[bytes]:
    """Yields the lines of stdin as they come.

    Reads the descriptor itself: a thread that waits in Python's own buffered reader, as the request thread of
    a stream does, holds its lock, and an interpreter that ends meanwhile aborts with a fatal error.
    """
    stream = sys.stdin.buffer
    try:
        descriptor = stream.fileno()
    except (io.UnsupportedOperation, AttributeError):
        yield from stream
        return
    rest = b""
    while data := os.read(descriptor, _READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if rest:
        yield rest


def decoded(lines: Iterator[bytes] | BinaryIO, source: str) -> Iterator[str]:
    """Yields lines as text, without their ends.

    Raises:
        ValueError: A line is not UTF-8; the text names it.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{source}, line {number}: not UTF-8 at byte {error.start}; convert it with `iconv -t UTF-8`"
            ) from None
