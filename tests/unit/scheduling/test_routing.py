from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.model import ModelKey
from penstock_server.domain.routing import RoutingRule, Traffic
from penstock_server.scheduling.routing import check_models, first_match, matches, metadata_keys

TRAFFIC = Traffic("acme", "Embed", "minilm", rows=3, chars=100, metadata={"x-use": "search"})


def rule(**fields: Any) -> RoutingRule:
    return msgspec.convert({"name": "rule", "request_class": "flex", **fields}, RoutingRule)


def never() -> float:
    raise AssertionError("nothing is drawn for a rule that does not sample")


def drawing(*numbers: float) -> Callable[[], float]:
    left = list(numbers)
    return lambda: left.pop(0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tenants": ("other", "acme")},
        {"methods": ("Embed",)},
        {"models": ("minilm", "injection")},
        {"metadata": {"x-use": "search"}},
        {"metadata": {"x-use": "*"}},
        {"chars_min": 100},
        {"chars_max": 100},
        {"rows_min": 3, "rows_max": 3},
    ],
)
def test_a_rule_matches_what_it_sets(fields: dict[str, Any]) -> None:
    assert matches(rule(**fields), TRAFFIC)


@pytest.mark.parametrize(
    "fields",
    [
        {"tenants": ("other", "")},
        {"methods": ("Classify", "Stream")},
        {"models": ("injection",)},
        {"metadata": {"x-use": "chat"}},
        {"metadata": {"x-other": "*"}},
        {"metadata": {"x-use": "search", "x-other": "1"}},
        {"chars_min": 101},
        {"chars_max": 99},
        {"rows_min": 4},
        {"rows_max": 2},
    ],
)
def test_one_thing_that_differs_is_enough_not_to_match(fields: dict[str, Any]) -> None:
    assert not matches(rule(**fields), TRAFFIC)


def test_the_first_rule_that_matches_wins() -> None:
    rules = [rule(name="a", rows_min=9), rule(name="b"), rule(name="c")]
    found = first_match(rules, TRAFFIC, never)
    assert found is not None
    assert found.name == "b"
    assert first_match(rules[:1], TRAFFIC, never) is None


def test_what_is_not_drawn_goes_on_to_the_next_rule() -> None:
    rules = [rule(name="a", sampling_rate=0.25), rule(name="b", sampling_rate=0.5), rule(name="c")]
    chosen = [
        first_match(rules, TRAFFIC, drawing(*numbers)) for numbers in [(0.24,), (0.25, 0.49), (0.9, 0.5)]
    ]
    assert [found.name for found in chosen if found is not None] == ["a", "b", "c"]


@given(st.floats(0, 1, exclude_max=True), st.floats(0.01, 1))
def test_a_rule_applies_to_the_rate_it_says(drawn: float, rate: float) -> None:
    assert (first_match([rule(sampling_rate=rate)], TRAFFIC, lambda: drawn) is not None) == (drawn < rate)


def test_traffic_that_names_no_tenant_can_be_matched() -> None:
    assert matches(rule(tenants=("",)), replace(TRAFFIC, tenant=""))


def test_metadata_that_rules_ask_for() -> None:
    assert metadata_keys([rule(metadata={"a": "1"}), rule(metadata={"b": "*", "a": "2"}), rule()]) == {
        "a",
        "b",
    }


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (rule(models=("absent",)), "'rule' names the model 'absent'.*there are: minilm"),
        (rule(models=("minilm",), cheaper_version="7"), "version '7' of 'minilm'; there are: 2, 1"),
    ],
)
def test_rules_about_models_that_are_not_there_are_refused(wrong: RoutingRule, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        check_models([wrong], [ModelKey("minilm", "2"), ModelKey("minilm", "1")])


def test_rules_about_models_that_are_there_pass() -> None:
    check_models([rule(models=("minilm",), cheaper_version="1")], [ModelKey("minilm", "1")])
