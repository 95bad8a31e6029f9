"""Unary calls over a real wire: bytes, splitting, deadlines, errors, retries."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

import penstock
from penstock import AsyncClient, Client
from penstock.inference import CALL_BYTES_MAX
from tests.unit.client.scripted import Refusal, Script, info_of, retry_after, vector_of

UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, "loading", (info_of("MODEL_LOADING"),))


def test_vectors_are_read_from_packed_bytes(client: Client) -> None:
    vectors = client.embed(["one", "three"], model="m")
    assert vectors.tolist() == [vector_of("one"), vector_of("three")]
    assert vectors.dimensions == 3
    assert vectors[0].packed == np.array(vector_of("one"), dtype="<f4").tobytes()
    assert (vectors.info.model, vectors.info.version, vectors.info.tokens) == ("m", "1", 7)
    assert vectors.info.timings.total_s == pytest.approx(0.0025)


def test_unpacked_vectors_read_the_same(client: Client, script: Script) -> None:
    packed = client.embed(["one"], model="m")
    script.vector_format = "values"
    assert client.embed(["one"], model="m") == packed


def test_vectors_become_numpy_arrays(client: Client) -> None:
    vectors = client.embed(["one", "three"], model="m")
    assert vectors.to_numpy().dtype == np.float32
    assert np.asarray(vectors).shape == (2, 3)
    assert np.asarray(vectors[1], dtype=np.float64).tolist() == vector_of("three")
    with pytest.raises(ValueError, match="without a copy"):
        np.array(vectors[1], dtype=np.float64, copy=False)


def test_options_reach_the_server(client: Client, script: Script) -> None:
    client.embed(
        ["a"],
        model="m",
        normalize=False,
        dimensions=2,
        version="7",
        truncation="error",
        tokens_max=9,
        request_class=penstock.RequestClass.FLEX,
        on_overload="demote-to-bulk",
        tenant="t",
    )
    sent = script.requests[0]
    assert (sent.model.name, sent.model.version) == ("m", "7")
    assert (sent.embed.normalize, sent.embed.HasField("normalize"), sent.embed.dimensions) == (False, True, 2)
    options = sent.options
    assert (options.truncation, options.tokens_max, options.request_class) == (1, 9, 3)
    assert (options.overload_policy, options.tenant) == (3, "t")


def test_unset_options_leave_the_models_own_settings(client: Client, script: Script) -> None:
    client.embed(["a"], model="m")
    assert not script.requests[0].embed.HasField("normalize")
    assert script.requests[0].options.ByteSize() == 0


def test_pairs_and_labels(client: Client) -> None:
    answers = client.classify(["a", ("a", "b")], model="m", top_k=2)
    assert [answer.label for answer in answers] == ["single", "pair"]
    assert answers[0].score == 0.75
    assert [each.label for each in answers[0].labels] == ["single", "other"]


def test_spans(client: Client) -> None:
    spans = client.tag(["Zoé"], model="m", aggregation="max")[0]
    assert (spans[0].label, spans[0].end_char, spans[0].end_byte) == ("PER", 3, 4)


def test_tokens(client: Client, script: Script) -> None:
    tokens = client.tokenize(["ab"], model="m", special_tokens=False)[0]
    assert (tokens.ids, tokens.tokens, tokens.offsets) == ((5, 6), ("a", "b"), ((0, 1), (1, 2)))
    assert script.requests[0].omit_special_tokens
    bare = client.tokenize(["ab"], model="m", return_tokens=False, return_offsets=False)[0]
    assert (bare.tokens, bare.offsets) == (None, None)


def test_a_long_list_is_split_and_joined_in_order(address: str, script: Script) -> None:
    texts = ["x" * length for length in range(1, 26)]
    with Client(address, rows_max=10) as client:
        vectors = client.embed(texts, model="m")
    assert [len(request.inputs) for request in script.requests] == [10, 10, 5]
    assert [int(vector[0]) for vector in vectors] == list(range(1, 26))
    assert vectors.info.tokens == 21


def test_the_version_of_the_first_part_answers_all_parts(address: str, script: Script) -> None:
    script.versions.extend(["3", "4"])
    with Client(address, rows_max=1) as client:
        client.embed(["a", "b"], model="m")
    assert [request.model.version for request in script.requests] == ["", "3"]


def test_large_texts_are_split_below_the_message_limit(client: Client, script: Script) -> None:
    client.embed(["x" * (CALL_BYTES_MAX // 2)] * 3, model="m")
    assert [len(request.inputs) for request in script.requests] == [1, 1, 1]


@pytest.mark.parametrize("form", ["by place", "by name", "texts first"])
def test_rerank_merges_the_parts_by_score(address: str, form: str) -> None:
    documents = ["aa", "a", "aaaa", "aaa"]
    with Client(address, rows_max=2) as client:
        if form == "by place":
            ranking = client.rerank("query", documents, model="m", top_k=2)
        elif form == "by name":
            ranking = client.rerank(texts=documents, query="query", model="m", top_k=2)
        else:
            ranking = client.rerank(documents, query="query", model="m", top_k=2)
    assert [(each.index, each.score) for each in ranking] == [(2, 4.0), (3, 3.0)]


def test_a_single_str_is_refused_with_the_way_to_write_it(client: Client) -> None:
    with pytest.raises(TypeError, match=r"write \['a text'\]"):
        client.embed("a text", model="m")


@pytest.mark.parametrize(("texts", "place"), [([b"x"], 0), (["a", 3], 1), (["a", ("b",)], 1)])
def test_an_item_of_the_wrong_type_is_named(client: Client, texts: Any, place: int) -> None:
    with pytest.raises(TypeError, match=rf"texts\[{place}\]"):
        client.classify(texts, model="m")


def test_a_lone_surrogate_is_an_invalid_request(client: Client) -> None:
    with pytest.raises(penstock.InvalidRequestError, match="not valid Unicode") as caught:
        client.embed(["ok", "\ud800"], model="m")
    assert caught.value.violations[0].field == "texts[1]"


def test_an_unknown_word_lists_the_words_there_are(client: Client) -> None:
    with pytest.raises(ValueError, match="'right', 'left'"):
        client.embed(["a"], model="m", truncation="middle")


def test_token_and_metadata_are_sent(address: str, script: Script) -> None:
    with Client(address, token="secret", metadata={"X-Trace": "7"}) as client:
        client.health()
    sent = script.metadata[0]
    assert (sent["authorization"], sent["x-trace"]) == ("Bearer secret", "7")


def test_error_details_are_read(client: Client, script: Script) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="inputs[2].text", description="is empty")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    details = (info_of("INVALID_REQUEST", limit="5"), bad)
    script.refusals.append(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "inputs[2].text: is empty", details))
    with pytest.raises(penstock.InvalidRequestError, match="is empty") as caught:
        client.embed(["a"], model="m")
    error = caught.value
    assert (error.reason, error.metadata, error.status) == (
        "INVALID_REQUEST",
        {"limit": "5"},
        "INVALID_ARGUMENT",
    )
    assert error.violations == (penstock.Violation("inputs[2].text", "is empty"),)
    assert isinstance(error.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL", penstock.NotFoundError),
        (grpc.StatusCode.FAILED_PRECONDITION, "TASK_NOT_SUPPORTED", penstock.TaskNotSupportedError),
        (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", penstock.WrongStateError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_UNMEETABLE", penstock.DeadlineExceededError),
        (grpc.StatusCode.UNAUTHENTICATED, "", penstock.UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, "", penstock.PermissionDeniedError),
        (grpc.StatusCode.UNIMPLEMENTED, "NOT_IN_THIS_RELEASE", penstock.UnimplementedError),
        (grpc.StatusCode.INTERNAL, "INTERNAL", penstock.InternalError),
        (grpc.StatusCode.DATA_LOSS, "CORRUPT_UPLOAD", penstock.DataLossError),
        (grpc.StatusCode.CANCELLED, "CANCELLED", penstock.CallCancelledError),
    ],
)
def test_each_status_has_its_error(
    client: Client, script: Script, code: grpc.StatusCode, reason: str, kind: type[penstock.PenstockError]
) -> None:
    script.refusals.append(Refusal(code, "why", (info_of(reason),) if reason else ()))
    with pytest.raises(penstock.PenstockError) as caught:
        client.embed(["a"], model="m")
    assert type(caught.value) is kind
    assert len(script.requests) == 1


def test_unavailable_is_tried_again(client: Client, script: Script) -> None:
    script.refusals.extend([UNAVAILABLE] * 2)
    assert len(client.embed(["a"], model="m")) == 1
    assert len(script.requests) == 3


def test_unavailable_is_not_tried_for_ever(client: Client, script: Script) -> None:
    script.refusals.extend([UNAVAILABLE] * 9)
    with pytest.raises(penstock.UnavailableError, match="loading"):
        client.embed(["a"], model="m")
    assert len(script.requests) == 4


def test_an_overloaded_server_that_says_when_is_tried_again(client: Client, script: Script) -> None:
    busy = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (info_of("OVERLOADED"), retry_after(0.01)))
    script.refusals.extend([busy] * 2)
    assert len(client.embed(["a"], model="m")) == 1
    assert len(script.requests) == 3


def test_an_exhausted_resource_without_retry_info_is_not_tried_again(client: Client, script: Script) -> None:
    script.refusals.append(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "disk", (info_of("STORAGE_FULL"),)))
    with pytest.raises(penstock.OverloadedError, match="disk"):
        client.embed(["a"], model="m")
    assert len(script.requests) == 1


def test_a_retry_that_the_deadline_forbids_is_not_waited_for(client: Client, script: Script) -> None:
    script.refusals.append(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (retry_after(0.9),)))
    with pytest.raises(penstock.OverloadedError) as caught:
        client.embed(["a"], model="m", timeout_s=0.5)
    assert caught.value.retry_after_s == pytest.approx(0.9)


def test_a_deadline_already_past_sends_nothing(client: Client, script: Script) -> None:
    with pytest.raises(penstock.DeadlineExceededError, match="timeout_s=0"):
        client.embed(["a"], model="m", timeout_s=0)
    assert not script.requests


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e12, 1e300])
def test_a_timeout_beyond_all_clocks_is_no_limit(client: Client, timeout_s: float) -> None:
    assert len(client.embed(["a"], model="m", timeout_s=timeout_s)) == 1
    assert len(list(client.stream(["a"], model="m", task="embed", timeout_s=timeout_s))) == 1


def test_a_timeout_that_is_no_number_is_refused(client: Client, script: Script) -> None:
    with pytest.raises(ValueError, match="0 or more seconds"):
        client.embed(["a"], model="m", timeout_s=float("nan"))
    assert not script.requests


def test_an_unreachable_server_is_named_with_the_way_out() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(penstock.UnavailableError) as caught:
        client.embed(["a"], model="m", timeout_s=5)
    assert "127.0.0.1:1; start one with `penstock serve`" in caught.value.message
    assert caught.value.reason == "SERVER_UNREACHABLE"


def test_errors_survive_pickling(client: Client, script: Script) -> None:
    script.refusals.append(Refusal(grpc.StatusCode.NOT_FOUND, "none", (info_of("UNKNOWN_MODEL", name="m"),)))
    with pytest.raises(penstock.NotFoundError) as caught:
        client.embed(["a"], model="m")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), copy.reason, copy.metadata) == (
        penstock.NotFoundError,
        "UNKNOWN_MODEL",
        {"name": "m"},
    )


def test_health_and_models(client: Client) -> None:
    assert client.health().is_serving
    assert client.health("m") is penstock.HealthStatus.SERVING
    assert client.health("loading") is penstock.HealthStatus.NOT_SERVING
    with pytest.raises(penstock.NotFoundError, match="no model 'other'"):
        client.health("other")
    model = client.models.list()[0]
    described = client.models.get("m")
    assert (described.name, described.versions[0].tokens_max) == (model.name, model.versions[0].tokens_max)
    assert model.versions[0].costs == ()
    (costs,) = described.versions[0].costs
    assert costs.lane is penstock.LaneKind.BULK
    assert costs.median_ms == ((1.1, 1.2, 1.3), (2.1, 2.2, 2.3))
    assert costs.upper_ms[1][2] == 3.3
    assert (costs.rows, costs.lengths, costs.best_rows) == ((1, 2), (8, 16, 24), (2, 2, 1))
    assert (costs.observations, costs.drift) == (1234, 1.25)
    with pytest.raises(penstock.NotFoundError):
        client.models.get("other")
    assert (model.name, model.versions[0].task, model.versions[0].state) == (
        "m",
        penstock.Task.EMBED,
        penstock.ModelState.READY,
    )


async def test_the_async_client_makes_the_same_calls(async_client: AsyncClient, script: Script) -> None:
    script.refusals.append(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (retry_after(0.01),)))
    assert (await async_client.embed(["one"], model="m")).tolist() == [vector_of("one")]
    assert (await async_client.classify([("a", "b")], model="m"))[0].label == "pair"
    assert (await async_client.tag(["a"], model="m"))[0][0].label == "PER"
    assert (await async_client.rerank("q", ["a", "bb"], model="m"))[0].index == 1
    assert (await async_client.tokenize(["a"], model="m"))[0].ids == (5, 6)
    assert (await async_client.health("m")).is_serving
    assert (await async_client.models.list())[0].name == "m"


async def test_the_async_client_takes_the_same_timeouts(async_client: AsyncClient) -> None:
    forever_s = float("inf")
    assert len(await async_client.embed(["a"], model="m", timeout_s=forever_s)) == 1
    results = async_client.stream(["a"], model="m", task="embed", timeout_s=forever_s)
    assert len([result async for result in results]) == 1


async def test_the_async_client_raises_the_same_errors(async_client: AsyncClient, script: Script) -> None:
    script.refusals.append(Refusal(grpc.StatusCode.NOT_FOUND, "none", (info_of("UNKNOWN_MODEL"),)))
    with pytest.raises(penstock.NotFoundError) as caught:
        await async_client.embed(["a"], model="m")
    assert caught.value.reason == "UNKNOWN_MODEL"


async def test_a_closed_async_client_says_so(async_client: AsyncClient) -> None:
    await async_client.close()
    with pytest.raises(ValueError, match="closed"):
        await async_client.health()


def test_importing_the_messages_loads_neither_client_nor_numpy() -> None:
    code = (
        "import sys, json, penstock.v1.common_pb2; before = sorted(sys.modules); import penstock; "
        "penstock.Client; print(json.dumps([before, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert "penstock.client" not in before
    assert "penstock.client" in after
    assert "numpy" not in after


def test_every_exported_name_can_be_imported() -> None:
    assert all(getattr(penstock, name) is not None for name in penstock.__all__)
    assert set(penstock.__all__) <= set(dir(penstock))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = penstock.Nonsense
