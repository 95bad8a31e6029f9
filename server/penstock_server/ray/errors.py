"""Why a job on Ray could not run. No caller of a server sees these."""

from __future__ import annotations

from penstock_server.domain.errors import PenstockError


class RayMissing(PenstockError):
    """Ray is not installed here."""

    reason = "RAY_MISSING"


class RayUnreachable(PenstockError):
    """There is no Ray cluster at the address, or none can be started here."""

    reason = "RAY_UNREACHABLE"


class RayJobFailed(PenstockError):
    """The job stopped; what is done is kept."""

    reason = "RAY_JOB_FAILED"
