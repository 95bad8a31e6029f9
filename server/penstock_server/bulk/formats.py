"""What a file's name tells of its format."""

from __future__ import annotations

from pathlib import PurePosixPath

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat

_FORMATS_BY_SUFFIX = {
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".csv": FileFormat.CSV,
    ".parquet": FileFormat.PARQUET,
    ".arrow": FileFormat.ARROW,
    ".feather": FileFormat.ARROW,
    ".arrows": FileFormat.ARROW,
}
# Endings that say nothing of what is inside.
COMPRESSED_SUFFIXES = frozenset({".gz", ".gzip", ".zst", ".zstd"})


def ending_of(file_name: str) -> str:
    """The ending of a name in lower case, with that of the format before that of the compression."""
    path = PurePosixPath(file_name.lower())
    return (
        PurePosixPath(path.stem).suffix + path.suffix if path.suffix in COMPRESSED_SUFFIXES else path.suffix
    )


def known_format(file_name: str) -> FileFormat | None:
    """Tells a file's format by its name, compressed or not; None if the ending is not one of those known."""
    first_suffix = "." + ending_of(file_name)[1:].partition(".")[0]
    return _FORMATS_BY_SUFFIX.get(first_suffix)


def format_of_name(file_name: str) -> FileFormat:
    """Tells a file's format by its name, compressed or not.

    Raises:
        InvalidRequest: The ending is not one of those known.
    """
    found = known_format(file_name)
    if found is None:
        known = ", ".join(_FORMATS_BY_SUFFIX)
        raise InvalidRequest.of_field(
            "spec.input_format",
            f"cannot be told from the name {file_name!r} ({known} can); set it, or end a folder in a slash",
        )
    return found
