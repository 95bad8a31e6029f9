"""Builds engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from penstock_server.domain.errors import NotBuilt
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.tasks import Task
from penstock_server.engines.null import NullEngine
from penstock_server.engines.protocol import Engine

EngineKind = Literal["onnxruntime", "null"]


def build_engine(
    manifest: ModelManifest, *, threads: int, cpus: Sequence[int] = (), kind: EngineKind = "onnxruntime"
) -> Engine:
    """Builds and warms up an engine; blocking (tenths of a second), safe to call from several threads.

    Args:
        manifest: The model.
        threads: Threads it may compute with, the calling one included; at least 1.
        cpus: Where each of them stays, first the calling one, which sees to that itself; empty for anywhere.
        kind: What computes. ``null`` is for benchmarks and tests.

    Raises:
        ModelBroken: The graph cannot be loaded or run.
        NotBuilt: The model's task is not in this release.
    """
    if manifest.task is Task.TAG:
        raise NotBuilt(f"Model {manifest.key} tags tokens, which this release of Penstock does not do yet.")
    if kind == "null":
        return NullEngine(manifest)
    # Imported here, so that a process that never computes does not pay for loading the library.
    from penstock_server.engines.onnxruntime_cpu import OnnxEngine

    return OnnxEngine(manifest, threads=threads, cpus=cpus)
