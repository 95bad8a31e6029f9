"""ModelService: which models the server has."""

from __future__ import annotations

from itertools import groupby

from penstock.v1 import common_pb2, model_pb2, model_pb2_grpc
from penstock_server.api.codec import TASK_NUMBERS, name_from_proto
from penstock_server.api.deadlines import Context
from penstock_server.domain.errors import InvalidRequest, NotBuilt, UnknownModel
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import Task
from penstock_server.runtime.model_table import ModelEntry, ModelState, ModelTable
from penstock_server.scheduling.cost import CostModels, CostTable

_STATES = {
    ModelState.LOADING: model_pb2.MODEL_STATE_LOADING,
    ModelState.READY: model_pb2.MODEL_STATE_READY,
    ModelState.FAILED: model_pb2.MODEL_STATE_FAILED,
}

_LANES = {LaneKind.LIVE: model_pb2.LANE_KIND_LIVE, LaneKind.BULK: model_pb2.LANE_KIND_BULK}


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Describes the model table."""

    def __init__(self, models: ModelTable, engine_name: str, costs: CostModels) -> None:
        self._models = models
        self._costs = costs
        self._engine_name = engine_name

    async def ListModels(  # noqa: N802 - gRPC's name
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        """Lists all models."""
        return model_pb2.ListModelsResponse(models=self._all())

    async def GetModel(  # noqa: N802 - gRPC's name
        self, request: model_pb2.GetModelRequest, context: Context
    ) -> model_pb2.GetModelResponse:
        """Describes one model."""
        if not request.name:
            raise InvalidRequest.of_field("name", "is required; ListModels tells the names")
        name_from_proto(request.name, "name")
        for model in self._all():
            if model.name == request.name:
                for version in model.versions:
                    version.costs.extend(self._cost_tables(ModelKey(model.name, version.version)))
                return model_pb2.GetModelResponse(model=model)
        raise UnknownModel(
            f"There is no model {request.name!r}; ListModels tells the names.", model=request.name
        )

    async def LoadModel(  # noqa: N802 - gRPC's name
        self, request: model_pb2.LoadModelRequest, context: Context
    ) -> model_pb2.LoadModelResponse:
        """Not in this release."""
        raise NotBuilt(
            "Loading models at run time is not in this release; restart the server to load new folders."
        )

    async def UnloadModel(  # noqa: N802 - gRPC's name
        self, request: model_pb2.UnloadModelRequest, context: Context
    ) -> model_pb2.UnloadModelResponse:
        """Not in this release."""
        raise NotBuilt("Unloading models at run time is not in this release; remove the folder and restart.")

    async def SetRoute(  # noqa: N802 - gRPC's name
        self, request: model_pb2.SetRouteRequest, context: Context
    ) -> model_pb2.SetRouteResponse:
        """Not in this release."""
        raise NotBuilt(
            "Routes are not in this release; the newest version answers, or the one a request names."
        )

    def _cost_tables(self, model: ModelKey) -> list[model_pb2.CostTable]:
        """What is known so far; nothing of a model that is not loaded."""
        return [cost_table_to_proto(lane, table) for key, lane, table in self._costs.tables() if key == model]

    def _all(self) -> list[model_pb2.Model]:
        by_name = groupby(self._models.entries(), key=lambda entry: entry.key.name)
        return [self._model(name, list(entries)) for name, entries in by_name]

    def _model(self, name: str, entries: list[ModelEntry]) -> model_pb2.Model:
        versions = [self._version(entry) for entry in entries]
        ready = [entry.key.version for entry in entries if entry.state is ModelState.READY]
        shares = [model_pb2.RouteShare(version=version, weight=1) for version in ready[:1]]
        return model_pb2.Model(name=name, versions=versions, route=model_pb2.Route(shares=shares))

    def _version(self, entry: ModelEntry) -> model_pb2.ModelVersion:
        version = model_pb2.ModelVersion(
            version=entry.key.version, state=_STATES[entry.state], error=entry.error, engine=self._engine_name
        )
        manifest = entry.manifest
        if manifest is not None:
            version.task = TASK_NUMBERS.get(manifest.task, common_pb2.TASK_UNSPECIFIED)
            version.tokens_max = manifest.tokens_max
            version.dimensions = manifest.width if manifest.task is Task.EMBED else 0
            version.labels.extend(manifest.labels)
            version.precision = manifest.precision
        return version


def cost_table_to_proto(lane: LaneKind, table: CostTable) -> model_pb2.CostTable:
    """Copies a table into a message."""
    lengths = table.length_points.tolist()
    return model_pb2.CostTable(
        lane=_LANES[lane],
        rows=table.row_points.tolist(),
        lengths=lengths,
        median_ms=(table.median_ns.reshape(-1) / 1e6).tolist(),
        upper_ms=(table.upper_ns.reshape(-1) / 1e6).tolist(),
        best_rows=[table.best_rows(length) for length in lengths],
        observations=table.observations,
        drift=table.drift,
    )
