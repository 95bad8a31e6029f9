"""Which routing rule a request falls under: the first that matches, drawn by lot where it samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.model import ModelKey
from penstock_server.domain.routing import ANY_VALUE, RoutingRule, Traffic


def first_match(
    rules: Sequence[RoutingRule], traffic: Traffic, draw: Callable[[], float]
) -> RoutingRule | None:
    """Finds the rule of a request; O(rules).

    Args:
        rules: In their order.
        traffic: What is known of the request.
        draw: A random number from 0 up to, but without, 1; called for each matching rule that samples.
    """
    for rule in rules:
        if matches(rule, traffic) and (rule.sampling_rate >= 1 or draw() < rule.sampling_rate):
            return rule
    return None


def matches(rule: RoutingRule, traffic: Traffic) -> bool:
    """Whether everything that the rule sets is true of a request."""
    return (
        (not rule.methods or traffic.method in rule.methods)
        and (not rule.models or traffic.model in rule.models)
        and (not rule.tenants or traffic.tenant in rule.tenants)
        and _within(traffic.rows, rule.rows_min, rule.rows_max)
        and _within(traffic.chars, rule.chars_min, rule.chars_max)
        and all(_has(traffic, key, value) for key, value in rule.metadata.items())
    )


def metadata_keys(rules: Sequence[RoutingRule]) -> frozenset[str]:
    """The metadata that rules ask for."""
    return frozenset(key for rule in rules for key in rule.metadata)


def check_models(rules: Sequence[RoutingRule], known: Collection[ModelKey]) -> None:
    """Refuses rules about models that the server does not have.

    Raises:
        InvalidRequest: Names the rule and the model.
    """
    names = {key.name for key in known}
    for rule in rules:
        for name in rule.models:
            if name not in names:
                there_are = ", ".join(sorted(names)) or "none"
                raise InvalidRequest(
                    f"Wrong configuration: the routing rule {rule.name!r} names the model {name!r}, "
                    f"which is not in the models folder; there are: {there_are}."
                )
            if rule.cheaper_version and ModelKey(name, rule.cheaper_version) not in known:
                versions = ", ".join(key.version for key in known if key.name == name)
                raise InvalidRequest(
                    f"Wrong configuration: the routing rule {rule.name!r} names version "
                    f"{rule.cheaper_version!r} of {name!r}; there are: {versions}."
                )


def _within(number: int, low: int, high: int | None) -> bool:
    return number >= low and (high is None or number <= high)


def _has(traffic: Traffic, key: str, value: str) -> bool:
    found = traffic.metadata.get(key)
    return found is not None and value in (ANY_VALUE, found)
