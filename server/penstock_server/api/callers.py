"""Who calls: what a call's metadata says."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from penstock_server.api.deadlines import Context


class CallerReader:
    """Reads of a call's metadata what somebody asks for.

    Args:
        metadata_keys: The keys that routing rules ask for, in lower case.
    """

    def __init__(self, metadata_keys: Collection[str] = ()) -> None:
        self._metadata_keys = frozenset(metadata_keys)

    def metadata_of(self, context: Context) -> Mapping[str, str]:
        """The metadata that rules ask for; of a key that comes twice, the last value."""
        if not self._metadata_keys:
            return {}
        return {
            key: value
            for key, value in context.invocation_metadata() or ()
            if key in self._metadata_keys and isinstance(value, str)
        }
