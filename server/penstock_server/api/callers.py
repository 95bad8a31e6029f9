"""Who calls: what a call's credentials and metadata say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import cast

from penstock_server.api.codec import NAME_BYTES_MAX
from penstock_server.api.deadlines import Context
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.tasks import RequestOptions

TENANT_KEY = "penstock-tenant"
_COMMON_NAME = "x509_common_name"


class CallerReader:
    """Reads who calls, and of a call's metadata what somebody asks for.

    Args:
        metadata_keys: The keys that routing rules ask for, in lower case.
        has_certificates: Whether clients show certificates.
    """

    def __init__(self, metadata_keys: Collection[str] = (), *, has_certificates: bool = False) -> None:
        self._metadata_keys = frozenset(metadata_keys)
        self._has_certificates = has_certificates

    def metadata_of(self, context: Context) -> Mapping[str, str]:
        """The metadata that rules ask for; of a key that comes twice, the last value."""
        if not self._metadata_keys:
            return {}
        return {
            key: value
            for key, value in context.invocation_metadata() or ()
            if key in self._metadata_keys and isinstance(value, str)
        }

    def options_of(self, options: RequestOptions, context: Context) -> RequestOptions:
        """The options with the tenant who pays: as the certificate names it, else metadata, else the options.

        Raises:
            InvalidRequest: The name is too long or has characters that cannot be printed.
        """
        tenant = self._tenant(options, context)
        return options if tenant == options.tenant else replace(options, tenant=tenant)

    def proven_tenant(self, context: Context) -> str | None:
        """The tenant as its certificate names it, who sees its own jobs only; None if nobody shows one.

        A certificate without a common name is that of the tenant without a name, whatever it calls itself.

        Raises:
            InvalidRequest: The name is too long or has characters that cannot be printed.
        """
        if not self._has_certificates:
            return None
        names = cast("Mapping[str, list[bytes]]", context.auth_context()).get(_COMMON_NAME, ())
        name = next(iter(names), b"").decode(errors="replace")
        return checked_tenant(name, "the certificate's common name")

    def _tenant(self, options: RequestOptions, context: Context) -> str:
        proven = self.proven_tenant(context)
        if proven is not None:
            return proven
        for key, value in context.invocation_metadata() or ():
            if key == TENANT_KEY and value:
                text = value if isinstance(value, str) else value.decode(errors="replace")
                return checked_tenant(text, f"metadata {TENANT_KEY}")
        return checked_tenant(options.tenant, "options.tenant")


def checked_tenant(name: str, field: str) -> str:
    """Checks a tenant's name, which is repeated in logs, metrics and errors.

    Raises:
        InvalidRequest: It is too long, or has control characters or spaces at its ends.
    """
    if len(name) > NAME_BYTES_MAX or len(name.encode()) > NAME_BYTES_MAX:
        raise InvalidRequest.of_field(
            field, f"is longer than {NAME_BYTES_MAX} bytes; name the tenant shorter"
        )
    if not name.isprintable() or name.strip() != name:
        raise InvalidRequest.of_field(
            field, "must be printable characters without spaces at its ends; name the tenant so"
        )
    return name
