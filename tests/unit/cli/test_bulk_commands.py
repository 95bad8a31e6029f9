"""Bulk commands against a scripted server."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from penstock import Progress
from penstock_server.commands.progress import Bars, duration, told
from tests.unit.cli.conftest import Penstock, json_of
from tests.unit.client.scripted import Refusal, Script, info_of


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "rows.csv").write_text("id,review\n1,fine\n")
    return str(tmp_path / "rows.csv")


def test_submit_uploads_and_tells_the_job(
    penstock: Penstock, script: Script, source: str, address: str
) -> None:
    result = penstock(
        "bulk",
        "submit",
        source,
        "--model",
        "m",
        "--text-column",
        "review",
        "--key-column",
        "id",
        "--name",
        "night",
        "--weight",
        "300",
        "--expire-in",
        "1.5h",
    )
    assert result.stdout == f"j1\nWatch it with: penstock bulk watch --address {address} j1\n"
    assert result.stderr == ""
    spec = script.requests[-1].spec
    assert (spec.task, spec.text_column, spec.key_column, spec.display_name) == (1, "review", "id", "night")
    assert spec.weight == 300
    expire_time = spec.expire_time.ToDatetime(tzinfo=UTC)
    assert timedelta(minutes=89) < expire_time - datetime.now(UTC) <= timedelta(minutes=90)
    assert script.stored == Path(source).read_bytes()


@pytest.mark.parametrize("span", ["", "0s", "-1h", "5", "1w", "1h30m", "h", "0.0d"])
def test_what_is_no_span_of_time_is_refused(penstock: Penstock, source: str, span: str) -> None:
    result = penstock("bulk", "submit", source, "--model", "m", "--expire-in", span)
    assert result.exit_code == 2
    assert "no span of time; write 90s, 30m, 12h or 7d" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--window", "0 22 * * 8h"), "is no window"),
        (("--window", "0 25 * * * 8h"), "--window: '0 25 * * *' is not five cron fields"),
        (("--window", "0 0 30 2 * 1h"), "--window: '0 0 30 2 *' is not five cron fields"),
        (("--window", "0 22 * * * 8h Europe/Berlim"), "'Europe/Berlim' is no IANA time zone"),
        (("--window", "0 22 * * * 30s"), "--window: must be from one minute to seven days"),
        (("--window", "0 22 * * * 8d"), "--window: must be from one minute to seven days"),
        (("--window", "0 22 * * * 90.5s"), "--window: must last whole seconds"),
        (("--window", "0 22 * * * 1h") * 17, "--window: must be at most 16"),
        (("--expire-in", "367d"), "--expire-in: must be at most 366 days from now"),
        (("--not-before", "2999-01-01T00:00"), "--not-before: must be at most 366 days from now"),
        (("--expire-in", "1h", "--not-before", "+2h"), "--expire-in: is before --not-before"),
        (("--rows-per-file", "5"), "go with --output-url"),
        (("--output-format", "jsonl"), "go with --output-url"),
    ],
)
def test_what_the_server_would_refuse_is_refused_before_the_upload(
    penstock: Penstock, script: Script, source: str, options: tuple[str, ...], told: str
) -> None:
    later = (datetime.now() + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S")  # noqa: DTZ005 - as people write
    words = [later if option == "+2h" else option for option in options]
    result = penstock("bulk", "submit", source, "--model", "m", "--task", "embed", *words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert script.requests == []


def test_times_and_deliveries_are_sent(penstock: Penstock, script: Script, source: str) -> None:
    windows = ["--window", "0 22 * * * 8h Europe/Berlin", "--expire-in", "2d"]
    outputs = ["--output-url", "s3://b/out", "--output-format", "jsonl", "--rows-per-file", "9"]
    result = penstock("bulk", "submit", source, "--model", "m", "--task", "embed", *windows, *outputs)
    assert result.exit_code == 0
    spec = script.requests[-1].spec
    assert (spec.windows[0].start_cron, spec.windows[0].duration.seconds) == ("0 22 * * *", 8 * 3600)
    assert (spec.output_url, spec.output_format, spec.output_rows_per_file) == ("s3://b/out", 1, 9)


def test_submit_json_is_one_document(penstock: Penstock, source: str) -> None:
    document = json_of(penstock("bulk", "submit", source, "--model", "m", "--task", "classify", "--json"))
    assert (document["id"], document["state"], document["total"]) == ("j1", "running", 10)


def test_submit_and_wait_shows_the_ended_job(penstock: Penstock, source: str) -> None:
    result = penstock("bulk", "submit", source, "--model", "m", "--wait")
    assert result.exit_code == 0
    assert "succeeded" in result.stdout


def test_a_job_that_does_not_succeed_is_exit_status_1(penstock: Penstock, script: Script) -> None:
    script.job_ends_failed = True
    result = penstock("bulk", "watch", "j1")
    assert result.exit_code == 1
    assert result.stderr == "penstock: job j1 failed: no column 'text'\n"
    assert penstock("bulk", "watch", "j1", "--json").exit_code == 1


def test_watch_json_has_a_line_for_each_change(penstock: Penstock) -> None:
    lines = [json.loads(line) for line in penstock("bulk", "watch", "j1", "--json").stdout.splitlines()]
    assert [(line["succeeded"] + line["failed"], line["state"]) for line in lines] == [
        (2, "running"),
        (10, "succeeded"),
    ]


def test_results_have_a_line_for_each_row(penstock: Penstock, script: Script) -> None:
    lines = penstock("bulk", "results", "j1", "--start-row", "2", "--select", "succeeded").stdout.splitlines()
    assert lines[0].split("\t") == ["2", "k2", "[+2.0000] 1 dimensions"]
    assert lines[1].split("\t") == ["3", "3", "error: empty text"]
    assert (script.requests[0].start_row, script.requests[0].selection) == (2, 1)
    rows = [json.loads(line) for line in penstock("bulk", "results", "j1", "--json").stdout.splitlines()]
    assert rows[1] == {"row": 1, "key": "k1", "embedding": [1.0]}
    assert rows[3]["error"]["message"] == "empty text"


def test_the_file_name_decides_the_results_format(penstock: Penstock, script: Script, tmp_path: Path) -> None:
    assert penstock("bulk", "results", "j1", "--output", str(tmp_path / "out.parquet")).exit_code == 0
    assert script.requests[0].format == 3
    assert len((tmp_path / "out.parquet").read_text().splitlines()) == 10
    assert penstock("bulk", "results", "j1", "--format", "jsonl").exit_code == 2


def test_jobs_are_listed(penstock: Penstock, script: Script) -> None:
    assert len(json_of(penstock("bulk", "list", "--json", "--limit", "3", "--state", "running"))) == 3
    assert list(script.requests[0].states) == [2]
    assert "j4" in penstock("bulk", "list").stdout


def test_the_other_job_commands(penstock: Penstock) -> None:
    assert "cancelled" in penstock("bulk", "cancel", "j1").stdout
    assert json_of(penstock("bulk", "resume", "j1", "--json"))["state"] == "running"
    assert penstock("bulk", "delete", "j1").stdout == "j1 deleted\n"
    assert penstock("bulk", "pause", "j1").stderr == "penstock: not yet\n"


def test_an_interrupted_wait_exits_with_130(penstock: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock.bulk.Bulk.wait", interrupted)
    result = penstock("bulk", "watch", "j1")
    assert result.exit_code == 130
    assert "the job goes on; `penstock bulk cancel j1` ends it" in result.stderr


def test_an_upload_that_fails_is_one_line(penstock: Penstock, script: Script, source: str) -> None:
    script.refusals.append(
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "disk full", (info_of("STORAGE_FULL"),))
    )
    result = penstock("bulk", "submit", source, "--model", "m", "--task", "embed")
    assert (result.exit_code, result.stderr) == (1, "penstock: disk full\n")


def test_an_empty_file_is_one_line(penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    result = penstock("bulk", "submit", str(tmp_path / "empty.csv"), "--model", "m", "--task", "embed")
    assert result.exit_code == 1
    assert "is empty: there is nothing to compute" in result.stderr


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "shown", "is_drawn"),
    [(_Terminal(), True, True), (io.StringIO(), True, False), (_Terminal(), False, False)],
)
def test_bars_show_on_a_terminal_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, shown: bool, is_drawn: bool
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    with Bars(shown=shown) as bars:
        bars(Progress("rows", 3, 10, per_second=2.0, time_left_s=3.5))
    assert ("3/10 rows, 2 rows/s" in stream.getvalue()) is is_drawn


def test_progress_in_words() -> None:
    assert told(Progress("upload", 2 << 20, 8 << 20, 1 << 20, 6.0)) == "2.0 MiB/8.0 MiB, 1.0 MiB/s, 6 s left"
    assert told(Progress("download", 100, 0, 50.0)) == "100 B, 50 B/s"
    assert told(Progress("rows", 1500, 5000, 250.4, 190.0)) == "1,500/5,000 rows, 250 rows/s, 3 min 10 s left"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (190, "3 min 10 s"), (7500, "2 h 05 min")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
