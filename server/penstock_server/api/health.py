"""grpc.health.v1: the server as a whole (empty name), each service and each model by name."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health, health_pb2

from penstock_server.runtime.model_table import ModelEntry, ModelState

SERVICES = (
    "penstock.v1.InferenceService",
    "penstock.v1.BulkService",
    "penstock.v1.ScheduleService",
    "penstock.v1.ModelService",
)


class HealthReporter:
    """Owns the health servicer; hears of models and of the server's life."""

    def __init__(self) -> None:
        # The package has no types, and its asynchronous half is attached at import.
        untyped: Any = health
        self.servicer: Any = untyped.aio.HealthServicer()

    async def starting(self) -> None:
        """Nothing is ready yet."""
        for service in ("", *SERVICES):
            await self._set(service, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def ready(self) -> None:
        """The server answers requests."""
        for service in ("", *SERVICES):
            await self._set(service, health_pb2.HealthCheckResponse.SERVING)

    async def draining(self) -> None:
        """The server takes no new work; no later change counts."""
        await self.servicer.enter_graceful_shutdown()

    async def model_changed(self, entry: ModelEntry) -> None:
        """Reports a model under its name and under ``name@version``."""
        is_ready = entry.state is ModelState.READY
        status = (
            health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        await self._set(str(entry.key), status)
        if is_ready:
            await self._set(entry.key.name, status)

    async def _set(
        self, service: str, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType
    ) -> None:
        await self.servicer.set(service, status)
