"""Live commands against a scripted server: tables for people, JSON for programs, one line for errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from penstock_server.commands import texts
from tests.unit.cli.conftest import Penstock, json_of
from tests.unit.client.scripted import Refusal, Script, info_of, vector_of


def test_embed_shows_the_first_numbers_and_the_dimensions(penstock: Penstock) -> None:
    result = penstock("embed", "--model", "m", "hello", "[bold]no markup[/bold]")
    assert result.exit_code == 0
    assert "[+5.0000 +0.5000 -1.0000] 3 dimensions" in result.stdout
    assert "[bold]no markup[/bold]" in result.stdout
    assert "m version 1: 7 tokens; 2.5 ms" in result.stdout


def test_embed_json_has_whole_vectors(penstock: Penstock, script: Script) -> None:
    document = json_of(
        penstock("embed", "--model", "m", "--json", "--dimensions", "2", "--no-normalize", "a", "bb")
    )
    assert document["embeddings"] == [vector_of("a"), vector_of("bb")]
    assert (document["model"], document["dimensions"], document["served_class"]) == ("m", 3, "live")
    assert (script.requests[0].embed.dimensions, script.requests[0].embed.normalize) == (2, False)


def test_texts_come_from_stdin_without_blank_lines(penstock: Penstock, script: Script) -> None:
    result = penstock("embed", "--model", "m", "--json", stdin="one\r\n\n  \ntwo")
    assert len(json_of(result)["embeddings"]) == 2
    assert [each.text for each in script.requests[0].inputs] == ["one", "two"]


def test_texts_come_from_a_file(penstock: Penstock, script: Script, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("eins\nzwei\n")
    assert penstock("classify", "--model", "m", "--file", str(tmp_path / "texts")).exit_code == 0
    assert [each.text for each in script.requests[0].inputs] == ["eins", "zwei"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (["embed", "text"], None, "Missing option '--model'"),
        (["embed", "--model", "m"], "", "stdin holds no text"),
        (["embed", "--model", "m", "--file", __file__, "text"], None, "not both"),
        (["embed", "--model", "m", "--tokens-max", "0", "text"], None, "0 is not in the range"),
        (["nonsense"], None, "No such command"),
        (["stream", "--model", "m", "--transcript", "--latest-wins"], None, "exclude each other"),
    ],
)
def test_wrong_usage_exits_with_2(
    penstock: Penstock, script: Script, arguments: list[str], stdin: str | None, says: str
) -> None:
    result = penstock(*arguments, stdin=stdin)
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
    assert not script.requests


def test_text_that_is_not_utf8_is_named_by_its_line(penstock: Penstock) -> None:
    result = penstock("embed", "--model", "m", stdin=b"fine\nb\xffd\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "stdin, line 2: not UTF-8 at byte 1" in result.stderr


def test_a_refusal_is_one_line_and_exit_status_1(penstock: Penstock, script: Script) -> None:
    refusal = Refusal(grpc.StatusCode.NOT_FOUND, "There is no model 'x'.", (info_of("UNKNOWN_MODEL"),))
    script.refusals.append(refusal)
    result = penstock("embed", "--model", "x", "text")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "penstock: There is no model 'x'.\n"


def test_an_unreachable_server_says_how_to_start_one(penstock: Penstock) -> None:
    result = penstock("health", "--address", "127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "penstock: no server answers at 127.0.0.1:1; start one with `penstock serve`"
    )
    assert len(result.stderr.splitlines()) == 1


def test_classify_and_tokenize(penstock: Penstock) -> None:
    assert "single 0.7500, other 0.2500" in penstock("classify", "--model", "m", "text").stdout
    document = json_of(penstock("classify", "--model", "m", "--json", "text"))
    assert (document["classifications"][0]["label"], document["classifications"][0]["score"]) == (
        "single",
        0.75,
    )
    sequence = json_of(penstock("tokenize", "--model", "m", "--json", "ab"))["sequences"][0]
    assert (sequence["ids"], sequence["tokens"], sequence["offsets"]) == (
        [5, 6],
        ["a", "b"],
        [[0, 1], [1, 2]],
    )
    assert "a b" in penstock("tokenize", "--model", "m", "ab").stdout


def test_health_tells_by_its_exit_status(penstock: Penstock) -> None:
    assert penstock("health").exit_code == 0
    loading = penstock("health", "--model", "loading")
    assert (loading.exit_code, loading.stdout) == (1, "loading: not serving\n")
    assert json_of(penstock("health", "--model", "m", "--json"))["status"] == "SERVING"


def test_models_are_listed_and_shown(penstock: Penstock) -> None:
    assert "3 dimensions" in penstock("models", "list").stdout
    document = json_of(penstock("models", "show", "m", "--json"))
    assert (document["name"], document["versions"][0]["task"]) == ("m", "embed")
    assert document["versions"][0]["costs"][0]["best_rows"] == [2, 2, 1]
    shown = penstock("models", "show", "m").stdout
    assert "bulk lane: CPU milliseconds a batch" in shown
    assert "1,234 batches seen, drift 1.25" in shown
    assert "2.20 ≤ 3.20" in shown
    assert penstock("models", "show", "other").exit_code == 1


def test_only_demo_has_a_recipe(penstock: Penstock, tmp_path: Path) -> None:
    result = penstock("models", "pull", "bert", "--models", str(tmp_path))
    assert result.exit_code == 2
    assert "pull bert --from-hub" in result.stderr


def test_stream_answers_each_line_and_tells_errors_in_place(penstock: Penstock, script: Script) -> None:
    result = penstock("stream", "--model", "m", stdin="hello\nbad\n\nend")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines == [
        ["[+5.0000 +0.5000 -1.0000] 3 dimensions", "hello"],
        ["error: bad text", "bad"],
        ["[+3.0000 +0.5000 -1.0000] 3 dimensions", "end"],
    ]
    assert result.exit_code == 0
    # The task was asked of the model.
    assert script.requests[1].open.task == 1


def test_stream_json_has_a_line_for_each_answer(penstock: Penstock) -> None:
    result = penstock("stream", "--model", "m", "--task", "embed", "--json", stdin="hello\nbad\n")
    first, second = [json.loads(line) for line in result.stdout.splitlines()]
    assert (first["text"], first["embedding"]) == ("hello", vector_of("hello"))
    assert second["error"] == {"status": "INVALID_ARGUMENT", "reason": "", "message": "bad text"}


def test_stream_options_reach_the_server(penstock: Penstock, script: Script) -> None:
    result = penstock(
        "stream",
        "--model",
        "m",
        "--task",
        "embed",
        "--as-ready",
        "--max-in-flight",
        "3",
        "--latest-wins",
        stdin="a\n",
    )
    opening = script.requests[0].open
    assert (opening.order, opening.max_in_flight) == (2, 3)
    assert script.requests[1].text.key == "stdin"
    assert "replaced by a newer line" in result.stdout


def test_a_transcript_is_sent_as_one_growing_text(penstock: Penstock, script: Script) -> None:
    penstock("stream", "--model", "m", "--task", "embed", "--transcript", "--json", stdin="One. And\ntwo.\n")
    pieces = [(request.append.text, request.append.end) for request in script.requests[1:]]
    assert pieces == [("One. And\n", False), ("two.\n", False), ("", True)]


def test_version_is_told(penstock: Penstock) -> None:
    assert penstock("--version").stdout.startswith("penstock, version ")


def test_lines_are_decoded_one_by_one() -> None:
    lines = texts.decoded(iter([b"fine\r", b"\xff"]), "stdin")
    assert next(lines) == "fine"
    with pytest.raises(ValueError, match="line 2"):
        next(lines)


def test_starting_loads_neither_rich_nor_grpc() -> None:
    heavy = {"rich", "grpc", "numpy"}
    code = f"import sys, penstock_server.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
