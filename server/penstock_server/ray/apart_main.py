"""The child of an `ApartEngine`: ``python -m penstock_server.ray.apart_main DESCRIPTOR``."""

from __future__ import annotations

import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from penstock_server.domain.errors import EngineFailed
from penstock_server.domain.model import ModelManifest
from penstock_server.domain.work import Batch
from penstock_server.engines.factory import build_engine


def serve(connection: Connection) -> None:
    """Builds the engine of the manifest that comes first, then computes batches until nobody asks."""
    manifest: ModelManifest = connection.recv()
    engine = build_engine(manifest, threads=1)
    connection.send(engine.ids_dtype.name)
    # The end of the worker shows as either error; there is nobody left to tell.
    with suppress(EOFError, OSError):
        while True:
            batch: Batch = connection.recv()
            try:
                connection.send(engine.run(batch))
            except EngineFailed as err:
                connection.send(err.message)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
