"""The models this server has: their states, and which version answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import structlog

from penstock_server.domain.errors import ModelBroken, ModelLoading, PenstockError, UnknownModel
from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey, ModelManifest
from penstock_server.models.loaded import LoadedModel, load_model
from penstock_server.models.repository import ModelRepository
from penstock_server.runtime.lanes import Lane, LaneLost
from penstock_server.text.tokenizer import TokenizerLimits

_log = structlog.get_logger(__name__)


class ModelState(Enum):
    """Where a model version stands."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(slots=True)
class ModelEntry:
    """A model version: its state, and what is known of it so far."""

    key: ModelKey
    state: ModelState = ModelState.LOADING
    manifest: ModelManifest | None = None
    loaded: LoadedModel | None = None
    error: str = ""


class StateListener(Protocol):
    """Hears of models that become ready or fail."""

    async def model_changed(self, entry: ModelEntry) -> None:
        """Called after each change."""
        ...


class ModelTable:
    """All model versions of the models folder. Owned by the event loop."""

    def __init__(
        self, repository: ModelRepository, lanes: Sequence[Lane], tokenizers: TokenizerLimits
    ) -> None:
        self._repository = repository
        self._lanes = tuple(lanes)
        self._tokenizers = tokenizers
        keys = repository.keys()
        self._entries = {key: ModelEntry(key) for key in keys}
        self._bulk_tasks: list[asyncio.Task[None]] = []

    async def load_all(self, listener: StateListener) -> None:
        """Loads every model version, side by side; a broken one is marked and the others go on."""
        await asyncio.gather(*(self._load(entry, listener) for entry in self._entries.values()))

    async def close(self) -> None:
        """Stops loading; idempotent."""
        for task in self._bulk_tasks:
            task.cancel()
        await asyncio.gather(*self._bulk_tasks, return_exceptions=True)
        self._bulk_tasks.clear()

    def entries(self) -> list[ModelEntry]:
        """All versions, by name, newest version first."""
        ordered = sorted(
            self._entries.values(), key=lambda entry: _version_rank(entry.key.version), reverse=True
        )
        return sorted(ordered, key=lambda entry: entry.key.name)

    def ready_manifests(self) -> list[ModelManifest]:
        """The versions that answer, in the order of `entries`."""
        return [entry.loaded.manifest for entry in self.entries() if entry.loaded is not None]

    def get(self, name: str, version: str = "") -> LoadedModel:
        """Finds the model version that answers.

        Args:
            name: Name of the model.
            version: Version; empty for the newest that is ready.

        Raises:
            UnknownModel: There is no such model or version; the message lists those there are.
            ModelLoading: It is not ready yet.
            ModelBroken: It could not be loaded.
        """
        entries = [entry for entry in self.entries() if entry.key.name == name]
        if not entries:
            raise UnknownModel(f"There is no model {name!r}. {self._known()}", model=name)
        if version:
            entries = [entry for entry in entries if entry.key.version == version]
            if not entries:
                raise UnknownModel(f"Model {name!r} has no version {version!r}.", model=name, version=version)
        for entry in entries:
            if entry.loaded is not None:
                return entry.loaded
        if any(entry.state is ModelState.LOADING for entry in entries):
            raise ModelLoading(f"Model {name!r} is being loaded; try again in a moment.", model=name)
        raise ModelBroken(f"Model {name!r} could not be loaded; the server's log says why.", model=name)

    async def _load(self, entry: ModelEntry, listener: StateListener) -> None:
        try:
            entry.manifest = await asyncio.to_thread(self._repository.manifest, entry.key)
            manifest = entry.manifest
            self._prepare_bulk(manifest)
            live = [lane.prepare(manifest) for lane in self._lanes if lane.kind is LaneKind.LIVE]
            loaded, *_ = await asyncio.gather(
                asyncio.to_thread(load_model, manifest, self._tokenizers), *live
            )
            entry.loaded = loaded
            entry.state = ModelState.READY
        except PenstockError as err:
            entry.state, entry.error = ModelState.FAILED, err.message
            _log.error("model_broken", model=str(entry.key), error=err.message)
        except Exception as err:  # noqa: BLE001 - one model's fault must not keep the others from starting
            entry.state, entry.error = ModelState.FAILED, f"{type(err).__name__}; the server's log says more"
            _log.error("model_broken", model=str(entry.key), exc_info=err)
        await listener.model_changed(entry)

    def _prepare_bulk(self, manifest: ModelManifest) -> None:
        """Has the bulk lanes build their engines; nobody waits for it but the first batches."""
        for lane in self._lanes:
            if lane.kind is LaneKind.BULK:
                self._bulk_tasks.append(asyncio.create_task(self._prepare_on(lane, manifest)))

    async def _prepare_on(self, lane: Lane, manifest: ModelManifest) -> None:
        try:
            await lane.prepare(manifest)
        except LaneLost:
            # The lane prepares its models again when its new worker is up.
            return
        except PenstockError as err:
            _log.error("bulk_engine_broken", model=str(manifest.key), lane=lane.name, error=err.message)

    def _known(self) -> str:
        names = sorted({key.name for key in self._entries})
        if not names:
            return "The models folder is empty; `penstock models pull demo` fetches two."
        return f"This server has: {', '.join(names)}."


def _version_rank(version: str) -> tuple[int, str]:
    """Numeric versions by number, above all others by name."""
    return (int(version), "") if version.isdecimal() else (-1, version)
