from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_server.config import QueueLimits, RequestLimits
from penstock_server.domain.errors import ModelLoading, Overloaded
from penstock_server.domain.model import ModelKey
from penstock_server.domain.routing import RoutingRule
from penstock_server.domain.tasks import OverloadPolicy, RequestClass, RequestOptions, Task, TaskOptions
from penstock_server.domain.work import BatchTimes, Work
from penstock_server.models.loaded import LoadedModel
from penstock_server.models.repository import ModelRepository
from penstock_server.runtime.clock import LoopClock
from penstock_server.runtime.dispatcher import Dispatcher
from penstock_server.runtime.inference import Inference
from penstock_server.runtime.model_table import ModelTable
from penstock_server.runtime.request_ticket import InferenceCall, TextRow
from penstock_server.runtime.router import Router
from penstock_server.text.tokenizer import TokenizerLimits
from tests.support.bulk_jobs import WIDTH, sums_model
from tests.support.work import zeros

ROWS = [TextRow("abc"), TextRow("de")]


def call_of(model: LoadedModel, **options: Any) -> InferenceCall:
    return InferenceCall(model, TaskOptions(Task.EMBED), RequestOptions(**options), None, "Embed")


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    return sums_model(tmp_path / "model")


def rule(**fields: Any) -> RoutingRule:
    return RoutingRule(name="rule", **fields)


def test_a_rule_fills_in_what_the_caller_did_not_say(model: LoadedModel) -> None:
    router = Router([rule(request_class="flex", overload_policy="demote_to_bulk")])
    options = router.routed(call_of(model), ROWS).options
    assert (options.request_class, options.overload_policy) == (
        RequestClass.FLEX,
        OverloadPolicy.DEMOTE_TO_BULK,
    )
    options = router.routed(call_of(model, overload_policy=OverloadPolicy.REJECT), ROWS).options
    assert (options.request_class, options.overload_policy) == (RequestClass.FLEX, OverloadPolicy.REJECT)


def test_who_says_a_class_keeps_it_and_is_not_demoted_unasked(model: LoadedModel) -> None:
    router = Router([rule(request_class="flex", overload_policy="demote_to_bulk")])
    options = router.routed(call_of(model, request_class=RequestClass.LIVE), ROWS).options
    assert (options.request_class, options.overload_policy) == (RequestClass.LIVE, None)


def test_rules_see_rows_and_characters_of_the_request(model: LoadedModel) -> None:
    router = Router([rule(request_class="flex", rows_min=2, rows_max=2, chars_min=5, chars_max=5)])
    assert router.routed(call_of(model), ROWS).rule is not None
    assert router.routed(call_of(model), ROWS[:1]).rule is None
    assert router.routed(call_of(model), [TextRow("ab", "c"), TextRow("de")]).rule is not None


class TwoVersions(ModelTable):
    """A table with a cheaper version beside the one that is asked for."""

    def __init__(self, folder: Path, cheaper: LoadedModel) -> None:
        super().__init__(ModelRepository(folder), [], TokenizerLimits())
        self.cheaper = cheaper
        self.is_ready = True

    def get(self, name: str, version: str = "") -> LoadedModel:
        assert (name, version) == self.cheaper.manifest.key
        if not self.is_ready:
            raise ModelLoading("loading")
        return self.cheaper


class FullFor(Dispatcher):
    """Has no room for one version; computes zeros for the others."""

    def __init__(self, full: ModelKey) -> None:
        self._full = full
        self.works: list[Work] = []
        self.arrivals = 0

    def submit(
        self, work: Work, overload: OverloadPolicy = OverloadPolicy.REJECT, *, is_again: bool = False
    ) -> None:
        self.arrivals += not is_again
        if work.model == self._full:
            raise Overloaded("full", retry_after_s=1.0)
        self.works.append(work)
        work.sink.deliver(work.rows, zeros(len(work.rows), WIDTH), BatchTimes(1, 2, 1))


def inference_of(
    tmp_path: Path, model: LoadedModel, rules: Sequence[RoutingRule], dispatcher: Dispatcher | None = None
) -> tuple[Inference, TwoVersions]:
    key = model.manifest.key
    cheaper = replace(model, manifest=replace(model.manifest, key=ModelKey(key.name, "9")))
    table = TwoVersions(tmp_path, cheaper)
    inference = Inference(
        table,
        dispatcher or FullFor(key),
        RequestLimits(),
        QueueLimits(),
        LoopClock(),
        tokenizer_threads=1,
        router=Router(rules),
    )
    return inference, table


async def test_a_cheaper_version_answers_what_would_be_refused(tmp_path: Path, model: LoadedModel) -> None:
    key = model.manifest.key
    rules = [rule(models=(key.name,), cheaper_version="9")]
    inference, table = inference_of(tmp_path, model, rules)
    call = call_of(model, explain=True, request_class=RequestClass.LIVE)
    info = (await inference.answer(call, ROWS)).info
    assert info.model == ModelKey(key.name, "9")
    assert info.explanation is not None
    assert (info.explanation.spared_version, info.explanation.routing_rule) == (key.version, "rule")
    streamed = await inference.submit(call, ROWS[0]).answer()
    assert streamed.info.model.version == "9"
    late = await inference.submit(call, TextRow("a " * 10_000)).answer()
    assert late.info.model.version == "9"
    table.is_ready = False
    with pytest.raises(Overloaded):
        await inference.answer(call, ROWS)
    inference.close()


async def test_a_call_that_a_cheaper_version_answers_arrives_once(tmp_path: Path, model: LoadedModel) -> None:
    key = model.manifest.key
    dispatcher = FullFor(key)
    rules = [rule(models=(key.name,), cheaper_version="9")]
    inference, _ = inference_of(tmp_path, model, rules, dispatcher)
    await inference.answer(call_of(model), ROWS)
    await inference.submit(call_of(model), ROWS[0]).answer()
    assert (dispatcher.arrivals, len(dispatcher.works)) == (2, 2)
    inference.close()


async def test_a_version_that_the_caller_names_is_not_replaced(tmp_path: Path, model: LoadedModel) -> None:
    inference, _ = inference_of(
        tmp_path, model, [rule(models=(model.manifest.key.name,), cheaper_version="9")]
    )
    with pytest.raises(Overloaded):
        await inference.answer(replace(call_of(model), is_pinned=True), ROWS)
    with pytest.raises(Overloaded):
        inference.submit(replace(call_of(model), is_pinned=True), ROWS[0])
    inference.close()


async def test_without_a_rule_nothing_replaces_a_refusal(tmp_path: Path, model: LoadedModel) -> None:
    inference, _ = inference_of(tmp_path, model, [])
    with pytest.raises(Overloaded):
        await inference.answer(call_of(model), ROWS)
    inference.close()
