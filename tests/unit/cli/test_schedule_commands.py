"""Commands of recurring jobs against a scripted server."""

from __future__ import annotations

import grpc
import pytest

from tests.unit.cli.conftest import Penstock, json_of
from tests.unit.client.scripted import Refusal, Script, info_of

NIGHTLY = ("--model", "m", "--cron", "0 2 * * *", "--time-zone", "Europe/Berlin")
# Of schedules and of jobs alike.
SHARED = (
    "--text-column", "review", "--pair-column", "title", "--key-column", "id", "--carry", "stars", "--carry",
    "date", "--format", "csv", "--output-url", "s3://out", "--name", "nightly", "--weight", "7",
    "--share-max", "0.25", "--window", "0 22 * * * 8h", "--failed-rows-max", "3", "--truncation", "left",
    "--tokens-max", "64",
)  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ("bulk", "schedule", "create", "s3://in/*.csv", "--cron", "0 2 * * *"),
        ("bulk", "submit", "s3://in/a.csv"),
    ],
)
def test_schedules_and_jobs_take_the_same_options(
    penstock: Penstock, script: Script, command: tuple[str, ...]
) -> None:
    assert penstock(*command, "--model", "m", *SHARED).exit_code == 0
    spec = script.requests[-1].spec
    job = spec if command[1] == "submit" else spec.job
    assert job.input_url in command
    assert (job.model.name, job.task) == ("m", 1)
    assert (job.text_column, job.text_pair_column, job.key_column) == ("review", "title", "id")
    assert (list(job.carry_columns), job.input_format) == (["stars", "date"], 2)
    assert (job.output_url, job.display_name) == ("s3://out", "nightly")
    assert (job.weight, job.share_max, job.failed_rows_max) == (7, 0.25, 3)
    assert [(each.start_cron, each.duration.seconds) for each in job.windows] == [("0 22 * * *", 8 * 3600)]
    assert (job.options.truncation, job.options.tokens_max) == (3, 64)


def test_create_tells_the_schedule_and_what_comes_next(
    penstock: Penstock, script: Script, address: str
) -> None:
    result = penstock(
        "bulk", "schedule", "create", "s3://in", *NIGHTLY, "--quiet", "30s", "--expire-after", "12h"
    )
    assert result.stdout == (
        "s1\n"
        "next run: 2031-05-06 02:00 CEST\n"
        f"Look for files now with: penstock bulk schedule run --address {address} s1\n"
    )
    spec = script.requests[-1].spec
    assert (spec.cron, spec.time_zone, spec.quiet_seconds) == ("0 2 * * *", "Europe/Berlin", 30)
    assert spec.expire_after_seconds == 12 * 3600
    assert script.requests[-1].request_id


def test_create_json_is_one_document(penstock: Penstock) -> None:
    document = json_of(
        penstock("bulk", "schedule", "create", "/in", *NIGHTLY, "--expire-after", "1.5h", "--json")
    )
    assert document == {
        "id": "s1",
        "is_paused": False,
        "input_url": "/in",
        "cron": "0 2 * * *",
        "time_zone": "Europe/Berlin",
        "quiet_s": 0,
        "expire_after_s": 5400.0,
        "model": "m",
        "version": "",
        "task": "embed",
        "display_name": "",
        "output_url": "",
        "weight": 0,
        "share_max": None,
        "windows": [],
        "failed_rows_max": None,
        "create_time": "2023-11-14T22:13:20+00:00",
        "next_run_time": "2031-05-06T00:00:00+00:00",
        "last_run": None,
    }


@pytest.mark.parametrize("option", ["--quiet", "--expire-after"])
def test_what_is_no_span_of_time_is_refused(penstock: Penstock, option: str) -> None:
    result = penstock("bulk", "schedule", "create", "/in", *NIGHTLY, option, "0s")
    assert result.exit_code == 2
    assert "no span of time; write 90s, 30m, 12h or 7d" in result.stderr


def test_cron_is_required(penstock: Penstock) -> None:
    result = penstock("bulk", "schedule", "create", "/in", "--model", "m")
    assert result.exit_code == 2
    assert "--cron" in result.stderr


def test_run_prints_the_jobs_it_made(penstock: Penstock, address: str) -> None:
    assert penstock("bulk", "schedule", "run", "s1").stdout == (
        "j0\nj1\n2 jobs made, 1 new file left to the next run\n"
        f"Watch one with: penstock bulk watch --address {address} j0\n"
    )
    document = json_of(penstock("bulk", "schedule", "run", "s1", "--json"))
    assert document == {
        "time": "2027-01-15T08:00:00+00:00",
        "jobs": 2,
        "files_left": 1,
        "error": None,
        "job_ids": ["j0", "j1"],
    }


def test_a_run_without_new_files_says_so(penstock: Penstock, script: Script) -> None:
    script.run_jobs = script.run_files_left = 0
    assert penstock("bulk", "schedule", "run", "s1").stdout == "no new files\n"


def test_a_run_that_made_not_every_job_is_exit_status_1(penstock: Penstock, script: Script) -> None:
    script.run_jobs, script.run_files_left, script.run_fails = 0, 0, "s3://in cannot be reached"
    result = penstock("bulk", "schedule", "run", "s1")
    assert (result.exit_code, result.stdout) == (1, "0 jobs made\n")
    assert result.stderr == "penstock: not every job was made: s3://in cannot be reached\n"
    assert penstock("bulk", "schedule", "run", "s1", "--json").exit_code == 1


def test_show_tells_the_last_run(penstock: Penstock, script: Script) -> None:
    penstock("bulk", "schedule", "create", "s3://in/*.csv", *NIGHTLY, "--expire-after", "12h")
    before = penstock("bulk", "schedule", "show", "s1").stdout
    assert "s3://in/*.csv" in before
    assert "0 2 * * * Europe/Berlin" in before
    assert "jobs expire after 12 h 00 min" in before
    assert "no run yet; look for files now with: penstock bulk schedule run" in before
    script.run_fails = "s3://in cannot be reached"
    penstock("bulk", "schedule", "run", "s1")
    after = penstock("bulk", "schedule", "show", "s1")
    assert (
        "last run: 2027-01-15 09:00 CET: 2 jobs made, 1 new file left to the next run\n"
        "not every job was made: s3://in cannot be reached\n"
    ) in after.stdout
    assert "2027-01-15 09:00 CET, 2 jobs, an error" in after.stdout
    assert after.exit_code == 0
    document = json_of(penstock("bulk", "schedule", "show", "s1", "--json"))
    assert document["last_run"]["error"]["message"] == "s3://in cannot be reached"


def test_schedules_are_listed(penstock: Penstock, script: Script) -> None:
    listed = json_of(penstock("bulk", "schedule", "list", "--json", "--limit", "3"))
    assert [each["id"] for each in listed] == ["s0", "s1", "s2"]
    assert "s4" in penstock("bulk", "schedule", "list").stdout
    script.schedules = 0
    assert "make one with `penstock bulk schedule create" in penstock("bulk", "schedule", "list").stdout
    assert json_of(penstock("bulk", "schedule", "list", "--json")) == []


def test_pause_and_resume_tell_what_comes_next(penstock: Penstock, address: str) -> None:
    penstock("bulk", "schedule", "create", "/in", *NIGHTLY)
    assert penstock("bulk", "schedule", "pause", "s1").stdout == (
        f"s1 paused; go on with: penstock bulk schedule resume --address {address} s1\n"
    )
    shown = penstock("bulk", "schedule", "show", "s1").stdout
    assert "paused" in shown
    assert penstock("bulk", "schedule", "resume", "s1").stdout == (
        "s1 resumed; next run: 2031-05-06 02:00 CEST\n"
    )
    assert json_of(penstock("bulk", "schedule", "pause", "s1", "--json"))["next_run_time"] is None
    assert json_of(penstock("bulk", "schedule", "resume", "s1", "--json"))["is_paused"] is False


def test_times_of_a_zone_that_is_not_known_here_are_in_utc(penstock: Penstock) -> None:
    result = penstock(
        "bulk", "schedule", "create", "/in", "--model", "m", "--cron", "0 2 * * *", "--time-zone", "Moon/Sea"
    )
    assert "next run: 2031-05-06 00:00 UTC\n" in result.stdout


def test_delete_says_that_the_jobs_stay(penstock: Penstock) -> None:
    assert penstock("bulk", "schedule", "delete", "s1").stdout == "s1 deleted; its jobs stay\n"
    assert json_of(penstock("bulk", "schedule", "delete", "s1", "--json")) == {"id": "s1", "deleted": True}


def test_what_the_server_refuses_is_one_line(penstock: Penstock, script: Script) -> None:
    assert penstock("bulk", "schedule", "show", "s9").stderr == "penstock: no such schedule\n"
    script.refusals.append(
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "spec.cron: never comes", (info_of("INVALID_REQUEST"),))
    )
    result = penstock("bulk", "schedule", "create", "/in", *NIGHTLY, "--task", "embed")
    assert (result.exit_code, result.stderr) == (1, "penstock: spec.cron: never comes\n")
