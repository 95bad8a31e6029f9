"""Batches that only have a shape, for measuring engines."""

from __future__ import annotations

from typing import cast

import numpy as np

from penstock_server.domain.model import ModelManifest
from penstock_server.domain.work import Batch, IdArray
from penstock_server.engines.protocol import Engine


def empty_batch(engine: Engine, manifest: ModelManifest, rows: int, padded_length: int) -> Batch:
    """A batch of padding that the engine takes for tokens: it costs what a real one of that shape does."""
    shape = (rows, padded_length)
    ids, mask, types = (
        cast("IdArray", np.full(shape, value, engine.ids_dtype)) for value in (manifest.pad_id, 1, 0)
    )
    return Batch(token_ids=ids, attention_mask=mask, type_ids=types)
