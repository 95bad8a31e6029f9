"""Routing rules on a real server: who says no class gets one by what is known of the call."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from penstock import Client, RequestClass
from penstock_server.app import PenstockServer
from penstock_server.domain.errors import InvalidRequest
from tests.support.server import ServerThread, demo_config, running_server

ROUTING = [
    {"name": "reports", "metadata": {"x-use": "report"}, "request_class": "flex"},
    {"name": "long", "methods": ["Embed"], "chars_min": 1000, "request_class": "flex"},
    {"name": "urgent", "tenants": ["pager"], "methods": ["Stream"], "request_class": "live_critical"},
]


@pytest.fixture(scope="module")
def routed_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerThread]:
    with running_server(tmp_path_factory.mktemp("routed") / "data", routing=ROUTING) as server:
        yield server


def test_metadata_decides_where_the_caller_says_nothing(routed_server: ServerThread) -> None:
    with Client(routed_server.address, metadata={"x-use": "report"}) as client:
        info = client.embed(["short"], model="minilm", explain=True).info
        assert info.served_class is RequestClass.FLEX
        assert info.explanation is not None
        assert info.explanation.routing_rule == "reports"
        said = client.embed(["short"], model="minilm", request_class="live", explain=True).info
        assert said.served_class is RequestClass.LIVE


def test_length_and_method_decide(routed_server: ServerThread) -> None:
    with Client(routed_server.address, metadata={"x-use": "chat"}) as client:
        assert client.embed(["short"], model="minilm").info.served_class is RequestClass.LIVE
        assert client.embed(["word " * 200], model="minilm").info.served_class is RequestClass.FLEX
        assert client.classify(["word " * 200], model="injection").info.served_class is RequestClass.LIVE


def test_each_text_of_a_stream_is_routed(routed_server: ServerThread) -> None:
    with Client(routed_server.address) as client:
        results = list(client.stream(["a", "b"], model="minilm", task="embed", tenant="pager"))
        classes = [None if result.info is None else result.info.served_class for result in results]
        assert classes == [RequestClass.LIVE_CRITICAL] * 2


async def test_a_rule_about_a_model_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    routing = [{"name": "typo", "models": ["minilmm"], "request_class": "flex"}]
    server = PenstockServer(demo_config(tmp_path / "data", routing=routing))
    with pytest.raises(InvalidRequest, match="'typo' names the model 'minilmm'"):
        await server.start()
    await server.stop()
