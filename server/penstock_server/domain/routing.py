"""Rules that decide how urgent a request is whose caller does not say."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from penstock_server.domain.tasks import OverloadPolicy, RequestClass

ClassName = Literal["live_critical", "live", "flex", "bulk"]
PolicyName = Literal["reject", "demote_to_flex", "demote_to_bulk"]
MethodName = Literal["Embed", "Classify", "Tag", "Rerank", "Stream"]
# A metadata value of this means: any, as long as the key is there.
ANY_VALUE = "*"


class RoutingRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[routing]]`` entry of the configuration: what it matches, and what follows.

    Everything that is set must match; a rule that sets nothing matches all.

    Attributes:
        name: What explanations call the rule.
        tenants: Names of tenants; "" is who names none.
        methods: Names of RPCs.
        models: Names of models.
        metadata: Metadata of the call by lower-case key; the value ``*`` means any.
        chars_min: Fewest characters of all texts of the request, or of one text of a stream.
        chars_max: Most of them; None for no limit.
        rows_min: Fewest texts of the request; a text of a stream is one.
        rows_max: Most of them; None for no limit.
        sampling_rate: To which part of what matches the rule applies, above 0 up to 1; the rest goes on to
            the rules after it.
        request_class: The class, if the caller says none.
        overload_policy: What may happen if it cannot be computed in time; only if the caller says neither
            class nor policy.
        cheaper_version: The version of the model that answers what would be refused else, unless the caller
            names a version.
    """

    name: str
    tenants: tuple[str, ...] = ()
    methods: tuple[MethodName, ...] = ()
    models: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    chars_min: int = 0
    chars_max: int | None = None
    rows_min: int = 0
    rows_max: int | None = None
    sampling_rate: float = 1.0
    request_class: ClassName | None = None
    overload_policy: PolicyName | None = None
    cheaper_version: str = ""

    def class_given(self) -> RequestClass | None:
        """The class that the rule gives."""
        return None if self.request_class is None else RequestClass[self.request_class.upper()]

    def policy_given(self) -> OverloadPolicy | None:
        """The overload policy that the rule gives."""
        return None if self.overload_policy is None else OverloadPolicy(self.overload_policy)

    def problems(self) -> Generator[str]:
        """Says what can never work, one clause each."""
        if not self.name:
            yield "needs a name, which explanations of answers show"
        if not 0 < self.sampling_rate <= 1:
            yield f"sampling_rate must be above 0, up to 1, but is {self.sampling_rate}"
        for what, low, high in (
            ("chars", self.chars_min, self.chars_max),
            ("rows", self.rows_min, self.rows_max),
        ):
            if low < 0:
                yield f"{what}_min must not be negative"
            if high is not None and high < low:
                yield f"{what}_max must not be below {what}_min"
        if any(key != key.lower() for key in self.metadata):
            yield "metadata keys must be in lower case, as gRPC sends them"
        if not (self.request_class or self.overload_policy or self.cheaper_version):
            yield "decides nothing: set request_class, overload_policy or cheaper_version"
        if self.cheaper_version and len(self.models) != 1:
            yield "cheaper_version is the version of one model: name it in models"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What rules know of a request.

    Attributes:
        tenant: Who pays for it.
        method: Name of the RPC.
        model: Name of the model.
        rows: Texts of the request.
        chars: Characters of all its texts.
        metadata: The call's metadata, as far as rules ask for it.
    """

    tenant: str
    method: str
    model: str
    rows: int
    chars: int
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
