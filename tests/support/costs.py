"""Cost tables that are what a test says and never learn."""

from __future__ import annotations

import numpy as np

from penstock_server.domain.lane import LaneKind
from penstock_server.domain.model import ModelKey
from penstock_server.scheduling.cost import CostModels, CostTable


class FixedTable(CostTable):
    """Every batch costs ``batch_ns`` and every padded token ``token_ns``, median and upper."""

    def __init__(self, lane: LaneKind, batch_ns: float, token_ns: float) -> None:
        super().__init__(lane, 1024)
        tokens = np.multiply.outer(self.row_points, self.length_points).astype(np.float64)
        self.median_ns[:] = batch_ns + tokens * token_ns
        self.upper_ns[:] = self.median_ns

    def observe(self, rows: int, padded_length: int, duration_ns: int) -> None:
        """Learns nothing."""


class FixedCosts(CostModels):
    """Costs of all models on all lanes: so much a batch, and so much a padded token."""

    def __init__(self, batch_ns: float = 2.0, token_ns: float = 0.01) -> None:
        super().__init__()
        self._fixed: dict[tuple[ModelKey, LaneKind], CostTable] = {}
        self._batch_ns, self._token_ns = batch_ns, token_ns

    def table(self, model: ModelKey, lane: LaneKind) -> CostTable:
        """The table of a model version on a kind of lane."""
        key = (model, lane)
        if key not in self._fixed:
            self._fixed[key] = FixedTable(lane, self._batch_ns, self._token_ns)
        return self._fixed[key]
