"""The model that Triton's Python backend runs: it tokenises, computes and pools whole batches of requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hybrid.servers.encoder import Encoder

# Exists only within the backend's process.
_utils: Any = import_module("triton_python_backend_utils")


class TritonPythonModel:
    """One instance of the model; Triton calls it with the requests of one dynamic batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the graph."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._encoder = Encoder(
            Path(parameters["folder"]["string_value"]), int(parameters["threads"]["string_value"])
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Computes all rows of all requests as one batch and gives each request its own."""
        arrays = [_utils.get_input_tensor_by_name(request, "TEXT").as_numpy() for request in requests]
        texts = [text.decode() for array in arrays for text in array[:, 0]]
        ends = np.cumsum([len(array) for array in arrays])[:-1]
        parts = np.split(self._encoder.encode(texts), ends)
        return [_utils.InferenceResponse([_utils.Tensor("VECTOR", part)]) for part in parts]
