from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from penstock_server.cli import cli
from penstock_server.commands.simulate import POLICIES
from penstock_server.simulation.runner import POLICIES as RUN_POLICIES


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *arguments])


def test_all_policies_stand_side_by_side() -> None:
    result = simulate("--bulk", "--live-rate", "30", "--duration", "2", "--lengths", "sentences", "--check")
    assert result.exit_code == 0, result.output
    for policy in RUN_POLICIES:
        assert sum(line.startswith(policy) for line in result.output.splitlines()) >= 2
    assert "ours holds: exactly once" in result.output


def test_policies_offered_are_those_that_run() -> None:
    assert POLICIES == RUN_POLICIES


def test_json_holds_the_scenario_the_figures_and_the_verdicts() -> None:
    result = simulate(
        "--json", "--policy", "ours", "--duration", "2", "--seed", "9", "--check", "--tenant", "a:2"
    )
    found = json.loads(result.output)
    assert found["scenario"]["seed"] == 9
    assert found["scenario"]["live"]["tenants"][0]["share"] == 2.0
    assert list(found["policies"]) == ["ours"]
    assert found["policies"]["ours"]["figures"]["live"]["calls"] > 0
    assert all(verdict["count"] == 0 for verdict in found["policies"]["ours"]["verdicts"])
    assert found["holds"] is True


def test_same_options_print_the_same_twice() -> None:
    arguments = ("--json", "--bulk", "--duration", "2", "--policy", "ours", "--policy", "fifo")
    assert simulate(*arguments).output == simulate(*arguments).output


def test_scenario_file_is_taken_and_options_win(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text('name = "mine"\nseed = 4\nduration_s = 2\n[live]\nrate = 10\n')
    found = json.loads(simulate(str(path), "--json", "--seed", "5", "--policy", "ours").output)
    assert (found["scenario"]["name"], found["scenario"]["seed"]) == ("mine", 5)
    assert found["scenario"]["live"]["rate"] == 10.0


def test_recorded_trace_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    lines = [{"arrival_ns": index * 10_000_000, "class": "LIVE", "tokens": [12]} for index in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = json.loads(simulate("--json", "--arrivals", str(path), "--policy", "ours").output)
    assert found["policies"]["ours"]["figures"]["live"]["calls"] == 30


def test_wrong_values_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("sead = 1")
    for arguments, told in (
        (["--arrivals", "missing.jsonl"], "missing.jsonl"),
        (["--lengths", "haiku"], "haiku"),
        (["--tenant", "a:b"], "a:b"),
        (["--duration", "1e9"], "duration_s"),
        ([str(tmp_path / "bad.toml")], "sead"),
    ):
        result = simulate(*arguments)
        assert result.exit_code == 1
        assert told in result.output
        assert "Traceback" not in result.output
