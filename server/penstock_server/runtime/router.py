"""Applies routing rules to calls."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from penstock_server.domain.errors import ModelBroken, ModelLoading
from penstock_server.domain.routing import RoutingRule, Traffic
from penstock_server.runtime.model_table import ModelTable
from penstock_server.runtime.request_ticket import InferenceCall, TextRow
from penstock_server.scheduling.routing import first_match

_log = structlog.get_logger(__name__)


class Router:
    """The routing rules of a server.

    Args:
        rules: In the order in which they are tried.
        draw: A random number from 0 up to, but without, 1, for rules that sample.
    """

    def __init__(self, rules: Sequence[RoutingRule], draw: Callable[[], float] = random.random) -> None:
        self._rules = tuple(rules)
        self._draw = draw

    def routed(self, call: InferenceCall, rows: Sequence[TextRow]) -> InferenceCall:
        """The call as its rule has it; the same call if it falls under none."""
        if not self._rules:
            return call
        traffic = Traffic(
            tenant=call.options.tenant,
            method=call.method,
            model=call.model.manifest.key.name,
            rows=len(rows),
            chars=sum(len(row.text) + len(row.pair or "") for row in rows),
            metadata=call.metadata,
        )
        rule = first_match(self._rules, traffic, self._draw)
        return call if rule is None else _under(rule, call)

    @staticmethod
    def cheaper(call: InferenceCall, models: ModelTable) -> InferenceCall | None:
        """The call as the cheaper version of its rule would answer it; None if there is none, or not now."""
        rule = call.rule
        if rule is None or not rule.cheaper_version or call.is_pinned or call.spared_version:
            return None
        present = call.model.manifest.key
        if rule.cheaper_version == present.version:
            return None
        try:
            model = models.get(present.name, rule.cheaper_version)
            model.check_options(call.task)
        except (ModelLoading, ModelBroken) as err:
            _log.warning("cheaper_version_missing", rule=rule.name, model=present.name, error=err.message)
            return None
        return replace(call, model=model, spared_version=present.version)


def _under(rule: RoutingRule, call: InferenceCall) -> InferenceCall:
    """Fills in what the caller did not say. Who says a class has said how a request may be treated."""
    options = call.options
    if options.request_class is None:
        options = replace(
            options,
            request_class=rule.class_given(),
            overload_policy=options.overload_policy or rule.policy_given(),
        )
    return replace(call, options=options, rule=rule)


UNROUTED = Router(())
