"""Streams over a real wire."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import penstock
from penstock import AsyncClient, Client, StreamAppend, StreamText
from penstock.stream import StreamItem, open_request
from tests.unit.client.scripted import Script, vector_of


def test_texts_are_numbered_and_answered(client: Client, script: Script) -> None:
    items: list[StreamItem] = ["one", ("mine", "three"), StreamText("pair", ("a", "b"))]
    results = list(client.stream(items, model="m", task="embed", max_in_flight=3, order="as-ready"))
    assert [result.id for result in results] == ["0", "mine", "pair"]
    assert results[1].embedding is not None
    assert results[1].embedding.tolist() == vector_of("three")
    assert results[0].info is not None
    assert results[0].info.model == "m"
    opening = script.requests[0].open
    assert (opening.task, opening.max_in_flight, opening.order) == (1, 3, 2)
    assert not opening.HasField("text_timeout_ms")
    assert script.requests[3].text.input.text_pair == "b"


def test_a_bad_text_is_answered_with_its_error_and_the_stream_goes_on(client: Client) -> None:
    results = list(client.stream(["a", "bad", "c"], model="m", task="embed"))
    assert [result.answer is None for result in results] == [False, True, False]
    assert isinstance(results[1].error, penstock.InvalidRequestError)


def test_keys_and_appended_text(client: Client, script: Script) -> None:
    items: list[StreamItem] = [
        StreamText("1", "a", key="k"),
        StreamAppend("grow", "more."),
        StreamAppend("grow", "", end=True),
    ]
    results = list(client.stream(items, model="m", task="embed"))
    assert results[0].superseded_by == "after-1"
    assert results[2].sentences_total == 3
    assert script.requests[1].text.key == "k"
    assert [request.append.end for request in script.requests[2:]] == [False, True]


def test_answers_come_while_texts_are_still_to_come(client: Client) -> None:
    texts: queue.Queue[str | None] = queue.Queue()

    def endless() -> Iterator[str]:
        while (text := texts.get()) is not None:
            yield text

    results = client.stream(endless(), model="m", task="embed", timeout_s=10)
    for text in ("a", "bb"):
        texts.put(text)
        assert next(results).embedding == penstock.Embedding.of_numbers(vector_of(text))
    texts.put(None)
    assert list(results) == []


def test_leaving_the_loop_ends_the_stream(client: Client, script: Script) -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "a"

    results = client.stream(endless(), model="m", task="embed")
    next(results)
    results.close()  # type: ignore[attr-defined]  # pyright: ignore
    assert script.stream_left.wait(10)


def test_an_error_of_the_texts_is_raised_after_the_answers_before_it(client: Client) -> None:
    def failing() -> Iterator[str]:
        yield "a"
        raise OSError("disk gone")

    results = client.stream(failing(), model="m", task="embed")
    assert next(results).id == "0"
    with pytest.raises(OSError, match="disk gone"):
        next(results)


@pytest.mark.parametrize("item", [3, ("id", 3), b"x"])
def test_an_item_of_the_wrong_type_is_named(client: Client, item: Any) -> None:
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        list(client.stream(["a", item], model="m", task="embed"))


def test_an_unknown_task_is_refused_before_anything_is_sent(client: Client, script: Script) -> None:
    with pytest.raises(ValueError, match="'embed', 'classify'"):
        client.stream(["a"], model="m", task="translate")
    assert not script.requests


def test_text_timeout_travels_in_milliseconds(client: Client, script: Script) -> None:
    list(client.stream([], model="m", task="embed", text_timeout_s=1.5))
    assert script.requests[0].open.text_timeout_ms == 1500


async def test_the_async_stream_takes_both_kinds_of_iterables(async_client: AsyncClient) -> None:
    async def texts() -> AsyncIterator[str]:
        yield "one"
        yield "bad"

    results = [each async for each in async_client.stream(texts(), model="m", task="embed")]
    assert results[0].embedding is not None
    assert isinstance(results[1].error, penstock.InvalidRequestError)
    plain = [each.id async for each in async_client.stream(["a", "b"], model="m", task="embed")]
    assert plain == ["0", "1"]


async def test_an_error_of_the_async_texts_is_raised(async_client: AsyncClient) -> None:
    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise OSError("disk gone")

    results = async_client.stream(failing(), model="m", task="embed")
    assert (await anext(results)).id == "0"
    with pytest.raises(OSError, match="disk gone"):
        await anext(results)


@pytest.mark.parametrize(("timeout_s", "expected_ms"), [(0.5, 500), (0.0, 1), (float("inf"), (1 << 31) - 1)])
def test_text_timeouts_of_any_length_fit_the_message(timeout_s: float, expected_ms: int) -> None:
    opening = open_request("minilm", "embed", {"text_timeout_s": timeout_s}).open
    assert opening.text_timeout_ms == expected_ms
