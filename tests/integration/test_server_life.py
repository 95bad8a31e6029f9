"""The server as a process: start, health, reflection, drain, death."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from penstock.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from penstock_server.app import PenstockServer
from tests.support.server import (
    MODELS,
    ServerProcess,
    ServerThread,
    demo_config,
    running_server,
    server_process,
)

SERVING = health_pb2.HealthCheckResponse.SERVING


def embed_request(*texts: str) -> inference_pb2.EmbedRequest:
    return inference_pb2.EmbedRequest(
        model=common_pb2.ModelRef(name="minilm"), inputs=[common_pb2.TextInput(text=text) for text in texts]
    )


@pytest.mark.parametrize("service", ["", "minilm", "injection@1", "penstock.v1.InferenceService"])
def test_health_is_told_for_the_server_each_service_and_each_model(
    live_server: ServerThread, service: str
) -> None:
    with grpc.insecure_channel(live_server.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING


def test_health_of_an_unknown_model_is_not_found(live_server: ServerThread) -> None:
    with grpc.insecure_channel(live_server.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nope"))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(live_server: ServerThread) -> None:
    with grpc.insecure_channel(live_server.address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        response: Any = next(stub.ServerReflectionInfo(iter([request])))
    names: set[str] = {service.name for service in response.list_services_response.service}
    assert {"penstock.v1.InferenceService", "penstock.v1.BulkService", "penstock.v1.ModelService"} <= names
    assert "grpc.health.v1.Health" in names


def test_drain_answers_what_is_in_flight_and_ends_cleanly(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server, grpc.insecure_channel(server.address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        texts = ["a longer text that takes a moment to compute " * 8] * 200
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(stub.Embed, embed_request(*texts))
            wait_until_computing(stub)
            assert server.terminate() == 0
            assert len(answer.result(30).embeddings) == 200


def test_drain_does_not_wait_for_those_who_only_watch_health(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server, grpc.insecure_channel(server.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == SERVING
        assert server.terminate() == 0
        # The grace is 30 s; the log tells how long the drain took.
        log = (tmp_path / "data.log").read_text()
    assert drain_seconds(log) < 15


def drain_seconds(log: str) -> float:
    times = [
        datetime.fromisoformat(re.sub(r"\x1b\[[0-9;]*m", "", line).split()[0])
        for line in log.splitlines()
        if "draining" in line or "stopped" in line
    ]
    return (times[-1] - times[0]).total_seconds()


async def test_server_stopped_before_it_has_opened_its_port_ends_cleanly(tmp_path: Path) -> None:
    server = PenstockServer(demo_config(tmp_path / "data"))
    await server.stop()
    # The data folder is free again.
    await PenstockServer(demo_config(tmp_path / "data")).stop()


def test_broken_model_is_marked_and_the_others_serve(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(MODELS / "minilm", models / "minilm")
    (models / "broken").mkdir()
    (models / "broken" / "model.onnx").write_bytes(b"")
    with running_server(tmp_path / "data", models_dir=models) as server:  # noqa: SIM117
        with grpc.insecure_channel(server.address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            assert stub.Embed(embed_request("x")).dimensions == 384
            request = embed_request("x")
            request.model.name = "broken"
            with pytest.raises(grpc.RpcError) as caught:
                stub.Embed(request)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INTERNAL
    assert str(tmp_path) not in error.details()


def wait_until_computing(stub: Any) -> None:
    """A live call is answered after the batch before it has started, so the large call is under way."""
    stub.Embed(embed_request("x"))


def test_welcome_names_address_models_and_three_commands(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server:
        assert re.fullmatch(r"Penstock serves at 127\.0\.0\.1:\d+", server.welcome[0])
        text = "\n".join(server.welcome)
        assert re.search(r"minilm .*embed", text)
        assert re.search(r"injection .*classify", text)
        commands = [line.split() for line in server.welcome if line.startswith("  penstock ")]
        assert len(commands) == 3
        # The first command is tried as it stands there.
        tried = subprocess.run(
            [sys.executable, "-m", "penstock_server.cli", *shlex.split(" ".join(commands[0][1:]))],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (tried.returncode, tried.stderr) == (0, "")
        assert "384 dimensions" in tried.stdout


def test_second_server_on_the_same_data_is_refused_in_one_line(tmp_path: Path) -> None:
    with server_process(tmp_path / "data"), pytest.raises(AssertionError, match="ended with 1"):
        ServerProcess(tmp_path / "data")
    log = (tmp_path / "data.log").read_text()
    assert "is used by another server" in log
    assert "Traceback" not in log


def test_each_call_leaves_one_structured_line(tmp_path: Path) -> None:
    with server_process(tmp_path / "data", "--json-logs") as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            stub.Embed(embed_request("one", "two"))
            with pytest.raises(grpc.RpcError):
                stub.Embed(embed_request(""))
        assert server.terminate() == 0
    lines = [json.loads(line) for line in (tmp_path / "data.log").read_text().splitlines()]
    calls = [line for line in lines if line["event"] == "rpc"]
    assert [call["code"] for call in calls] == ["OK", "INVALID_ARGUMENT"]
    assert (calls[0]["model"], calls[0]["rows"], calls[0]["request_class"]) == ("minilm", 2, "LIVE")
    assert calls[0]["duration_ms"] > 0
    assert calls[1]["reason"] == "INVALID_REQUEST"


def test_worker_ends_when_the_server_is_killed(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        assert children
        server.kill()
        for child in children:
            wait_for_end(int(child))


def wait_for_end(pid: int) -> None:
    """Waits, by the process's own descriptor, until it has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([descriptor], [], [], 20)
    os.close(descriptor)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    assert ready
