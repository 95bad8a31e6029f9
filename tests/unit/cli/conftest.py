from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock_server.cli import cli
from tests.unit.client.scripted import Script, scripted_server

Penstock = Callable[..., Result]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def address(script: Script) -> Iterator[str]:
    with scripted_server(script) as address:
        yield address


@pytest.fixture
def penstock(address: str) -> Penstock:
    """Runs a command line against the scripted server."""

    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        environment = {"PENSTOCK_ADDRESS": address, "COLUMNS": "200"}
        return CliRunner(env=environment).invoke(cli, arguments, input=stdin, prog_name="penstock")

    return run


def json_of(result: Result) -> Any:
    """The one JSON document of a command's output."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)
