"""Every way that we know to break an input, and its documented answer: a table."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.formats import format_of_name
from penstock_server.bulk.inputs import InputOrder, materialise
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.spool import Spool
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import InputColumns

LIMITS = BulkLimits(
    text_bytes_max=100, line_bytes_max=400, key_bytes_max=20, unpacked_ratio_from_bytes=10_000
)
CSV = b"id,text\n" + b"".join(b"%d,row %d\n" % (row, row) for row in range(2000))
GOOD_LINE = b'{"id": 1, "text": "good"}\n'


def gz(data: bytes) -> bytes:
    return gzip.compress(data)


def two_members(data: bytes) -> bytes:
    return gz(data[:700]) + gz(data[700:])


def zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def flipped(data: bytes, place: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def arrow(columns: dict[str, Any], *, stream: bool = False) -> bytes:
    table = pa.table(columns)
    sink = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def table_with_names(write: Callable[[Any, Any], None], names: list[str]) -> bytes:
    sink = io.BytesIO()
    write(pa.table([pa.array(["a"])] * len(names), names=names), sink)
    return bytes(sink.getvalue())


def wrong_offsets() -> bytes:
    """An Arrow stream whose second text claims to end far outside of the data."""
    data = arrow({"text": ["aaaa", "bbbb"], "id": [1, 2]}, stream=True)
    offsets = b"\0\0\0\0\x04\0\0\0\x08\0\0\0"
    assert data.count(offsets) == 1
    return data.replace(offsets, offsets[:8] + b"\xff\xff\xff\x7f")


ROWS: dict[str, Any] = {"text": [f"row {row}" for row in range(5000)], "id": list(range(5000))}
PARQUET, ARROW, STREAM = parquet(**ROWS), arrow(ROWS), arrow(ROWS, stream=True)

# Name of the file, its bytes, and a part of the sentence with which the job fails.
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "csv: nothing": ("in.csv", b"", "is empty"),
    "csv: blank lines": ("in.csv", b"\n\n\n", "is empty"),
    "csv: header only": ("in.csv", b"id,text\n", "has no rows"),
    "csv: no such column": ("in.csv", b"id,body\n1,a\n", "no column 'text'"),
    "csv: two of it": ("in.csv", b"id,text,text\n1,a,b\n", "2 columns are called 'text'"),
    "csv: another separator": ("in.csv", b"id;text\n1;a\n", "no column 'text'"),
    "csv: a quote never closed": ("in.csv", b'id,text\n1,"a\n2,b\n', "a quote that is not closed"),
    "csv: a line without end": ("in.csv", b"id,text\n1," + b"a" * 500, "is longer than 400 bytes"),
    "csv: UTF-16": ("in.csv", "id,text\n1,a\n".encode("utf-16"), "header cannot be read"),
    "csv: header not UTF-8": ("in.csv", b"id,te\xffxt\n1,a\n", "header cannot be read"),
    "csv: a picture": ("in.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "header cannot be read"),
    "csv: a zip archive": ("in.csv", b"PK\x03\x04\x14\0\0\0\x08\0" + b"\xff" * 50, "header cannot be read"),
    "gzip: of nothing": ("in.csv.gz", gz(b""), "is empty"),
    "gzip: cut short": ("in.csv.gz", gz(CSV)[:-300], "cut short"),
    "gzip: checksum gone": ("in.csv.gz", gz(CSV)[:-8], "cut short"),
    "gzip: a flipped bit": ("in.csv.gz", flipped(gz(CSV), 200), "corrupt or cut short"),
    "gzip: header only": ("in.csv.gz", gz(CSV)[:10], "cut short"),
    "gzip: a bomb": ("in.csv.gz", gz(b"id,text\n" + b"1,a\n" * 4_000_000), "too much for its size"),
    "gzip: a bomb of one line": ("in.jsonl.gz", gz(b"a" * 50_000_000), "too much for its size"),
    "zstd: cut short": ("in.csv.zst", zst(CSV)[:-100], "cut short"),
    "zstd: nonsense within": ("in.csv.zst", zst(CSV)[:4] + b"\xff" * 40 + zst(CSV)[44:], "corrupt"),
    "zstd: a bomb": ("in.jsonl.zst", zst(GOOD_LINE * 1_000_000), "too much for its size"),
    "zlib is not gzip": ("in.csv", zlib.compress(CSV), "is longer than 400 bytes"),
    "jsonl: nothing": ("in.jsonl", b"", "has no rows"),
    "jsonl: blank lines": ("in.jsonl", b"\n \n\t\n", "has no rows"),
    "jsonl: no line has the field": ("in.jsonl", b'{"body": "a"}\n', "No line has a field 'text'"),
    "parquet: nothing": ("in.parquet", b"", "not a readable Parquet file"),
    "parquet: text": ("in.parquet", CSV, "not a readable Parquet file"),
    "parquet: cut short": ("in.parquet", PARQUET[: len(PARQUET) // 2], "not a readable Parquet file"),
    "parquet: zeros within": ("in.parquet", PARQUET[:100] + b"\0" * 2000 + PARQUET[2100:], "corrupt"),
    "parquet: no such column": ("in.parquet", parquet(body=["a"]), "no column 'text'"),
    "parquet: two of it": (
        "in.parquet",
        table_with_names(pq.write_table, ["id", "text", "text"]),
        "2 columns",
    ),
    "parquet: numbers for texts": ("in.parquet", parquet(id=[1], text=[1]), "a text column is needed"),
    "parquet: lists for texts": ("in.parquet", parquet(id=[1], text=[["a"]]), "a text column is needed"),
    "parquet: keys with points": (
        "in.parquet",
        parquet(id=[1.5], text=["a"]),
        "whole number column is needed",
    ),
    "parquet: no rows": (
        "in.parquet",
        parquet(id=pa.array([], pa.int64()), text=pa.array([], pa.string())),
        "has no rows",
    ),
    "arrow: nothing": ("in.arrow", b"", "not a readable Arrow IPC file"),
    "arrow: text": ("in.arrow", CSV, "not a readable Arrow IPC file"),
    "arrow: footer gone": ("in.arrow", ARROW[:-100], "not a readable Arrow IPC file"),
    "arrow: magic only": ("in.arrow", b"ARROW1\0\0", "not a readable Arrow IPC file"),
    "arrow: a stream cut short": ("in.arrow", STREAM[: len(STREAM) // 2], "corrupt"),
    "arrow: offsets that lie": ("in.arrow", wrong_offsets(), "corrupt"),
    "arrow: no such column": ("in.arrow", arrow({"body": ["a"]}), "no column 'text'"),
    "arrow: numbers for texts": ("in.arrow", arrow({"id": [1], "text": [1]}), "a text column is needed"),
    "arrow: no rows": (
        "in.arrow",
        arrow({"id": pa.array([], pa.int64()), "text": pa.array([], pa.string())}),
        "no rows",
    ),
    "arrow: parquet": ("in.arrow", PARQUET, "not a readable Arrow IPC file"),
}

# Name of the file, a line or the text and key of a row, and the code with which just that row fails.
FAILED: dict[str, tuple[str, Any, str]] = {
    "csv: a column too few": ("in.csv", b"2", "BAD_CSV"),
    "csv: a column too many": ("in.csv", b"2,a,b", "BAD_CSV"),
    "csv: text after a quote": ("in.csv", b'2,"a"b', "BAD_CSV"),
    "csv: text not UTF-8": ("in.csv", b"2,caf\xe9", "INVALID_UTF8"),
    "csv: key not UTF-8": ("in.csv", b"\xe9,a", "INVALID_UTF8"),
    "csv: no text": ("in.csv", b"2,", "EMPTY_TEXT"),
    "csv: text too large": ("in.csv", b"2," + b"a" * 101, "TEXT_TOO_LARGE"),
    "csv: key too large": ("in.csv", b"k" * 21 + b",a", "BAD_KEY"),
    "jsonl: cut short": ("in.jsonl", b'{"id": 2, "text": "a', "BAD_JSON"),
    "jsonl: a list": ("in.jsonl", b"[1]", "BAD_JSON"),
    "jsonl: a number": ("in.jsonl", b"7", "BAD_JSON"),
    "jsonl: two objects": ("in.jsonl", b'{"text": "a"}{"text": "b"}', "BAD_JSON"),
    "jsonl: single quotes": ("in.jsonl", b"{'text': 'a'}", "BAD_JSON"),
    "jsonl: NaN": ("in.jsonl", b'{"text": NaN}', "BAD_JSON"),
    "jsonl: a hundred brackets": ("in.jsonl", b'{"text": ' + b"[" * 150 + b"]" * 150 + b"}", "NOT_TEXT"),
    "jsonl: the field is missing": ("in.jsonl", b'{"id": 2}', "MISSING_FIELD"),
    "jsonl: null": ("in.jsonl", b'{"text": null}', "EMPTY_TEXT"),
    "jsonl: a boolean for text": ("in.jsonl", b'{"text": true}', "NOT_TEXT"),
    "jsonl: an object for text": ("in.jsonl", b'{"text": {"a": 1}}', "NOT_TEXT"),
    "jsonl: not UTF-8": ("in.jsonl", b'{"text": "\xff"}', "INVALID_UTF8"),
    "jsonl: too long a line": ("in.jsonl", b'{"text": "' + b"a" * 500 + b'"}', "LINE_TOO_LONG"),
    "jsonl: a list for a key": ("in.jsonl", b'{"id": [2], "text": "a"}', "BAD_KEY"),
    "jsonl: a fraction for a key": ("in.jsonl", b'{"id": 2.5, "text": "a"}', "BAD_KEY"),
    "jsonl: a key of 65 bits": ("in.jsonl", b'{"id": 18446744073709551616, "text": "a"}', "BAD_KEY"),
    "parquet: null": ("in.parquet", (2, None), "EMPTY_TEXT"),
    "parquet: not UTF-8": ("in.parquet", (2, b"\xff"), "INVALID_UTF8"),
    "arrow: null": ("in.arrow", (2, None), "EMPTY_TEXT"),
    "arrow: not UTF-8": ("in.arrow", (2, b"\xff"), "INVALID_UTF8"),
    "arrow: text too large": ("in.arrow", (2, b"a" * 101), "TEXT_TOO_LARGE"),
}


def spooled(tmp_path: Path, name: str, data: bytes) -> list[tuple[bytes, str]]:
    """Reads an input; returns text and failure code of each row."""
    path, spool_path = tmp_path / name, tmp_path / "spool"
    path.write_bytes(data)
    order = InputOrder(path, spool_path, format_of_name(name), InputColumns("text", None, "id"), LIMITS)
    rows: list[tuple[bytes, str]] = []
    total = materialise(order)
    spool = Spool(spool_path)
    for number in range(spool.windows):
        window = spool.window(number)
        for index in range(window.rows):
            text = window.text.data[window.text.offsets[index] : window.text.offsets[index + 1]].tobytes()
            failure = window.failures.get(index)
            rows.append((text, failure.code if failure else ""))
    spool.close()
    assert len(rows) == total
    return rows


@pytest.mark.parametrize("case", REFUSED)
def test_an_input_that_cannot_be_used_fails_its_job_with_a_sentence(tmp_path: Path, case: str) -> None:
    name, data, told = REFUSED[case]
    with pytest.raises(InvalidRequest, match=told) as caught:
        spooled(tmp_path, name, data)
    assert len(caught.value.message) < 400
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("case", FAILED)
def test_a_row_that_cannot_be_used_fails_alone(tmp_path: Path, case: str) -> None:
    name, row, code = FAILED[case]
    rows = spooled(tmp_path, name, _around(name, row))
    assert rows == [(b"good", ""), (b"", code), (b"good", "")]


@pytest.mark.parametrize("packed", [gz, zst, two_members])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_compressed_input_is_what_it_holds(
    tmp_path: Path, packed: Callable[[bytes], bytes], mark: bytes
) -> None:
    rows = spooled(tmp_path, "in.csv.gz", packed(mark + CSV))
    assert rows == [(b"row %d" % row, "") for row in range(2000)]


@pytest.mark.parametrize("data", [ARROW, STREAM])
def test_arrow_files_and_streams_are_read(tmp_path: Path, data: bytes) -> None:
    assert spooled(tmp_path, "in.arrow", data) == [(b"row %d" % row, "") for row in range(5000)]


def test_a_name_may_end_with_how_it_is_compressed() -> None:
    for name in ("a.csv.gz", "A.CSV.ZST", "a.csv.gzip", "a.csv.zstd"):
        assert format_of_name(name) is format_of_name("a.csv")
    with pytest.raises(InvalidRequest, match=r"spec\.input_format"):
        format_of_name("a.gz")


def _around(name: str, row: Any) -> bytes:
    """An input with the row between two good ones."""
    if name == "in.csv":
        return b"id,text\n1,good\n%b\n3,good\n" % row
    if name == "in.jsonl":
        return b"%b%b\n%b" % (GOOD_LINE, row, GOOD_LINE)
    key, text = row
    columns: dict[str, Any] = {"id": [1, key, 3], "text": pa.array([b"good", text, b"good"], pa.binary())}
    return parquet(**columns) if name == "in.parquet" else arrow(columns)
