"""Who a caller is taken for, and what nobody can pretend."""

from __future__ import annotations

from typing import cast

import pytest

from penstock_server.api.callers import CallerReader
from penstock_server.api.deadlines import Context
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.tasks import RequestOptions


class _Call:
    """A call with a certificate of these common names, and with metadata."""

    def __init__(self, names: list[bytes], metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._names = names
        self._metadata = metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_common_name": self._names} if self._names else {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


CLAIM = (("penstock-tenant", "acme"),)


def call(*names: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> Context:
    return cast(Context, _Call(list(names), metadata))


@pytest.mark.parametrize(("names", "tenant"), [((b"acme",), "acme"), ((), ""), ((b"a", b"b"), "a")])
def test_a_certificate_says_who_its_owner_is_and_nothing_else_does(
    names: tuple[bytes, ...], tenant: str
) -> None:
    reader = CallerReader(has_certificates=True)
    context = call(*names, metadata=CLAIM)
    assert reader.proven_tenant(context) == tenant
    assert reader.options_of(RequestOptions(tenant="acme"), context).tenant == tenant


def test_without_certificates_nobody_is_known_and_claims_count() -> None:
    reader = CallerReader()
    assert reader.proven_tenant(call(metadata=CLAIM)) is None
    assert reader.options_of(RequestOptions(tenant="mine"), call(metadata=CLAIM)).tenant == "acme"
    assert reader.options_of(RequestOptions(tenant="mine"), call()).tenant == "mine"


def test_a_name_that_cannot_be_shown_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="common name"):
        CallerReader(has_certificates=True).proven_tenant(call(b"a\nb"))
