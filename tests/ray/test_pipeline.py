"""The class for people's own pipelines, in one of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from penstock_server.bulk.arrow import pa
from penstock_server.ray.model import ModelOrder
from penstock_server.ray.predictor import Predictor
from tests.support.reviews import reviews
from tests.support.server import MODELS

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_predictor_maps_the_batches_of_any_dataset(cluster: Any) -> None:
    ray: Any = import_module("ray")
    texts = [text[:60] for text in reviews(200)]
    table = pa.table({"film": list(range(200)), "review": [*texts[:199], None]})
    order = ModelOrder(models=str(MODELS), model="minilm")
    answered = (
        ray.data.from_arrow(table)
        .map_batches(
            Predictor,
            fn_constructor_args=[order],
            fn_constructor_kwargs={"text_column": "review"},
            batch_format="pyarrow",
            batch_size=100,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=1,
        )
        .take_all()
    )
    found = sorted(answered, key=lambda row: row["film"])
    assert [row["film"] for row in found] == list(range(200))
    assert [row["error_code"] for row in found] == [None] * 199 + ["EMPTY_TEXT"]
    alone = Predictor(order, text_column="review")(table).to_pylist()
    for one, other in zip(found[:199], alone[:199], strict=True):
        assert np.dot(one["embedding"], other["embedding"]) >= 0.99999
