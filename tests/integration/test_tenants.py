"""Who pays for a call: certificate, metadata, options; and what each may use."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from penstock import Client, InvalidRequestError, NotFoundError, OverloadedError
from penstock.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from tests.support.server import ServerThread, running_server

TLS = Path(__file__).parents[1] / "data" / "tls"
SERVER_TLS = {
    "certificate": TLS / "server.pem",
    "private_key": TLS / "server.key",
    "client_ca": TLS / "authority.pem",
}
TENANTS = {"named": {"slow": {"tokens_per_s": 10, "burst_tokens": 10}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerThread]:
    with running_server(tmp_path_factory.mktemp("tenants") / "data", tenants=TENANTS) as server:
        yield server


def acme() -> grpc.ChannelCredentials:
    """What the tenant acme shows."""
    authority, key, certificate = (
        (TLS / name).read_bytes() for name in ("authority.pem", "client.key", "client.pem")
    )
    return grpc.ssl_channel_credentials(authority, key, certificate)


def tenant_of(client: Client, **options: Any) -> str:
    explanation = client.embed(["x"], model="minilm", explain=True, **options).info.explanation
    assert explanation is not None
    return explanation.tenant


def test_metadata_goes_before_options(server: ServerThread) -> None:
    with Client(server.address) as client:
        assert tenant_of(client) == ""
        assert tenant_of(client, tenant="mine") == "mine"
    with Client(server.address, metadata={"penstock-tenant": "team a"}) as client:
        assert tenant_of(client, tenant="mine") == "team a"


def test_a_stream_has_the_tenant_of_its_call(server: ServerThread) -> None:
    with Client(server.address, metadata={"penstock-tenant": "team a"}) as client:
        (result,) = client.stream(["x"], model="minilm", task="embed", explain=True)
    assert result.info is not None
    assert result.info.explanation is not None
    assert result.info.explanation.tenant == "team a"


@pytest.mark.parametrize("name", ["a\nb", " a", "a" * 129, "é" * 65])
def test_names_that_cannot_be_shown_are_refused(server: ServerThread, name: str) -> None:
    with Client(server.address) as client, pytest.raises(InvalidRequestError, match=r"options\.tenant"):
        client.embed(["x"], model="minilm", tenant=name)


def test_a_tenant_over_its_rate_is_refused_and_others_are_not(server: ServerThread) -> None:
    request = inference_pb2.EmbedRequest(
        model=common_pb2.ModelRef(name="minilm"), inputs=[common_pb2.TextInput(text="four more words here")]
    )
    with grpc.insecure_channel(server.address) as channel:
        embed = inference_pb2_grpc.InferenceServiceStub(channel).Embed
        slow = (("penstock-tenant", "slow"),)

        def embed_often() -> None:
            for _ in range(4):
                embed(request, metadata=slow)

        with pytest.raises(grpc.RpcError) as refused:
            embed_often()
        embed(request, metadata=(("penstock-tenant", "other"),))
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(error.trailing_metadata())
    assert 1 <= int(trailers["grpc-retry-pushback-ms"]) <= 60_000
    retry, info = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
    details = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details
    assert any(each.Unpack(retry) for each in details)
    assert any(each.Unpack(info) for each in details)
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0
    assert dict(info.metadata)["limit"] == "TENANT_RATE"


def test_a_refused_text_of_a_stream_carries_its_own_status(server: ServerThread) -> None:
    with Client(server.address, metadata={"penstock-tenant": "slow"}) as client:
        results = list(client.stream(["some words to count"] * 6, model="minilm", task="embed"))
    assert len(results) == 6
    refused = [result.error for result in results if result.error is not None]
    assert refused
    for error in refused:
        assert isinstance(error, OverloadedError)
        assert (error.retry_after_s or 0) > 0


def test_the_certificate_names_the_tenant(tmp_path: Path) -> None:
    metadata = {"penstock-tenant": "somebody else"}
    with (
        running_server(tmp_path / "data", tls=SERVER_TLS) as secured,
        Client(secured.address, tls=acme(), metadata=metadata) as client,
    ):
        assert tenant_of(client, tenant="mine") == "acme"


def test_a_tenant_with_a_certificate_reaches_no_others_jobs_and_uploads(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a film"}\n')
    large = tmp_path / "large.jsonl"
    large.write_text('{"text": "a film"}\n' * 100_000)
    data = tmp_path / "data"
    # Made before clients had to show who they are.
    with running_server(data) as open_to_all, Client(open_to_all.address) as client:
        foreign_upload, foreign_large = client.bulk.upload(path), client.bulk.upload(large)
        foreign = client.bulk.create(
            foreign_upload, model="minilm", task="embed", tenant="other", request_id="same"
        )
        client.bulk.wait(foreign.id)
    with running_server(data, tls=SERVER_TLS) as secured, Client(secured.address, tls=acme()) as client:
        bulk = client.bulk
        reaches: list[Callable[[str], object]] = [
            bulk.get,
            bulk.pause,
            bulk.resume,
            bulk.cancel,
            bulk.delete,
            bulk.retry_failed,
            lambda job_id: list(bulk.watch(job_id)),
            lambda job_id: list(bulk.results(job_id)),
        ]
        for reach in reaches:
            with pytest.raises(NotFoundError):
                reach(foreign.id)
        with pytest.raises(NotFoundError):
            bulk.create(foreign_upload, model="minilm", task="embed")
        with pytest.raises(NotFoundError):
            bulk.upload(path, upload_id=foreign_upload)
        assert bulk.list() == []
        own = bulk.submit(path, model="minilm", task="embed", request_id="same")
        assert own.id != foreign.id
        assert bulk.wait(own.id).succeeded == 1
        assert [job.id for job in bulk.list()] == [own.id]
        # Nor does it learn that others have a file.
        own_upload = bulk.upload(large)
        assert own_upload != foreign_large
        assert bulk.upload(large) == own_upload
