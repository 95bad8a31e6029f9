"""Inputs: what becomes of every row of good and bad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.bulk.arrow import pa, pq
from penstock_server.bulk.formats import format_of_name
from penstock_server.bulk.inputs import InputOrder, materialise
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.spool import Spool
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, InputColumns

LIMITS = BulkLimits(window_rows=4, text_bytes_max=100, line_bytes_max=400, key_bytes_max=20)
COLUMNS = InputColumns("text", None, "id")
_FORMATS = {".jsonl": FileFormat.JSONL, ".csv": FileFormat.CSV, ".parquet": FileFormat.PARQUET}

Row = tuple[str, Any, str]


def read(path: Path, columns: InputColumns = COLUMNS, limits: BulkLimits = LIMITS) -> list[Row]:
    """Rows of an input through the spool, as (text, key, error code)."""
    spool_path = path.with_suffix(".spool")
    total = materialise(InputOrder(path, spool_path, _FORMATS[path.suffix], columns, limits))
    spool = Spool(spool_path)
    rows: list[Row] = []
    for number in range(spool.windows):
        window, keys = spool.window(number), spool.keys(number)
        assert window.start_row == len(rows)
        for index in range(window.rows):
            text = _slice(window.text, index)
            if window.pair is not None:
                text += "|" + _slice(window.pair, index)
            failure = window.failures.get(index)
            rows.append((text, keys[index], failure.code if failure else ""))
    assert total == spool.rows == len(rows)
    spool.close()
    return rows


def _slice(column: Any, index: int) -> str:
    return bytes(column.data[column.offsets[index] : column.offsets[index + 1]]).decode()


def write(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def parquet(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_csv_keeps_quoted_newlines_commas_quotes_and_keys_as_written(tmp_path: Path) -> None:
    data = b'id,text\n007,"two\nlines, and ""quotes"""\n1.0, spaced \n,no key\n'
    assert read(write(tmp_path, "in.csv", data)) == [
        ('two\nlines, and "quotes"', "007", ""),
        (" spaced ", "1.0", ""),
        ("no key", "", ""),
    ]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_newlines_and_byte_order_mark(tmp_path: Path, newline: bytes, mark: bytes) -> None:
    data = mark + newline.join([b"text,id", b"a,1", b"", b"b,2"])
    assert read(write(tmp_path, "in.csv", data)) == [("a", "1", ""), ("b", "2", "")]


def test_csv_invalid_utf8_spoils_its_own_row_only(tmp_path: Path) -> None:
    data = b'id,text\n1,good\n2,caf\xe9 "x"\n3,"fine \xc3\xa9"\n\xff,key\n'
    assert read(write(tmp_path, "in.csv", data)) == [
        ("good", "1", ""),
        ("", "2", "INVALID_UTF8"),
        ("fine \u00e9", "3", ""),
        ("", None, "INVALID_UTF8"),
    ]


def test_csv_rows_that_are_bad_fail_alone(tmp_path: Path) -> None:
    data = b'id,text\n1,a,b\n2\n3,\n4,"a"b\n5,' + b"x" * 101 + b"\n6,ok\n" + b"k" * 21 + b",ok\n"
    assert [(key, code) for _, key, code in read(write(tmp_path, "in.csv", data))] == [
        (None, "BAD_CSV"),
        (None, "BAD_CSV"),
        ("3", "EMPTY_TEXT"),
        (None, "BAD_CSV"),
        ("5", "TEXT_TOO_LARGE"),
        ("6", ""),
        (None, "BAD_KEY"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\n\n", "empty"),
        (b"id,text\n", "no rows"),
        (b"id,body\n1,a\n", r"no column 'text'.*: id, body"),
        (b"text,text\na,b\n", "2 columns are called 'text'"),
        (b'id,text\n1,a\n2,"open\n3,b\n', "line 3 has a quote that is not closed"),
        (b"id,text\n1," + b"x" * 500, "Line 2 is longer than 400 bytes"),
        (b"id,\xff\n1,a\n", "header cannot be read"),
    ],
)
def test_csv_that_cannot_be_used_is_refused_with_a_reason(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(write(tmp_path, "in.csv", data))
    assert not (tmp_path / "in.spool").exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_jsonl_keeps_types_of_keys_and_fails_bad_lines_alone(tmp_path: Path) -> None:
    lines = [
        b'{"text": "a", "id": 1}',
        b'{"text": "b", "id": "1"}',
        b"",
        b'{"text": "caf\\u00e9 \xc3\xa9", "other": [1]}',
        b'{"text": "x"',
        b"[1]",
        b'{"id": 5}',
        b'{"id": 6, "text": null}',
        b'{"id": 7, "text": 3.5}',
        b'{"id": 8, "text": ""}',
        b'{"id": 9, "text": "\xff"}',
        b'{"id": 1.5, "text": "x"}',
        b'{"id": 9223372036854775808, "text": "x"}',
        b'{"text": "' + b"x" * 500 + b'"}',
        b'{"text": "' + b"x" * 101 + b'", "id": -3}',
        b'{"text": "last", "id": null}',
    ]
    rows = read(write(tmp_path, "in.jsonl", b"\xef\xbb\xbf" + b"\n".join(lines)))
    assert rows == [
        ("a", 1, ""),
        ("b", "1", ""),
        ("caf\u00e9 \u00e9", None, ""),
        ("", None, "BAD_JSON"),
        ("", None, "BAD_JSON"),
        ("", 5, "MISSING_FIELD"),
        ("", 6, "EMPTY_TEXT"),
        ("", 7, "NOT_TEXT"),
        ("", 8, "EMPTY_TEXT"),
        ("", None, "INVALID_UTF8"),
        ("", None, "BAD_KEY"),
        ("", None, "BAD_KEY"),
        ("", None, "LINE_TOO_LONG"),
        ("", -3, "TEXT_TOO_LARGE"),
        ("last", None, ""),
    ]


def test_jsonl_failures_name_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "in.jsonl", b'{"text": "a"}\n\n{"text": 1}\n')
    spool_path = tmp_path / "spool"
    materialise(InputOrder(path, spool_path, FileFormat.JSONL, COLUMNS, LIMITS))
    assert Spool(spool_path).window(0).failures[1].message == "Line 3: text is a number, not a text."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\n \n", "no rows"),
        (b'{"body": "a"}\n{"title": "b"}\n', "No line has a field 'text'.*: body, title"),
    ],
)
def test_jsonl_that_cannot_be_used_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(write(tmp_path, "in.jsonl", data))


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "dictionary"])
def test_parquet_texts_of_any_layout(tmp_path: Path, kind: str) -> None:
    texts = pa.array(["a", None, "", "b" * 101, "c"])
    column = texts.dictionary_encode() if kind == "dictionary" else texts.cast(getattr(pa, kind)())
    rows = read(parquet(tmp_path, text=column, id=pa.array([1, 2, 3, 4, None], pa.int16())))
    assert rows == [
        ("a", 1, ""),
        ("", 2, "EMPTY_TEXT"),
        ("", 3, "EMPTY_TEXT"),
        ("", 4, "TEXT_TOO_LARGE"),
        ("c", None, ""),
    ]


def test_parquet_binary_that_is_not_utf8_spoils_its_own_row_only(tmp_path: Path) -> None:
    rows = read(parquet(tmp_path, text=pa.array([b"a", b"\xff", b"b"]), id=["x", "y", "z"]))
    assert [code for _, _, code in rows] == ["", "INVALID_UTF8", ""]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["a"], "id": [1]}, "no column 'text'.*: body, id"),
        ({"text": [1], "id": [1]}, "'text' is int64; a text column"),
        ({"text": ["a"], "id": [1.5]}, "'id' is double; a text or whole number"),
        ({"text": pa.array([], pa.string()), "id": pa.array([], pa.int64())}, "no rows"),
    ],
)
def test_parquet_columns_that_do_not_fit_are_refused(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(parquet(tmp_path, **columns))


def test_truncated_and_corrupt_parquet_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = parquet(tmp_path, text=[f"row {n}" for n in range(5000)], id=list(range(5000)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidRequest, match="not a readable Parquet file; it may be cut short"):
        read(path)
    path.write_bytes(data[:100] + b"\0" * 2000 + data[2100:])
    with pytest.raises(InvalidRequest, match="corrupt"):
        read(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(InvalidRequest, match="not a readable Parquet file"):
        read(path)


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
def test_pairs_are_read_and_a_missing_second_text_fails_its_row(tmp_path: Path, name: str) -> None:
    csv_data = b"text,other,id\na,b,1\nc,,2\n"
    json_data = b'{"text":"a","other":"b","id":"1"}\n{"text":"c","other":"","id":"2"}\n'
    path = write(tmp_path, name, csv_data if name == "in.csv" else json_data)
    rows = read(path, InputColumns("text", "other", "id"))
    assert rows == [("a|b", "1", ""), ("|", "2", "EMPTY_TEXT")]


def test_the_key_may_be_the_text_and_keys_may_repeat(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", b"text\na\na\n")
    assert read(path, InputColumns("text", None, "text")) == [("a", "a", ""), ("a", "a", "")]


def test_windows_are_cut_by_rows_and_by_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", b"text\n" + b"\n".join([b"x" * 50] * 10))
    spool_path = tmp_path / "spool"
    limits = BulkLimits(window_rows=4, window_bytes=120)
    materialise(InputOrder(path, spool_path, FileFormat.CSV, InputColumns(), limits))
    spool = Spool(spool_path)
    assert [spool.start_row(number) for number in range(spool.windows + 1)] == [0, 3, 6, 9, 10]
    assert [spool.window_of_row(row) for row in (0, 2, 3, 9, 10, 99)] == [0, 0, 1, 3, 4, 4]


def test_the_format_follows_from_the_name() -> None:
    assert format_of_name("Reviews.CSV") is FileFormat.CSV
    assert format_of_name("a.b.ndjson") is FileFormat.JSONL
    with pytest.raises(InvalidRequest, match=r"spec\.input_format"):
        format_of_name("reviews.txt")


_texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(_texts, min_size=1, max_size=12))
def test_any_text_comes_through_csv_and_parquet_unchanged(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("inputs")
    quoted = ["".join(('"', text.replace('"', '""'), '"')) for text in texts]
    csv_path = write(folder, "in.csv", "\n".join(["text", *quoted]).encode())
    parquet_path = parquet(folder, text=texts)
    for path in (csv_path, parquet_path):
        rows = read(path, InputColumns())
        assert rows == [(text, None, "") for text in texts]
